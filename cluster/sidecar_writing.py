"""Writing metadata beside a series, into its `.json` sidecar: what a person was asked for is not asked again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import held_files
from cluster.dataserver.sidecars import sidecar_paths
from cluster.errors import Invalid


def sidecar_to_write(series: Path) -> Path:
    """Return the `.json` that new values go to: beside the most particular sidecar there is, whose values would win over any other's."""
    places = sidecar_paths(series)
    there = [path for path in places if path.is_file()]
    if there:
        return there[-1].with_suffix(".json")
    return next(path for path in places if path.suffix == ".json")


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sidecar's object with values by dotted keys, each where the object has the key already, else at the top."""
    changed = json.loads(json.dumps(document))
    for key, value in values.items():
        group, name = _place(changed, key)
        group[name] = value
    return dict(changed)


def write_sidecar(series: Path, values: Mapping[str, Any]) -> Path:
    """Add values to a series' sidecar, which appears whole; return the file.

    Raises
    ------
    Invalid
        If there is one that is not an object of JSON; names it.
    OSError
        If it cannot be written.
    """
    path = sidecar_to_write(series)
    text = json.dumps(with_values(_there(path), values), indent=2, ensure_ascii=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        held_files.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _there(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Invalid(f"{path} is not JSON, and stays as it is: {error}") from error
    if not isinstance(document, dict):
        raise Invalid(f"{path} is not an object of keys and values, and stays as it is")
    return document


def _place(document: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the group that has a dotted key, and its name there: {"Camera": {"ADOffset": …}} is Camera.ADOffset."""
    if key not in document:
        head, _, rest = key.partition(".")
        group = document.get(head)
        if rest and isinstance(group, dict):
            inner, name = _place(group, rest)
            if name in inner:
                return inner, name
    return document, key
