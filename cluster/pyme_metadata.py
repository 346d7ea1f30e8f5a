"""PYME's `MetaData` tree in HDF5 files: groups are the dotted parts of a key, attributes its last part."""

from __future__ import annotations

from typing import Any, Final

import h5py
import numpy as np

from cluster.errors import Invalid
from cluster.literal_pickle import loads

_PYTABLES_OWN: Final = frozenset({"CLASS", "TITLE", "VERSION", "PYTABLES_FORMAT_VERSION", "FILTERS"})
_MAX_KEYS: Final = 20_000
_MAX_DEPTH: Final = 16
_MAX_ELEMENTS: Final = 4096
UNREADABLE: Final = "(a pickled Python object, not read)"


def read_tree(group: h5py.Group) -> dict[str, Any]:
    """Return every key of a `MetaData` group with its value as a plain Python literal.

    A value that was pickled from an object is not unpickled: it reads as `UNREADABLE`.

    Raises
    ------
    Invalid
        If the tree holds links to elsewhere, or is beyond any honest size.
    """
    found: dict[str, Any] = {}
    _walk(group, "", 0, found)
    return found


def _walk(group: h5py.Group, prefix: str, depth: int, found: dict[str, Any]) -> None:
    if depth > _MAX_DEPTH or len(found) > _MAX_KEYS:
        raise Invalid("the MetaData tree is deeper or larger than metadata can be")
    for name in group.attrs:
        if name not in _PYTABLES_OWN:
            found[f"{prefix}{name}"] = read_attribute(group, name)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Invalid(f"the MetaData tree links {prefix}{name} to elsewhere; links are not followed")
        child = group[name]
        if isinstance(child, h5py.Group):
            _walk(child, f"{prefix}{name}.", depth + 1, found)


def read_attribute(group: h5py.Group, name: str) -> Any:
    """Return one attribute as a plain Python value."""
    kind = group.attrs.get_id(name).get_type()
    value = group.attrs[name]
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        is_text = isinstance(kind, h5py.h5t.TypeStringID) and kind.get_cset() == h5py.h5t.CSET_UTF8
        return value.decode("utf-8", "replace") if is_text else _text_or_pickle(value)
    if isinstance(kind, h5py.h5t.TypeBitfieldID):
        return bool(np.any(value))
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.size > _MAX_ELEMENTS or value.dtype.kind not in "biufSU":
            return UNREADABLE
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _text_or_pickle(value: bytes) -> Any:
    if value.rstrip(b"\0").endswith(b"."):
        try:
            return loads(value.rstrip(b"\0"))
        except Invalid:
            if _imports_something(value):
                return UNREADABLE
    return value.decode("utf-8", "replace")


def _imports_something(value: bytes) -> bool:
    """Whether this is a pickle of an object: it names a module and a class, and ends by building one."""
    return value.startswith((b"c", b"(i", b"\x80")) and value.count(b"\n") >= 2
