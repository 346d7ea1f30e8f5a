"""Files that are read whole, up to a limit."""

from __future__ import annotations

import os
from pathlib import Path


def read_at_most(path: Path, limit_bytes: int) -> bytes:
    """Return a file's content; of one that is longer than the limit, one byte more than that.

    Takes the memory that the file needs: Python's own `read(n)` takes that of `n` first.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(min(os.fstat(file.fileno()).st_size, limit_bytes) + 1)
