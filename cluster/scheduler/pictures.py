"""What people download beside the result file itself: a picture, a table of text."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid
from cluster.protocol import PictureQuery
from cluster.results.columns import Columns
from cluster.results.csv import csv_lines
from cluster.results.exports import export_for
from cluster.results.filters import Filters
from cluster.results.h5r import Reader
from cluster.results.picture_files import Look, Tones, save_tiff
from cluster.results.render import Field, Picture, render
from cluster.results.tints import tint_of
from cluster.scheduler.drift import Estimate
from cluster.scheduler.sheets import Sheet

_DRAWN_EACH: Final = 100_000  # localisations that are drawn one by one: some tenths of a second


def look_of(query: PictureQuery) -> Look:
    """Return the look that a request asks for.

    Raises
    ------
    Invalid
        If its region is none, or it gives one end of the colours only.
    """
    ends = (query.colour_low, query.colour_high)
    if (ends[0] is None) != (ends[1] is None):
        raise Invalid("colour_low and colour_high belong together", field="colour_low")
    return Look(
        pixel_nm=query.pixel_nm,
        mode=query.style,
        region=None if query.region is None else Field.parse(query.region),
        colour_by=query.colour_by,
        colour_range=None if ends[0] is None or ends[1] is None else (ends[0], ends[1]),
        tones=Tones(query.gamma, query.brightest, query.white),
    )


@dataclass(frozen=True)
class Shown:
    """Which localisations are shown: all, those that the filters choose, with a drift taken off or not."""

    columns: Sequence[Columns]
    filters: Filters
    drift: Estimate | None = None

    def blocks(self) -> list[Columns]:
        """Return what a picture is drawn from; raises `Invalid` if a filter is of a quantity that the fit does not know."""
        last = max((int(block.frame.max()) for block in self.columns if len(block)), default=-1)
        # as exact as the positions are: what is subtracted from millions need not be twice as large
        drift = None if self.drift is None else [t.astype(np.float32) for t in self.drift.tables(last + 1)]
        return [self._shown(block, drift) for block in self.columns]

    def _shown(self, block: Columns, drift: Sequence[npt.NDArray[np.float32]] | None) -> Columns:
        chosen = self.filters.chosen(block)
        slim = block.for_picture()
        if chosen is not None:
            slim = slim.select(chosen)
        return slim if drift is None else slim.moved(*(table.take(slim.frame) for table in drift))


def picture_of(sheet: Sheet, shown: Shown, look: Look) -> Picture:
    """Return a picture of the localisations that are committed.

    Raises
    ------
    Invalid
        If the pixels are so small that the picture would be too large, there is no z to be coloured by, or a filter is of what is not known.
    """
    pixel_x_nm, pixel_y_nm = (1000 * float(sheet.values[key]) for key in ("voxelsize.x", "voxelsize.y"))
    field = Field.of_frame(sheet.facts.height, sheet.facts.width, pixel_x_nm, pixel_y_nm)
    blocks = shown.blocks()
    anything = any(map(len, blocks))
    tint = tint_of(look.colour_by, blocks, look.colour_range) if look.colour_by and anything else None
    return render(
        blocks,
        field.part(look.region),
        pixel_nm=look.pixel_nm,
        mode=look.mode,
        tint=tint,
        quick_above=_DRAWN_EACH,
    )


def tiff_of(picture: Picture) -> bytes:
    """Return a picture as a TIFF to measure in; raises `Invalid` if it is coloured."""
    if picture.tint is not None:
        raise Invalid("a TIFF holds counts to measure in; leave colour_by out", field="colour_by")
    body = io.BytesIO()
    save_tiff(picture, body)
    return body.getvalue()


@dataclass(frozen=True)
class Table:
    """A file made for one download, in a folder of its own."""

    path: Path
    media_type: str

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def table_of(source: Path, kind: str) -> Table:
    """Write the localisations of a result file as another program's table, for one download.

    Raises
    ------
    Invalid
        If the results lack what the format needs.
    """
    folder = Path(tempfile.mkdtemp(prefix="clusterofone-"))
    stem = re.sub(r"[^\w.-]", "_", source.stem, flags=re.ASCII)
    suffix = ".hdf5" if kind == "yaml" else f".{kind}"
    try:
        export = export_for(Path(f"x{suffix}"))
        export.write(source, folder / f"{stem}{suffix}", False, None, None)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if kind == "yaml":
        return Table(folder / f"{stem}.yaml", "application/yaml")
    return Table(folder / f"{stem}{suffix}", export.media_type)


def csv_of(path: Path) -> Iterator[str]:
    """Yield the localisations of a result file as ThunderSTORM's table."""
    with Reader(path) as reader:
        yield from csv_lines(reader.blocks(), reader.metadata())
