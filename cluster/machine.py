"""What this machine is, and which clusters have let it in. Kept in private files of the user's state folder."""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.config import write_private
from cluster.errors import Invalid

_LOCK_S = 10.0


class Machine(BaseModel):
    """A machine as its user knows it: its own id, and the secret with which it asks to join."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(min_length=8, max_length=64)
    secret: str = Field(min_length=32, max_length=128, repr=False)


class KnownCluster(BaseModel):
    """A cluster that has let this machine in: its worker token, and where it was last."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    token: str | None = Field(default=None, repr=False)
    url: str | None = None


def this_machine(path: Path) -> Machine:
    """Return this machine's identity, made at first use in a file that only its owner may read.

    Raises
    ------
    Invalid
        If the file is damaged; says which file to delete.
    """
    with _locked(path):
        if not path.exists():
            made = Machine(id=secrets.token_hex(8), secret=secrets.token_urlsafe(32))
            write_private(path, made.model_dump_json())
        try:
            return Machine.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValueError, ValidationError) as error:
            raise Invalid(
                f"{path} is damaged; delete it, and this machine asks to join its clusters anew"
            ) from error


def host_name() -> str:
    """Return the name of this machine, without its domain."""
    return socket.gethostname().partition(".")[0] or "unnamed"


def core_count() -> int:
    """Return how many cores this process may use."""
    try:
        return max(1, len(psutil.Process().cpu_affinity()))
    except (AttributeError, OSError):  # macOS has no affinity
        return os.cpu_count() or 1


@dataclass(frozen=True)
class KnownClusters:
    """The file of the clusters that have let this machine in: `{cluster id: {name, token, url}}`."""

    path: Path

    def all(self) -> dict[str, KnownCluster]:
        """Return every cluster known; a damaged file or entry is as good as none."""
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        known: dict[str, KnownCluster] = {}
        for cluster_id, entry in entries.items() if isinstance(entries, dict) else ():
            try:
                known[cluster_id] = KnownCluster.model_validate(entry)
            except ValidationError:
                continue
        return known

    def remember(self, cluster_id: str, cluster: KnownCluster) -> None:
        """Add a cluster, or replace what is known of it."""
        with _locked(self.path):
            clusters = {**self.all(), cluster_id: cluster}
            entries = {known: entry.model_dump() for known, entry in sorted(clusters.items())}
            write_private(self.path, json.dumps(entries, indent=1))


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"), timeout=_LOCK_S)
