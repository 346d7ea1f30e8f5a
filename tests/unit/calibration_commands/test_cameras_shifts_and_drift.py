"""`clusterofone cameramaps | shifts | drift`, in this process: what they write, say, and refuse."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from PIL import Image
from typer.testing import CliRunner

from cluster.calibrating.__main__ import answer
from cluster.commands import cameramaps, drift, files, shifts
from cluster.commands.console import Refused
from cluster.dataserver.readers.registry import open_series
from cluster.errors import ClusterError
from cluster.results.drift_table import CORRECTED
from cluster.results.h5r import Reader, Writer
from cluster.results.ledger import Ledger
from cluster.results.provenance import Provenance
from fitting.errors import FittingError
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus
from fitting.shift_field import ShiftField

FRAMES = 300
METADATA: dict[str, Any] = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
    "Camera.ROIWidth": 200,
    "Camera.ROIHeight": 300,
}


def run(*arguments: object) -> Any:
    app = typer.Typer()
    for part in (cameramaps, shifts, drift, files):
        part.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def told(result: Any) -> dict[str, Any]:
    assert result.exception is None, (result.exception, result.output)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def refused(result: Any, *words: str) -> None:
    assert result.exit_code != 0
    said = str(result.exception) + result.output
    if not isinstance(result.exception, SystemExit):  # what the program tells in one line
        assert isinstance(result.exception, Refused | ClusterError | FittingError), result.exception
    for word in words:
        assert word in said


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 500 and np.asarray(image).std() > 5


def series(
    path: Path, photons: float, *, seed: int = 0, frames: int = 250, shape: tuple[int, int] = (24, 32)
) -> Path:
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(photons, (frames, *shape)) + rng.normal(0, 1.6, (frames, *shape))
    tifffile.imwrite(path, np.rint(100 + 2 * electrons).astype(np.uint16), photometric="minisblack")
    return path


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    return series(tmp_path / "dark.tif", 0)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return series(tmp_path / "flat.tif", 1000, seed=1)


# --- cameramaps


def test_maps_of_a_camera_are_series_that_a_job_can_name(tmp_path: Path, dark: Path, flat: Path) -> None:
    found = told(run("cameramaps", dark, flat, "-o", tmp_path / "camera", "--json"))

    assert set(found["files"]) == {"dark", "variance", "flatfield", "gain", "numbers", "picture"}
    for name, middle in (("dark", 100), ("variance", 1.6**2 + 1 / 48), ("flatfield", 1), ("gain", 2)):
        with contextlib.closing(open_series(tmp_path / "camera" / f"{name}.tif")) as reader:
            assert (reader.shape.frames, reader.shape.height, reader.shape.width) == (1, 24, 32)
            assert reader.shape.dtype == np.float32
            assert np.median(reader.read(0, 1)[0]) == pytest.approx(middle, rel=0.03)
    assert found["electrons_per_adu"] == pytest.approx(0.5, rel=0.02)
    facts = json.loads((tmp_path / "camera" / "maps.json").read_text(encoding="utf-8"))
    assert facts["settings"] == {
        "dark_map": "dark.tif",
        "variance_map": "variance.tif",
        "flatfield_map": "flatfield.tif",
    }
    assert [one["file"] for one in facts["input"]] == ["dark.tif", "flat.tif"]
    assert is_picture(tmp_path / "camera" / "maps.png")


def test_a_dead_pixel_survives_the_file(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(100, 3, (50, 24, 32)).astype(np.uint16)
    frames[:, 5, 6] = 100
    tifffile.imwrite(tmp_path / "dark.tif", frames, photometric="minisblack")

    told(run("cameramaps", tmp_path / "dark.tif", "-o", tmp_path / "c", "--electrons-per-adu", 0.5, "--json"))

    with contextlib.closing(open_series(tmp_path / "c" / "variance.tif")) as reader:
        variance = reader.read(0, 1)[0][0]
    assert np.argwhere(np.isinf(variance)).tolist() == [[5, 6]]


def test_dark_frames_alone_use_what_the_file_says_an_adu_is_worth(tmp_path: Path, dark: Path) -> None:
    (tmp_path / "dark.json").write_text(json.dumps({"Camera.ElectronsPerCount": 0.25}))

    found = told(run("cameramaps", dark, "-o", tmp_path / "camera", "--json"))

    assert (found["electrons_per_adu"], found["variance_unit"]) == (0.25, "e-^2")
    assert "as the file says" in found["notes"][0]
    assert not (tmp_path / "camera" / "gain.tif").exists()


def test_a_variance_in_adu_cannot_be_taken_for_the_map_of_a_job(
    tmp_path: Path, dark: Path, flat: Path
) -> None:
    told(run("cameramaps", dark, flat, "-o", tmp_path / "camera", "--json"))

    found = told(run("cameramaps", dark, "-o", tmp_path / "camera", "--overwrite", "--json"))

    assert set(found["files"]) == {"dark", "variance_adu2", "numbers", "picture"}
    assert not (tmp_path / "camera" / "variance.tif").exists()
    facts = json.loads((tmp_path / "camera" / "maps.json").read_text(encoding="utf-8"))
    assert facts["settings"] == {"dark_map": "dark.tif"}


def test_a_spoiled_frame_is_read_again_and_taken_out(tmp_path: Path, dark: Path) -> None:
    frames = tifffile.imread(dark)
    clean = told(run("cameramaps", dark, "-o", tmp_path / "clean", "--json"))
    spoiled = np.insert(frames, 100, frames[0] + 500, axis=0)
    tifffile.imwrite(tmp_path / "spoiled.tif", spoiled, photometric="minisblack")

    found = told(run("cameramaps", tmp_path / "spoiled.tif", "-o", tmp_path / "mended", "--json"))

    assert any("number 100" in note for note in found["notes"])
    assert found["variance"] == pytest.approx(clean["variance"])


def test_old_maps_are_not_left_beside_new_ones(tmp_path: Path, dark: Path, flat: Path) -> None:
    told(run("cameramaps", dark, flat, "-o", tmp_path / "camera", "--json"))
    refused(run("cameramaps", dark, "-o", tmp_path / "camera"), "dark.tif", "--overwrite")

    told(run("cameramaps", dark, "-o", tmp_path / "camera", "--overwrite", "--json"))

    assert not (tmp_path / "camera" / "flatfield.tif").exists()
    assert not (tmp_path / "camera" / "gain.tif").exists()


def test_camera_series_that_cannot_be_used_are_named(tmp_path: Path, dark: Path) -> None:
    (tmp_path / "text.tif").write_text("no image")
    small = series(tmp_path / "small.tif", 1000, shape=(16, 16))
    em = series(tmp_path / "em.tif", 1000)
    one = series(tmp_path / "one.tif", 0, frames=1)
    refused(run("cameramaps", tmp_path / "none.tif"), "none.tif", "no such file")
    refused(run("cameramaps", tmp_path / "text.tif", "-o", tmp_path / "c"), "text.tif")
    refused(run("cameramaps", dark, small, "-o", tmp_path / "c"), "16 × 16 px")
    refused(run("cameramaps", dark, dark, "-o", tmp_path / "c"), "no brighter")
    refused(run("cameramaps", one, "-o", tmp_path / "c"), "two frames")
    refused(run("cameramaps", dark, "-o", dark), "is a file")
    refused(run("cameramaps", dark, "-o", tmp_path), "would replace")
    refused(run("cameramaps", dark, "-o", tmp_path / "c", "--electrons-per-adu", -1), "over 0")
    (tmp_path / "dark.json").write_text(json.dumps({"Camera.TrueEMGain": 100.0}))
    refused(run("cameramaps", dark, em, "-o", tmp_path / "c"), "EM gain off")
    assert not (tmp_path / "c").exists()


# --- shifts

P = ("Ag", "Ar", "x0", "y0", "sigma", "background_g", "background_r", "dx", "dy")
GROUP = np.dtype([(name, "<f4") for name in P])
SHIFT_DTYPE = np.dtype([("tIndex", "<i4"), ("fitResults", GROUP), ("fitError", GROUP), ("resultCode", "<i4")])
LEDGER = Ledger(np.full(FRAMES, FrameStatus.LOCALISED, np.uint8), np.ones(FRAMES, np.uint32))
PROVENANCE = Provenance({}, {}, {}, {"path": "series.tif"}, {"id": "j1"}, LEDGER)


def write_results(path: Path, rows: Any, markers: Any = None, metadata: dict[str, Any] | None = None) -> Path:
    with Writer(path, rows.dtype, METADATA if metadata is None else metadata) as writer:
        writer.append(rows)
        if markers is not None:
            writer.append_fiducials(markers)
        return writer.finish(PROVENANCE)


def bead_rows(count: int = 120) -> Any:
    rng = np.random.default_rng(0)
    rows = np.zeros(count, SHIFT_DTYPE)
    fits = rows["fitResults"]
    fits["x0"], fits["y0"] = rng.uniform(0, 20_000, count), rng.uniform(0, 15_000, count)
    fits["dx"] = 100 + fits["x0"] / 400 + rng.normal(0, 2, count)
    fits["dy"] = -30 + fits["y0"] / 500 + rng.normal(0, 2, count)
    fits["dx"][:6] += 300
    rows["fitError"]["dx"] = rows["fitError"]["dy"] = 2.0
    rows["resultCode"] = 1
    return rows


@pytest.mark.parametrize("model", ["affine", "spline"])
def test_a_shift_field_comes_from_bead_fits(tmp_path: Path, model: str) -> None:
    beads = write_results(tmp_path / "beads.h5r", bead_rows())

    found = told(run("shifts", beads, "--model", model, "-o", tmp_path / "shifts.json", "--json"))

    field = ShiftField.from_dict(json.loads((tmp_path / "shifts.json").read_text(encoding="utf-8")))
    dx, dy = field.at([10_000.0], [7_500.0])
    assert (dx[0], dy[0]) == (pytest.approx(125, abs=1.5), pytest.approx(-15, abs=1.5))
    assert (found["model"], found["beads"]) == (model, 120)
    assert 6 <= found["beads_left_out"] <= 10
    assert not any(
        "hold no bead" in note for note in found["notes"]
    )  # the upper half of the frame is channel 0
    assert is_picture(tmp_path / "shifts.png")


def test_a_shift_field_counts_from_the_chips_first_pixel(tmp_path: Path) -> None:
    moved = METADATA | {"Camera.ROIOriginX": 50, "Camera.ROIOriginY": 20}
    fields = []
    for name, metadata in (("here", METADATA), ("there", moved)):
        beads = write_results(tmp_path / f"{name}.h5r", bead_rows(), metadata=metadata)
        told(run("shifts", beads, "-o", tmp_path / f"{name}.json", "--json"))
        fields.append(
            ShiftField.from_dict(json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")))
        )

    np.testing.assert_allclose(fields[1].at(15_000, 9_500), fields[0].at(10_000, 7_500), atol=1e-6)


def test_beads_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    beads = write_results(tmp_path / "beads.h5r", bead_rows())
    few = write_results(tmp_path / "few.h5r", bead_rows(12))
    molecules = write_results(tmp_path / "molecules.h5r", np.zeros(5, LAT_GAUSS_DTYPE))
    unknown = write_results(
        tmp_path / "unknown.h5r",
        bead_rows(),
        metadata={k: v for k, v in METADATA.items() if k != "voxelsize.x"},
    )
    (tmp_path / "shifts.json").write_text("{}")
    new = tmp_path / "new.json"
    refused(run("shifts", tmp_path / "none.h5r", "-o", new), "none.h5r", "no such file")
    refused(run("shifts", beads, "-o", tmp_path / "shifts.sf"), ".json")
    refused(run("shifts", beads, "-o", tmp_path / "shifts.json"), "shifts.json", "--overwrite")
    refused(run("shifts", beads, "-o", new, "--model", "quintic"), "quintic")
    refused(run("shifts", beads, "-o", new, "--set", "threshold=2"), "--set")
    refused(run("shifts", few, "-o", new), "20 beads or more")
    refused(run("shifts", molecules, "-o", new), "SplitterShiftEstFR")
    refused(run("shifts", unknown, "-o", new), "voxelsize.x")
    assert told(run("shifts", unknown, "-o", new, "--meta", "voxelsize.x=0.1", "--json"))["beads"] == 120


# --- drift


def still_rows(markers: bool) -> Any:
    """Three markers, or molecules at one place, that drift by 0.2 nm a frame in x."""
    rng = np.random.default_rng(1 + markers)
    rows = np.zeros(3 * FRAMES, LAT_GAUSS_DTYPE)
    rows["tIndex"] = np.repeat(np.arange(FRAMES), 3)
    which = np.tile(np.arange(3), FRAMES)
    rows["fitResults"]["x0"] = 4000 + 3000 * which + 0.2 * rows["tIndex"] + rng.normal(0, 2, len(rows))
    rows["fitResults"]["y0"] = 5000 + rng.normal(0, 2, len(rows))
    rows["fitResults"]["sigma"], rows["fitResults"]["A"] = 135.0, 100.0
    for name in ("A", "x0", "y0", "sigma", "background"):
        rows["fitError"][name] = 2.0
    rows["resultCode"], rows["nchi2"] = 1, 1.0
    return rows


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    return write_results(tmp_path / "moving.h5r", still_rows(False), still_rows(True))


def test_the_drift_of_markers_is_written_frame_by_frame(tmp_path: Path, moving: Path) -> None:
    found = told(run("drift", moving, "--json"))

    with (tmp_path / "moving_drift.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in table] == list(range(FRAMES))
    # 59.8 nm, each end known to twice the error of a window's mean
    assert float(table[-1]["x_nm"]) == pytest.approx(59.8, abs=4 * 2.9 * 2 / np.sqrt(3 * 35))
    assert {row["markers"] for row in table} == {"3"}
    assert found["markers"] == 3
    assert is_picture(tmp_path / "moving_drift.png")


def test_a_corrected_copy_holds_all_else_and_the_original_stays(tmp_path: Path, moving: Path) -> None:
    before = moving.read_bytes()

    told(run("drift", moving, "--apply", tmp_path / "still.h5r", "--json"))

    assert moving.read_bytes() == before
    with Reader(tmp_path / "still.h5r") as still, Reader(moving) as original:
        rows, old = still.table("FitResults"), original.table("FitResults")
        assert rows is not None
        assert old is not None
        own = rows["fitResults"]["x0"][rows["fitResults"]["x0"] < 5500]
        assert own.std() < 1.15 * 2
        np.testing.assert_array_equal(rows["fitError"], old["fitError"])
        np.testing.assert_array_equal(still.table("DriftResults"), original.table("DriftResults"))
        provenance = still.provenance()
        assert provenance is not None
        assert provenance.job["drift"]["source"] == "moving.h5r"
        assert still.metadata()[CORRECTED] is True
    refused(run("drift", tmp_path / "still.h5r"), "already")


def x_of(table: Path) -> Any:
    with table.open() as file:
        return np.array([float(row["x [nm]"]) for row in csv.DictReader(file)])


def test_a_table_and_a_picture_may_be_made_without_the_drift(tmp_path: Path, moving: Path) -> None:
    told(run("drift", moving, "-o", tmp_path / "d.csv", "--apply", tmp_path / "still.csv", "--json"))
    for name, more in (("plain", ()), ("corrected", ("--drift", tmp_path / "d.csv"))):
        assert run("export", moving, tmp_path / f"{name}.csv", *more).exception is None
        assert run("render", moving, tmp_path / f"{name}.png", *more).exception is None

    np.testing.assert_array_equal(x_of(tmp_path / "still.csv"), x_of(tmp_path / "corrected.csv"))
    gone = x_of(tmp_path / "plain.csv") - x_of(tmp_path / "corrected.csv")
    assert gone[-1] == pytest.approx(59.8, abs=2.5)
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "corrected.png").read_bytes()


def test_a_drift_asked_for_over_rest_is_that_of_the_command(tmp_path: Path, moving: Path) -> None:
    (tmp_path / "rest").mkdir()
    ours = (tmp_path / "ours.csv", tmp_path / "ours_corrected.h5r")
    assert run("drift", moving, "-o", ours[0], "--apply", ours[1]).exception is None
    asked = {"kind": "drift", "series": [str(moving)], "metadata": {}, "options": {"apply": True}}

    said = answer(asked | {"output": str(tmp_path / "rest" / "theirs.csv")})

    files = {name: Path(path) for name, path in said["files"].items()}
    assert set(files) == {"curve", "picture", "corrected"}
    assert files["curve"].read_bytes() == ours[0].read_bytes()
    with Reader(files["corrected"]) as theirs, Reader(ours[1]) as mine:
        np.testing.assert_array_equal(theirs.table("FitResults"), mine.table("FitResults"))
    assert (
        "track_fiducials"
        in answer(
            asked
            | {
                "series": [str(write_results(tmp_path / "bare.h5r", still_rows(False)))],
                "output": str(tmp_path / "b.csv"),
            }
        )["error"]
    )


def test_results_of_which_no_drift_can_be_known_are_named(tmp_path: Path, moving: Path) -> None:
    bare = write_results(tmp_path / "bare.h5r", still_rows(False))
    (tmp_path / "d.csv").write_text("frame,x\n0,1\n")
    (tmp_path / "no.h5r").write_text("no results")
    refused(run("drift", tmp_path / "none.h5r"), "none.h5r", "no such file")
    refused(run("drift", bare), "track_fiducials")
    refused(run("drift", tmp_path / "no.h5r"), "no.h5r")
    refused(run("drift", moving, "-o", tmp_path / "d.txt"), ".csv")
    refused(run("drift", moving, "-o", tmp_path / "d.csv"), "d.csv", "--overwrite")
    refused(run("drift", moving, "--apply", moving), "name of its own")
    refused(run("drift", moving, "--apply", tmp_path / "out.txt"), ".h5r or .csv")
    refused(run("export", moving, tmp_path / "out.csv", "--drift", tmp_path / "d.csv"), "no drift curve")
    refused(run("export", moving, tmp_path / "out.csv", "--drift", tmp_path / "none.csv"), "none.csv")
    refused(run("drift", moving, "--largest-error-nm", 1), "no marker")
    assert not (tmp_path / "out.csv").exists()
    assert not list(tmp_path.glob(".*.part"))
