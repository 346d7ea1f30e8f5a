"""Which reader opens which file or folder: by suffix or by what lies in the folder, checked against how a file begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.dataserver.live.layout import is_acquired
from cluster.dataserver.readers import plugins
from cluster.dataserver.readers.acquired import open_acquired
from cluster.dataserver.readers.dax import open_dax
from cluster.dataserver.readers.dcimg import Dcimg
from cluster.dataserver.readers.hdf5 import open_hdf5, split_part
from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.ndtiff import NdTiff, is_ndtiff
from cluster.dataserver.readers.npy import open_npy
from cluster.dataserver.readers.pyme_pcs import is_pcs_folder, open_pcs
from cluster.dataserver.readers.raw import open_raw
from cluster.dataserver.readers.spe import open_spe
from cluster.dataserver.readers.tiff import open_tiff
from cluster.dataserver.readers.tiff_sequence import is_tiff_sequence, open_tiff_sequence
from cluster.dataserver.readers.vendor import open_czi, open_nd2
from cluster.dataserver.readers.zarr_series import ZarrSeries, is_zarr
from cluster.errors import Invalid, NotFound, Unavailable

Opener = Callable[[Path], SeriesReader]
OPENERS: Final[Mapping[str, Opener]] = {
    ".tif": open_tiff,
    ".tiff": open_tiff,
    ".btf": open_tiff,
    ".tf8": open_tiff,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".dax": open_dax,
    ".raw": open_raw,
    ".npy": open_npy,
    ".spe": open_spe,
    ".nd2": open_nd2,
    ".czi": open_czi,
    ".dcimg": Dcimg,
}
_BEGINNINGS: Final[Mapping[bytes, Opener]] = {
    b"II*\0": open_tiff,
    b"MM\0*": open_tiff,
    b"II+\0": open_tiff,
    b"MM\0+": open_tiff,
    b"\x89HDF\r\n\x1a\n": open_hdf5,
}
_FOLDERS: Final[Sequence[tuple[Callable[[Path], bool], Opener]]] = (
    (is_acquired, open_acquired),
    (is_zarr, ZarrSeries),
    (is_ndtiff, NdTiff),
    (is_pcs_folder, open_pcs),
    (is_tiff_sequence, open_tiff_sequence),
)
_ANALYSIS: Final = (".hdf5", ".npy")  # open when they are named; most are somebody's results


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
    return _opened(path, written=False)


def open_written(path: Path) -> SeriesReader:
    """Open a series that another program may be writing, as it is now; raises as `open_series` does."""
    return _opened(path, written=True)


def _opened(path: Path, *, written: bool) -> SeriesReader:
    try:
        opener = _opener(path)
        return open_hdf5(path, written=True) if written and opener is open_hdf5 else opener(path)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path.name}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror or error}") from error
    except OSError as error:
        raise Unavailable(f"{path.name} cannot be read now: {error.strerror or error}") from error


def is_series_name(name: str) -> bool:
    """Return whether a file of this name is likely to be a series; `.hdf5` and `.npy` open, but are mostly results."""
    suffix = Path(name).suffix.lower()
    is_known = suffix in OPENERS or suffix in plugins.suffixes()
    return not name.startswith(".") and is_known and suffix not in _ANALYSIS


def is_series_folder(folder: Path) -> bool:
    """Return whether a folder is a series itself: Zarr, NDTiff, PZF frames, or TIFF files of one frame each."""
    try:
        return any(is_one(folder) for is_one, _ in _FOLDERS)
    except OSError:
        return False


def is_series_path(path: Path) -> bool:
    """Return whether there is something at a path that can be asked to be a series: a file, a part of one, a folder."""
    return file_on_disk(path).is_file() or (path.is_dir() and is_series_folder(path))


def is_own(path: Path) -> bool:
    """Return whether a series is in this project's own format: acquired through a data server, complete or growing."""
    return path.is_dir() and is_acquired(path)


def file_on_disk(path: Path) -> Path:
    """Return the file or folder that a path of a series means: of `cell.h5!images` it is `cell.h5`."""
    return path if path.exists() else split_part(path)[0]


def _opener(path: Path) -> Opener:
    if path.is_dir():
        return _of_folder(path)
    file = file_on_disk(path)
    with file.open("rb") as opened:
        beginning = opened.read(8)
    if not beginning:
        raise Invalid(f"{path.name} is empty")
    suffix = file.suffix.lower()
    opener = OPENERS.get(suffix) or plugins.opener_of(suffix) or _by_beginning(beginning)
    if opener is None:
        known = ", ".join(sorted(OPENERS))
        raise Invalid(f"{path.name} is not a series that can be opened; the formats are {known}")
    return opener


def _of_folder(folder: Path) -> Opener:
    found = (opener for is_one, opener in _FOLDERS if is_one(folder))
    return next(found, open_tiff_sequence)  # which says why it is none


def _by_beginning(beginning: bytes) -> Opener | None:
    found = (opener for start, opener in _BEGINNINGS.items() if beginning.startswith(start))
    return next(found, None)
