"""What people download beside the result file itself: a picture, a table of text."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.errors import Invalid
from cluster.protocol import PictureQuery
from cluster.results.csv import csv_lines
from cluster.results.exports import export_for
from cluster.results.h5r import Reader
from cluster.results.picture_files import Look, Tones, png
from cluster.results.render import Field, render
from cluster.results.tints import tint_of
from cluster.scheduler.results import Results
from cluster.scheduler.sheets import Sheet

_TASKS_AT_ONCE: Final = 64


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


def png_of(sheet: Sheet, results: Results, look: Look) -> bytes:
    """Return a picture of the localisations that are committed, as PNG.

    Raises
    ------
    Invalid
        If the pixels are so small that the picture would be too large, or there is no z to be coloured by.
    """
    pixel_x_nm, pixel_y_nm = (1000 * float(sheet.values[key]) for key in ("voxelsize.x", "voxelsize.y"))
    field = Field.of_frame(sheet.facts.height, sheet.facts.width, pixel_x_nm, pixel_y_nm)
    tint = look.colour_by and tint_of(look.colour_by, results.row_blocks(sheet), look.colour_range)
    rows = results.row_blocks(sheet)
    picture = render(rows, field.part(look.region), pixel_nm=look.pixel_nm, mode=look.mode, tint=tint)
    return png(picture, look.tones)


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
