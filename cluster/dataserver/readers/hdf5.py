"""HDF5 files: PYME's own layouts, or any array of frames in the file, which `FILE!GROUP!DATASET` names.

A part of a file is named with `!`, since a `/` would make the file a folder: `cell.h5!entry!images`. Without it the
file's only array of three dimensions is the series.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import h5py

from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.pyme_h5 import HDF5_FAULTS, LOCK, PymeH5, open_file
from cluster.dataserver.readers.pyme_h5_pzf import PymePzfH5
from cluster.errors import Invalid

PART: Final = "!"
SUFFIXES: Final = (".h5", ".hdf5")
_MAX_OBJECTS: Final = 10_000


def split_part(path: Path) -> tuple[Path, str]:
    """Return the file, and the dataset in it that the path names ("" if none)."""
    for suffix in SUFFIXES:
        at = path.name.lower().find(suffix + PART)
        if at >= 0:
            cut = at + len(suffix)
            return path.with_name(path.name[:cut]), path.name[cut + 1 :].replace(PART, "/")
    return path, ""


def open_hdf5(path: Path, *, written: bool = False) -> SeriesReader:
    """Open an HDF5 file, or one array of it; `written`: as it is now, while a program writes it.

    Raises
    ------
    Invalid
        If it holds no frames, or several arrays that could be: names them.
    """
    file, dataset = split_part(path)
    if dataset:
        return PymeH5(file, dataset, written=written)
    keys, candidates = _look(file, written=written)
    if "ImageData" in keys:
        return PymeH5(file, written=written)
    if "PZFImageData" in keys:
        return PymePzfH5(file)
    if len(candidates) == 1:
        return PymeH5(file, candidates[0], written=written)
    if candidates:
        names = ", ".join(f"{file.name}{PART}{key.replace('/', PART)}" for key in candidates[:5])
        raise Invalid(f"{file.name} holds {len(candidates)} arrays of frames; ask for one of them: {names}")
    if "FitResults" in keys:
        raise Invalid(f"{file.name} is a result, not a series: clusterofone render and export are for those")
    raise Invalid(
        f"{file.name} holds no ImageData, no PZFImageData and no other array of frames (frame, y, x)"
    )


def _look(path: Path, *, written: bool) -> tuple[set[str], list[str]]:
    """Return the file's topmost keys, and the arrays that could be frames."""
    with LOCK:
        file, source, _ = open_file(path, written=written)
        try:
            keys = set(file)
            return keys, ([] if keys & {"ImageData", "PZFImageData"} else _arrays(file))
        except HDF5_FAULTS as error:
            raise Invalid(f"{path.name} is damaged: {error}") from error
        finally:
            file.close()
            if source is not None:
                source.close()


def _arrays(file: h5py.File) -> list[str]:
    found: list[str] = []
    seen = 0

    def note(name: str, item: object) -> bool | None:
        nonlocal seen
        seen += 1
        if (
            isinstance(item, h5py.Dataset)
            and item.ndim == 3
            and item.dtype.kind in "iuf"
            and PART not in name
        ):
            found.append(name)
        return True if seen > _MAX_OBJECTS else None

    file.visititems(note)
    return found
