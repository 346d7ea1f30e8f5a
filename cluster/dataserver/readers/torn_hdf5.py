"""HDF5 files that end too early: HDF5 refuses them whole, though most of their frames are there."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import h5py

_TRUNCATED = re.compile(r"truncated file.*stored_eof = (\d+)")


def promised_bytes(error: OSError) -> int | None:
    """Return how long HDF5 says that a file it refused should be, if that is why it refused it."""
    found = _TRUNCATED.search(str(error))
    return int(found[1]) if found else None


def open_torn(path: Path, promised: int) -> tuple[h5py.File, io.RawIOBase]:
    """Open a file so that HDF5 sees it at its promised length, zeros where it is torn off.

    Close the HDF5 file, then what it reads from; neither can be left to be collected.
    """
    padded = _Padded(path, promised)
    try:
        return h5py.File(padded, "r"), padded
    except BaseException:
        padded.close()
        raise


class _Padded(io.RawIOBase):
    def __init__(self, path: Path, length: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._at)
        filled = self._file.readinto(target) or 0
        target[filled:] = bytes(len(target) - filled)
        self._at += len(target)
        return len(target)

    def close(self) -> None:
        self._file.close()
        super().close()
