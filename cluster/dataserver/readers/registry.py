"""Which reader opens which file: by suffix, checked against how the file begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cluster.dataserver.live.layout import is_acquired
from cluster.dataserver.readers.acquired import open_acquired
from cluster.dataserver.readers.dax import open_dax
from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.pyme_h5 import PymeH5
from cluster.dataserver.readers.raw import open_raw
from cluster.dataserver.readers.tiff import open_tiff
from cluster.errors import Invalid, NotFound, Unavailable

Opener = Callable[[Path], SeriesReader]
OPENERS: Final[Mapping[str, Opener]] = {
    ".tif": open_tiff,
    ".tiff": open_tiff,
    ".btf": open_tiff,
    ".tf8": open_tiff,
    ".h5": PymeH5,
    ".hdf5": PymeH5,
    ".dax": open_dax,
    ".raw": open_raw,
}
_BEGINNINGS: Final[Mapping[bytes, Opener]] = {
    b"II*\0": open_tiff,
    b"MM\0*": open_tiff,
    b"II+\0": open_tiff,
    b"MM\0+": open_tiff,
    b"\x89HDF\r\n\x1a\n": PymeH5,
}


def open_series(path: Path) -> SeriesReader:
    """Open a series.

    Raises
    ------
    NotFound
        If there is no such file.
    Invalid
        If it cannot be opened as a series; names the file and the reason.
    Unavailable
        If the disk or the share fails us.
    """
    try:
        return _opener(path)(path)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path.name}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror or error}") from error
    except OSError as error:
        raise Unavailable(f"{path.name} cannot be read now: {error.strerror or error}") from error


def is_series_name(name: str) -> bool:
    """Return whether a file of this name is likely to be a series; `.hdf5` opens, but is mostly somebody's results."""
    suffix = Path(name).suffix.lower()
    return not name.startswith(".") and suffix in OPENERS and suffix != ".hdf5"


def is_series_folder(path: Path) -> bool:
    """Return whether a folder is a series, and not one that holds some."""
    return is_acquired(path)


def _opener(path: Path) -> Opener:
    if is_series_folder(path):
        return open_acquired
    with path.open("rb") as file:
        beginning = file.read(8)
    if not beginning:
        raise Invalid(f"{path.name} is empty")
    opener = OPENERS.get(path.suffix.lower()) or _by_beginning(beginning)
    if opener is None:
        known = ", ".join(sorted(OPENERS))
        raise Invalid(f"{path.name} is not a series that can be opened; the formats are {known}")
    return opener


def _by_beginning(beginning: bytes) -> Opener | None:
    found = (opener for start, opener in _BEGINNINGS.items() if beginning.startswith(start))
    return next(found, None)
