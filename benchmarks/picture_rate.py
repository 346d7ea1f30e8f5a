"""How long a look at a job of ten million localisations takes: the whole picture, a part, single molecules, histograms, the drift.

What the page asks for is asked of the scheduler's own code, without HTTP, over results in real files. The first look decodes them, or finds them kept as columns
once the job has ended; the others find them held in memory. Figures in docs/performance.md are of `python benchmarks/picture_rate.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

from cluster.arrays import TaskResult, encode_result
from cluster.protocol import MetadataValue, SeriesFacts
from cluster.results.filters import Filters
from cluster.results.histograms import histograms
from cluster.results.picture_files import Look, Tones, png
from cluster.results.render import Field
from cluster.scheduler.blobs import Blobs
from cluster.scheduler.columns import ColumnCache
from cluster.scheduler.drift import DriftDesk
from cluster.scheduler.pictures import Shown, picture_of
from cluster.scheduler.results import Results
from cluster.scheduler.sheets import Sheet
from cluster.scheduler.shelf import Shelf
from fitting.localisations import CANDIDATE_DTYPE, LAT_GAUSS_DTYPE, FrameStatus

FIELD_PX, PIXEL_NM = 512, 100.0
ROWS_PER_TASK, ROWS_PER_FRAME = 50_000, 500
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ADOffset": 100.0,
    "Camera.ReadNoise": 1.2,
}


class StoredResults(Results):
    """Results whose journal is a list: reading rows of it is what it is in a cluster, the files included."""

    def __init__(self, blobs: Blobs, rows: list[Any]) -> None:
        super().__init__(None, blobs)  # type: ignore[arg-type]
        self._of_job = rows

    def _page_by_row(self, job_id: str, from_row: int) -> list[Any]:  # noqa: ARG002 - there is one job
        return [row for row in self._of_job if row.first_row + row.rows > from_row][:64]


def sheet_of(frames: int) -> Sheet:
    """Return the sheet of the job."""
    facts = SeriesFacts(
        path="filaments.tif", height=FIELD_PX, width=FIELD_PX, dtype="uint16", frames=frames, fingerprint="f", bytes=0, format="tiff"
    )  # fmt: skip
    return Sheet(
        job_id="j", name="filaments", owner="o", machine="m", kind="localise", priority=0, series="filaments.tif",
        fit="LatGaussFitFR", analysis={}, metadata={key: MetadataValue(value=value, source="file") for key, value in METADATA.items()},
        facts=facts, events=[], maps={}, dataservers=[], start=0, stop=frames, frames=None, output=None, notes=[], created=0.0,
    )  # fmt: skip


def molecules(rng: np.random.Generator, first_frame: int, count: int) -> np.ndarray[Any, Any]:
    """Return rows of molecules on filaments, with errors and photons as they are spread in a measurement."""
    rows = np.zeros(count, LAT_GAUSS_DTYPE)
    side_nm = FIELD_PX * PIXEL_NM
    ends = np.random.default_rng(0).uniform(0, side_nm, (2, 200, 2))
    of, along = rng.integers(0, 200, count), rng.uniform(0, 1, (count, 1))
    place = ends[0, of] + (ends[1, of] - ends[0, of]) * along
    photons = rng.lognormal(np.log(800), 0.5, count)
    error = 130 / np.sqrt(photons) * rng.uniform(1.0, 1.5, count)
    rows["tIndex"] = first_frame + np.arange(count) // ROWS_PER_FRAME
    place += rng.normal(0, 1, (count, 2)) * error[:, np.newaxis]
    rows["fitResults"]["x0"], rows["fitResults"]["y0"] = place.T
    rows["fitResults"]["sigma"] = rng.normal(130, 8, count)
    rows["fitResults"]["A"] = photons / (2 * np.pi * 1.3**2 * 0.5)
    rows["fitError"]["x0"] = rows["fitError"]["y0"] = error
    rows["subtractedBackground"] = rng.normal(20, 3, count)
    rows["resultCode"] = 1
    return rows


def stored(blobs: Blobs, localisations: int) -> Iterator[Any]:
    """Store results of tasks, as workers send them."""
    from cluster.scheduler.entries import ResultRow

    rng = np.random.default_rng(1)
    for task_id, first in enumerate(range(0, localisations, ROWS_PER_TASK)):
        count = min(ROWS_PER_TASK, localisations - first)
        start, stop = first // ROWS_PER_FRAME, -(-(first + count) // ROWS_PER_FRAME)
        result = TaskResult(
            start=start, stop=stop, rows=molecules(rng, start, count), frame_status=np.full(stop - start, FrameStatus.LOCALISED, np.uint8),
            candidates=np.zeros(0, CANDIDATE_DTYPE), seconds=1.0,
        )  # fmt: skip
        yield ResultRow(
            job_id="j", task_id=task_id, attempt=1, sha256="", first_row=first, rows=count,
            blob=blobs.store("j", task_id, 1, encode_result(result)), reasons=[], cpu="",
        )  # fmt: skip


def seconds_of(look: Callable[[], object], repeat: int) -> float:
    """Return how long the quickest of some looks took."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        look()
        times.append(time.perf_counter() - begin)
    return min(times)


def measured(localisations: int, repeat: int) -> dict[str, float]:
    """Return the seconds of each look, by what it is."""
    with tempfile.TemporaryDirectory() as folder:
        blobs = Blobs(Path(folder))
        results = StoredResults(blobs, list(stored(blobs, localisations)))
        sheet = sheet_of(localisations // ROWS_PER_FRAME)
        shelf = Shelf(Path(folder) / "columns", results)
        cache, desk, tones = ColumnCache(results), DriftDesk(), Tones()

        def after_the_end() -> bytes:
            blocks = ColumnCache(results, shelf).of(sheet)
            return png(
                picture_of(sheet, Shown(blocks, Filters()), Look(pixel_nm=whole_nm, tones=tones)), tones
            )

        def picture(filters: str | None = None, drift: bool = False, **look: Any) -> bytes:
            estimate = desk.by_correlation("j", cache.of(sheet), ended=True) if drift else None
            shown = Shown(cache.of(sheet), Filters.parse(filters), estimate)
            return png(picture_of(sheet, shown, Look(tones=tones, **look)), tones)

        whole_nm = FIELD_PX * PIXEL_NM / 1000
        part = Field(20_000, 20_000, 30_000, 30_000)
        close = Field(25_000, 25_000, 25_600, 25_600)
        looks: dict[str, Callable[[], object]] = {
            "first look, results decoded": lambda: picture(pixel_nm=whole_nm),
            "kept when the job ends, beside other work": lambda: shelf.put(sheet, localisations),
            "first look at a job that has ended": after_the_end,
            "whole, Gaussians": lambda: picture(pixel_nm=whole_nm),
            "whole, counts": lambda: picture(pixel_nm=whole_nm, mode="histogram"),
            "whole, coloured by time": lambda: picture(pixel_nm=whole_nm, colour_by="frame"),
            "whole, filtered": lambda: picture("photons=400..2000,precision_nm=..8", pixel_nm=whole_nm),
            "10 µm of 51": lambda: picture(pixel_nm=10.0, region=part),
            "0.6 µm, single molecules": lambda: picture(pixel_nm=0.6, region=close),
            "histograms": lambda: histograms(cache.of(sheet), Filters()),
            "histograms, filtered": lambda: histograms(cache.of(sheet), Filters.parse("photons=400..2000")),
            "drift, estimated": lambda: DriftDesk().by_correlation("j", cache.of(sheet), ended=True),
            "whole, without the drift": lambda: picture(pixel_nm=whole_nm, drift=True),
        }
        return {
            name: round(seconds_of(look, 1 if name.startswith(("first", "kept", "drift")) else repeat), 3)
            for name, look in looks.items()
        }


def main() -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--localisations", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="a hundredth of them, each look once")
    asked = parser.parse_args()
    number = asked.localisations // 100 if asked.quick else asked.localisations
    found = measured(number, 1 if asked.quick else 3)
    for name, seconds in found.items():
        print(f"{seconds:8.3f} s  {name}")
    print(json.dumps({"localisations": number, "seconds": found, **surroundings()}))


if __name__ == "__main__":
    main()
