"""Which program's table is written under which name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.errors import Invalid
from cluster.results.drift_table import Correct
from cluster.results.h5r import Advance
from cluster.results.left_out import LeftOut

Write = Callable[[Path, Path, bool, Advance | None, Correct | None], LeftOut]


@dataclass(frozen=True)
class Export:
    """A format: its suffix, what it is for people, its type on the wire, how it is written."""

    suffix: str
    title: str
    media_type: str
    write: Write


def _thunderstorm(
    source: Path, out: Path, replace: bool, advance: Advance | None, drift: Correct | None
) -> LeftOut:
    from cluster.results.csv import write_csv

    return write_csv(source, out, replace=replace, advance=advance, correct=drift)


def _smap(source: Path, out: Path, replace: bool, advance: Advance | None, drift: Correct | None) -> LeftOut:
    from cluster.results.smap import write_smap_csv

    return write_smap_csv(source, out, replace=replace, advance=advance, correct=drift)


def _picasso(
    source: Path, out: Path, replace: bool, advance: Advance | None, drift: Correct | None
) -> LeftOut:
    from cluster.results.picasso import write_picasso

    return write_picasso(source, out, replace=replace, advance=advance, correct=drift)


def _parquet(
    source: Path, out: Path, replace: bool, advance: Advance | None, drift: Correct | None
) -> LeftOut:
    from cluster.results.parquet import write_parquet

    return write_parquet(source, out, replace=replace, advance=advance, correct=drift)


def _every_row(
    source: Path, out: Path, replace: bool, advance: Advance | None, drift: Correct | None
) -> LeftOut:
    from cluster.results.parquet import write_parquet

    return write_parquet(source, out, replace=replace, every_row=True, advance=advance, correct=drift)


def _smlm(source: Path, out: Path, replace: bool, advance: Advance | None, drift: Correct | None) -> LeftOut:
    from cluster.results.smlm import write_smlm

    return write_smlm(source, out, replace=replace, advance=advance, correct=drift)


FORMATS: Final[Mapping[str, Export]] = {
    "thunderstorm": Export(".csv", "ThunderSTORM's CSV", "text/csv; charset=utf-8", _thunderstorm),
    "smap": Export(".csv", "CSV with SMAP's column names", "text/csv; charset=utf-8", _smap),
    "picasso": Export(
        ".hdf5", "Picasso's localisations, with a .yaml beside", "application/x-hdf5", _picasso
    ),
    "parquet": Export(
        ".parquet", "Parquet, units in the columns' names", "application/vnd.apache.parquet", _parquet
    ),
    "parquet-all": Export(
        ".parquet", "the same with fits that did not converge", "application/vnd.apache.parquet", _every_row
    ),
    "smlm": Export(".smlm", "the SMLM file format", "application/zip", _smlm),
}
SUFFIXES: Final = tuple(dict.fromkeys(export.suffix for export in FORMATS.values()))


def export_for(out: Path, named: str | None = None) -> Export:
    """Return the format that is named, else the first of the file's suffix.

    Raises
    ------
    Invalid
        If there is none, or the suffix is another format's; names those there are.
    """
    if named is None:
        found = next((export for export in FORMATS.values() if export.suffix == out.suffix.lower()), None)
        if found is None:
            raise Invalid(f"{out}: must end in {', '.join(SUFFIXES)}", field="out")
        return found
    if named not in FORMATS:
        raise Invalid(f"there is no format {named!r}; there are {', '.join(FORMATS)}", field="format")
    if FORMATS[named].suffix != out.suffix.lower():
        raise Invalid(f"{out}: a file of the format {named} ends in {FORMATS[named].suffix}", field="out")
    return FORMATS[named]
