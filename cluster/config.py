"""Where things are kept, and the frozen settings of each service. Nothing here reads the environment by itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster import held_files

JoinPolicy = Literal["approve", "open", "token"]
PROFILES_SHELF: Final = "@profiles"
CALIBRATION_SHELF: Final = "@calibration"
CALIBRATION_FOLDER: Final = "CALIBRATION"
"""What PYME calls the folder of the cameras' maps, in the folder of its data."""


class Settings(BaseModel):
    """A frozen settings model; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Places(Settings):
    """The user's folders: configuration, state (secret, journal, runtime file) and caches. Never under a served root."""

    config: Path
    state: Path
    cache: Path

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> Places:
        """Return the platform's folders, or all of them under $CLUSTEROFONE_HOME (caches: $CLUSTEROFONE_CACHE)."""
        home, cache = environ.get("CLUSTEROFONE_HOME"), environ.get("CLUSTEROFONE_CACHE")
        if home:
            caches = Path(cache) if cache else Path(home) / "cache"
            return cls(config=Path(home) / "config", state=Path(home) / "state", cache=caches)
        return cls(
            config=Path(platformdirs.user_config_dir("clusterofone", appauthor=False)),
            state=Path(platformdirs.user_state_dir("clusterofone", appauthor=False)),
            cache=Path(cache or platformdirs.user_cache_dir("clusterofone", appauthor=False)),
        )

    def cluster(self, name: str) -> Path:
        """Return the state folder of the cluster of this name."""
        return self.state / "clusters" / name

    def secret(self, name: str) -> Path:
        """Return the file that holds a cluster's secret."""
        return self.cluster(name) / "secret"

    def runtime(self, name: str) -> Path:
        """Return the file that says where a running cluster is."""
        return self.cluster(name) / "runtime.json"

    @property
    def known_clusters(self) -> Path:
        """Return the file of the clusters that have let this machine in."""
        return self.state / "known_clusters.json"

    @property
    def machine(self) -> Path:
        """Return the file that holds this machine's own id and join secret."""
        return self.state / "machine.json"


class LabFolders(Settings):
    """What a lab knows of its microscopes and how it likes to analyse: folders of files, on a share if wished.

    `profiles` and `presets` hold one TOML file each, `calibration` has PYME's layout: a folder for each camera's serial number.
    `configured`: somebody said where the profiles are, so that it is an error, a share that is away say, if they are not.
    """

    profiles: Path | None = None
    presets: Path | None = None
    calibration: Path | None = None
    configured: bool = False

    @property
    def shelves(self) -> dict[str, Path]:
        """Return the folders whose files a data server serves under a name of their own, by that name."""
        found = {PROFILES_SHELF: self.profiles, CALIBRATION_SHELF: self.calibration}
        return {name: folder for name, folder in found.items() if folder is not None}


class Runtime(Settings):
    """Where this user's running cluster is: written when it is ready, removed when it stops."""

    name: str
    cluster_id: str
    url: str
    dataserver: str | None
    web: str | None = None
    roots: tuple[Path, ...] = ()
    pid: int


class SchedulerSettings(Settings):
    """What a scheduler needs to know."""

    name: str
    state: Path
    roots: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int | None = None
    lan: bool = False
    join: JoinPolicy = "approve"
    insecure: bool = False
    tls: bool = False
    lease_s: float = Field(default=30.0, gt=0)
    max_attempts: int = Field(default=3, ge=1)
    task_frames: int | None = Field(default=None, ge=1)
    host_names: tuple[str, ...] = ()  # that it answers to beside its own
    on_done: tuple[str, ...] = ()  # a command of the owner's, run when a job has ended
    results_root: Path | None = None
    lab: LabFolders = LabFolders()
    keep_blobs: bool = False  # what workers handed in, also once the result file has it
    let_sleep: bool = False  # the computer, also while jobs run


class DataServerSettings(Settings):
    """What a data server needs to know."""

    roots: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int | None = None
    lan: bool = False
    insecure: bool = False
    host_names: tuple[str, ...] = ()  # that it answers to beside its own
    advertise: tuple[str, ...] = ()  # where workers reach it, if not at its own addresses
    read_only: bool = False
    shelves: Mapping[
        str, Path
    ] = {}  # folders served under names of their own, beside the roots, and not listed
    scheduler: str | None = None
    token: str | None = Field(default=None, repr=False)


class WebSettings(Settings):
    """What the page needs to know. `token` is for telling the scheduler where the page is; what visitors may do is their own tokens' matter."""

    scheduler: str
    token: str | None = Field(default=None, repr=False)
    owner: str | None = None  # whose the jobs are that visitors submit, where nobody else can come
    host: str = "127.0.0.1"
    port: int | None = None
    lan: bool = False
    insecure: bool = False
    host_names: tuple[str, ...] = ()  # that it answers to beside its own


class WorkerSettings(Settings):
    """What a worker process needs to know."""

    scheduler: str | None = None
    token: str | None = Field(default=None, repr=False)
    cluster_name: str | None = None
    config: Path | None = None
    state: Path
    cache: Path
    let_sleep: bool = False  # the computer, also while it works


def data_root(environ: Mapping[str, str]) -> Path:
    """Return the default root: $PYMEDATADIR, else PYMEData in the home folder."""
    return Path(environ.get("PYMEDATADIR") or Path.home() / "PYMEData")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    held_files.replace(temporary, path)


def read_runtime(path: Path) -> Runtime | None:
    """Return where a cluster of this user says it is, or None."""
    try:
        return Runtime.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
