"""Metadata that lies beside a series: `NAME.json` and `NAME.md`, in PYME's keys. Read, never executed.

For `cell.ome.tif` these are, later ones overriding: cell.md, cell.json, cell.ome.md, cell.ome.json, cell.ome.tif.md,
cell.ome.tif.json.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from pathlib import Path
from typing import Any, Final, NoReturn

from cluster.dataserver.readers.text import read_text
from cluster.errors import Invalid
from cluster.protocol import MetadataValue

_MAX_KEYS: Final = 20_000
_MAX_DEPTH: Final = 16
_MAX_BYTES: Final = 4 << 20


def read_sidecars(series: Path) -> dict[str, MetadataValue]:
    """Return what lies beside a series, each value with the file it came from.

    Raises
    ------
    Invalid
        If a sidecar is not what its suffix says; names the file and the line.
    """
    found: dict[str, MetadataValue] = {}
    for sidecar in sidecar_paths(series):
        if sidecar.is_file() and lies_beside(sidecar, series):
            values = parse_sidecar(sidecar.name, read_text(sidecar, limit_bytes=_MAX_BYTES))
            source = f"sidecar {sidecar.name}"
            found |= {key: MetadataValue(value=value, source=source) for key, value in values.items()}
    return found


def lies_beside(file: Path, series: Path) -> bool:
    """Return whether a file is in the series' folder, also after its links are followed."""
    return file.resolve().is_relative_to(series.resolve().parent)


def sidecar_paths(series: Path) -> list[Path]:
    """Return where sidecars of a series may lie, the most particular last."""
    stems = [series.stem.removesuffix(".ome"), series.stem, series.name]
    names = dict.fromkeys(f"{stem}{suffix}" for stem in stems for suffix in (".md", ".json"))
    return [series.with_name(name) for name in names if name != series.name]


def parse_sidecar(name: str, text: str) -> dict[str, Any]:
    """Return the flat PYME keys of a sidecar of this name.

    Raises
    ------
    Invalid
        If it is not what its suffix says; names the file and the line.
    """
    return _parse_md(name, text) if name.endswith(".md") else _parse_json(name, text)


def _parse_json(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise Invalid(f"{name}, line {error.lineno}: {error.msg}", line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{name}, line 1: {error}", line=1) from error
    if not isinstance(value, dict):
        raise Invalid(f"{name}, line 1: a sidecar is an object of keys and values", line=1)
    return flatten(name, value)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def flatten(name: str, nested: dict[str, Any]) -> dict[str, Any]:
    """Return nested groups as dotted keys: {"Camera": {"ADOffset": 100}} is Camera.ADOffset."""
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, Any, int]] = [("", nested, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            waiting.extend(
                (f"{key}.{inner}" if key else str(inner), v, depth + 1) for inner, v in value.items()
            )
        elif not _is_plain(value, depth):
            raise Invalid(f"{name}: {key} is nested too deep, or not a finite number", field=key)
        else:
            flat[key] = value
        if len(flat) + len(waiting) > _MAX_KEYS:
            raise Invalid(f"{name}: more than {_MAX_KEYS} keys")
    return dict(sorted(flat.items()))


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value can travel as JSON."""
    match value:
        case float():
            return math.isfinite(value)
        case None | bool() | int() | str():
            return True
        case list() | tuple():
            return depth < _MAX_DEPTH and all(_is_plain(item, depth + 1) for item in value)
        case dict():
            return depth < _MAX_DEPTH and all(
                isinstance(key, str) and _is_plain(item, depth + 1) for key, item in value.items()
            )
        case _:
            return False


def _parse_md(name: str, text: str) -> dict[str, Any]:
    """Lines md['key'] = literal; the parser's tree is looked at, and nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(text)
    except SyntaxError as error:
        raise Invalid(f"{name}, line {error.lineno}: {error.msg}", line=error.lineno) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Invalid(f"{name}, line 1: cannot be read: {error}", line=1) from error
    values: dict[str, Any] = {}
    for statement in tree.body:
        if not _says_nothing(statement):
            key, value = _assignment(name, statement)
            values[key] = value
    return flatten(name, values)


def _says_nothing(statement: ast.stmt) -> bool:
    """Imports and texts are allowed, as PYME writes them, and mean nothing."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_text or isinstance(statement, ast.Import | ast.ImportFrom)


def _assignment(name: str, statement: ast.stmt) -> tuple[str, Any]:
    match statement:
        case ast.Assign(
            targets=[ast.Subscript(value=ast.Name(id="md"), slice=ast.Constant(value=str(key)))],
            value=expression,
        ):
            try:
                return key, _plain(ast.literal_eval(expression))
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
                raise Invalid(
                    f"{name}, line {statement.lineno}: the value of {key} is not a plain number, text or list",
                    line=statement.lineno,
                ) from error
        case _:
            raise Invalid(
                f"{name}, line {statement.lineno}: only lines md['key'] = value are read",
                line=statement.lineno,
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
