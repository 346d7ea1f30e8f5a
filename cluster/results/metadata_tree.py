"""Writes PYME's `MetaData` tree, so that PYME reads every value back as the type it was.

Groups are the dotted parts of a key, attributes its last part. Booleans are HDF5 bit fields; lists, tuples, dicts
and None are protocol 0 pickles, as PyTables writes them; there are no array attributes, for one of those keeps PYME
from opening the file at all. Reading is `cluster.pyme_metadata`, and unpickles nothing.
"""

from __future__ import annotations

import json
import pickle  # written only: PyTables' readers expect it
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from fitting.errors import InvalidSettings
from fitting.fits import SETTINGS, Fit, find

_LONGEST_ATTRIBUTE = (
    60_000  # HDF5 keeps an attribute of more than 64 KiB only in a format PyTables cannot read
)
_INT64 = np.iinfo(np.int64)
_FILES = frozenset(s.name for s in SETTINGS if s.type in ("map", "psf", "curves", "field"))
_TAKEN = ("CLASS", "TITLE", "VERSION")  # PyTables' own attributes


def write_tree(group: h5py.Group, metadata: Mapping[str, Any]) -> None:
    """Write metadata into a `MetaData` group."""
    for key in sorted(metadata):
        *parents, name = [part.replace("/", "_") or "_" for part in key.split(".")]
        place = group.require_group("/".join(parents)) if parents else group
        write_attribute(place, f"{name}_" if name in _TAKEN else name, metadata[key])


def write_attribute(group: h5py.Group, name: str, value: Any) -> None:
    """Write one value as the attribute that PyTables would have written."""
    plain = _plain(value)
    if isinstance(plain, bool):
        _write_boolean(group, name, value=plain)
    elif isinstance(plain, str | float) or (isinstance(plain, int) and _INT64.min <= plain <= _INT64.max):
        group.attrs[name] = plain
    else:
        _write_pickled(group, name, plain)


def merged_metadata(
    metadata: Mapping[str, Any], settings: Mapping[str, Any], shape: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Give a series' metadata together with the settings of the analysis, by PYME's keys.

    Parameters
    ----------
    metadata
        Metadata of the series.
    settings
        Complete settings, from `fitting.fits.resolve`.
    shape
        Height and width of the frames.
    """
    merged = {"Camera.TrueEMGain": 1.0, "Camera.NoiseFactor": 1.0}  # PYME will not open a file without
    if float(metadata.get("Camera.TrueEMGain") or 1.0) > 1:
        merged["Camera.NoiseFactor"] = 2**0.5
    if shape is not None:
        merged |= {"Camera.ROIHeight": shape[0], "Camera.ROIWidth": shape[1]}
    merged |= {key: value for key, value in metadata.items() if value is not None}
    fit = _known(settings)
    for setting in SETTINGS:
        if fit is not None and setting.name in fit.unused:
            continue
        value = _pyme_value(setting.name, settings.get(setting.name))
        if setting.pyme_key is not None and value is not None:
            merged[setting.pyme_key] = value
    options = settings.get("options") or {}
    for option in fit.options if fit is not None else ():
        if option.pyme_key is not None and options.get(option.name) is not None:
            merged[option.pyme_key] = options[option.name]
    return merged


def _known(settings: Mapping[str, Any]) -> Fit | None:
    """The fit of the settings; None for one that only workers have, of which all settings are written then."""
    try:
        return find(str(settings["fit"])) if "fit" in settings else None
    except InvalidSettings:
        return None


def _pyme_value(name: str, value: Any) -> Any:
    if name == "background":
        return [int(bound) for bound in value.split(":")] if value else [0, 0]
    if name == "background_percentile":
        return value or 0.0
    if name in _FILES and not isinstance(value, str):
        return None  # what was given as it is has no name to write
    return value


def _write_boolean(group: h5py.Group, name: str, *, value: bool) -> None:
    """h5py's own booleans are enumerations, which PYME reads as None."""
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    attribute = h5py.h5a.create(group.id, name.encode("utf-8"), h5py.h5t.NATIVE_B8, space)
    attribute.write(np.array(value, np.uint8), mtype=h5py.h5t.NATIVE_B8)


def _write_pickled(group: h5py.Group, name: str, value: Any) -> None:
    pickled = pickle.dumps(value, 0)
    if len(pickled) <= _LONGEST_ATTRIBUTE:
        group.attrs.create(name, np.bytes_(pickled))
    else:
        group.attrs[name] = json.dumps(value, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """Reduce a value to numbers, text, None, lists, tuples and dicts: what readers know without importing anything."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, list | set | frozenset):
        return [_plain(item) for item in value]
    return _storable(str(value))


def _storable(text: str) -> str:
    """HDF5 text ends at a NUL and is UTF-8."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
