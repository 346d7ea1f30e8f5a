"""Where a result came from: enough to repeat it, and to know what became of every frame.

Kept in the group `/Provenance` of the file, which PYME passes over: JSON texts and two arrays of fixed size.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from cluster.errors import Invalid
from cluster.results.ledger import Ledger

GROUP = "Provenance"

_LARGEST = 1 << 30  # no honest ledger or text is larger
_TEXTS = ("settings", "metadata", "versions", "input", "job", "failures")
_PACKAGES = ("clusterofone", "numpy", "scipy", "numba", "h5py")


@dataclass(frozen=True)
class Provenance:
    """Settings, metadata and their sources, versions, the input, the job and the ledger.

    `metadata` maps a key to {"value": …, "source": "file" | "sidecar …" | "job" | …}; `input` identifies the series
    (path, fingerprint, digests of maps); `job` holds the id and whatever else identifies the run.
    """

    settings: Mapping[str, Any]
    metadata: Mapping[str, Any]
    versions: Mapping[str, str]
    input: Mapping[str, Any]
    job: Mapping[str, Any]
    ledger: Ledger = field(default_factory=lambda: Ledger.empty(0))


def software_versions() -> dict[str, str]:
    """Return the versions of everything that a number in the table may depend on."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_provenance(file: h5py.File, provenance: Provenance) -> None:
    """Write the group into a results file."""
    group = file.create_group(GROUP)
    ledger = provenance.ledger
    failures = [{"start": a, "stop": b, "reason": why} for a, b, why in ledger.failed_ranges()]
    for name in _TEXTS:
        value = failures if name == "failures" else getattr(provenance, name)
        _write_text(group, name, to_json(value))
    for name, values in (("frame_status", ledger.status), ("localisations_per_frame", ledger.localisations)):
        group.create_dataset(name, data=values, **_compressed(values))


def read_provenance(file: h5py.File) -> Provenance | None:
    """Read the group; None for a file that has none, as PYME's own.

    Raises
    ------
    Invalid
        If there is one and it is not what we write.
    """
    if GROUP not in file:
        return None
    group = file[GROUP]
    if not isinstance(group, h5py.Group):
        raise Invalid(f"{file.filename}: /{GROUP} is not a group")
    try:
        texts = {name: json.loads(_read_text(group, name)) for name in _TEXTS}
        status = np.asarray(_dataset(group, "frame_status")[()], np.uint8)
        counts = np.asarray(_dataset(group, "localisations_per_frame")[()], np.uint32)
        reasons = {
            frame: str(failure["reason"])
            for failure in texts.pop("failures")
            for frame in range(max(0, int(failure["start"])), min(int(failure["stop"]), len(status)))
        }
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise Invalid(f"{file.filename}: its /{GROUP} cannot be read: {error}") from error
    return Provenance(**texts, ledger=Ledger(status, counts, reasons))


def to_json(value: Any) -> str:
    """Write a value as JSON, always the same way; an array becomes its digest."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1, default=_describe)


def _describe(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": digest}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _write_text(group: h5py.Group, name: str, text: str) -> None:
    encoded = text.encode("utf-8", "replace")
    kind = h5py.string_dtype("utf-8", len(encoded))
    group.create_dataset(name, data=np.array(encoded, dtype=kind))


def _read_text(group: h5py.Group, name: str) -> str:
    dataset = _dataset(group, name)
    if dataset.shape != () or dataset.dtype.kind != "S":
        raise ValueError(f"{name} is not a text")
    return bytes(dataset[()]).decode("utf-8")


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    link = group.get(name, getlink=True)
    found = group[name] if isinstance(link, h5py.HardLink) else None
    if found is None or not _is_own_array(found):
        raise ValueError(f"{name} is not there")
    return found


def _is_own_array(found: Any) -> bool:
    is_array = isinstance(found, h5py.Dataset)
    return is_array and not found.external and not found.is_virtual and found.nbytes <= _LARGEST


def _compressed(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"compression": "gzip", "compression_opts": 5, "shuffle": True} if len(values) else {}
