"""Small text files beside a series, read whole up to a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cluster.errors import Invalid

MAX_TEXT_BYTES: Final = 16 << 20


def read_text(path: Path, *, limit_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return a small text file.

    Raises
    ------
    Invalid
        If it is too large to be a description, is not UTF-8 text, or cannot be read.
    """
    try:
        if path.stat().st_size > limit_bytes:
            raise Invalid(f"{path.name} is larger than {limit_bytes} bytes; metadata is smaller")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path.name} is not UTF-8 text") from error
    except OSError as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror}") from error
