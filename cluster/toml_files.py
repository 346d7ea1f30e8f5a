"""Files that people write for the cluster, one thing each: `NAME.toml` in a folder. Why TOML: docs/adr/0016-microscope-profiles.md."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from cluster.errors import Invalid

SUFFIX: Final = ".toml"
_MOST_BYTES: Final = 1 << 20
_MOST_FILES: Final = 1000


def toml_files(folder: Path | None) -> list[Path]:
    """Return the files in a folder, by name; none where there is no such folder.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    if folder is None or not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and path.is_file())
    return sorted(found, key=lambda path: path.name.casefold())[:_MOST_FILES]


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises
    ------
    Invalid
        If it cannot be read, or is not TOML; names the file, and the line.
    """
    try:
        with path.open("rb") as opened:
            text = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror or error}") from error
    if len(text) > _MOST_BYTES:
        raise Invalid(f"{path.name} is larger than {_MOST_BYTES} bytes")
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path.name}: {error}") from error


def check_tables(name: str, document: Mapping[str, Any], tables: Iterable[str]) -> None:
    """Refuse a heading or key at the top that nobody reads; raises `Invalid` naming it."""
    known = list(tables)
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise Invalid(f"{name}: {key} is unknown{meant}", field=key)


def text_of(name: str, document: Mapping[str, Any], key: str, default: str) -> str:
    """Return a text, or what it is by default; raises `Invalid` if it is none."""
    value = document.get(key, default)
    if not isinstance(value, str):
        raise Invalid(f"{name}: {key} must be a text, in quotes", field=key)
    return value


def table_of(name: str, document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a table, empty if there is none; raises `Invalid` if something else is there."""
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise Invalid(f"{name}: {key} must be a table, [{key}]", field=key)
    return value
