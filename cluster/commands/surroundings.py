"""What the commands read from their surroundings: environment, user, cores, folders, running clusters."""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path
from typing import Final

import httpx
import psutil

from cluster import trust
from cluster.commands import console
from cluster.config import CALIBRATION_FOLDER, LabFolders, Places, Runtime, data_root, read_runtime
from cluster.locate import read_config
from cluster.machine import core_count
from cluster.pinning import only
from cluster.protocol import Identity, Role

_NAME: Final = re.compile(r"^[\w.@-]{1,48}$")
_RESERVED_CORES_FROM: Final = 8


def places() -> Places:
    """Return the user's folders."""
    return Places.of_user(os.environ)


def cluster_name(asked: str | None) -> str:
    """Return the cluster's name: what was asked for, or this user on this host."""
    if asked is not None and (not _NAME.match(asked) or asked.strip(".") == ""):
        console.refuse(f"--name {asked!r}: letters, digits and . _ - @ only, 48 at most", console.USAGE)
    return asked or default_cluster_name()


def default_cluster_name() -> str:
    """Return user@host, as far as these can be known."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "user"
    raw = f"{user}@{socket.gethostname().split('.')[0]}"
    return re.sub(r"[^\w.@-]", "-", raw)[:48]


def default_workers() -> int:
    """Return one worker a core, two fewer from 8 cores on, so that the microscope's own programs keep up."""
    cores = core_count()
    return cores - 2 if cores >= _RESERVED_CORES_FROM else cores


def served_roots(asked: list[Path] | None) -> tuple[Path, ...]:
    """Return the folders to serve; the default one is made, one that was asked for must exist."""
    if not asked:
        root = data_root(os.environ)
        root.mkdir(parents=True, exist_ok=True)
        return (root.resolve(),)
    for root in asked:
        if not root.is_dir():
            console.refuse(f"--root {root}: there is no such folder", console.USAGE)
    return tuple(root.resolve() for root in asked)


def results_root(roots: tuple[Path, ...]) -> Path | None:
    """Return where results go when a root cannot be written: $PYMEDATADIR, else ~/PYMEData."""
    if all(os.access(root, os.W_OK) for root in roots):
        return None
    fallback = data_root(os.environ)
    fallback.mkdir(parents=True, exist_ok=True)
    return fallback


def lab_folders(
    profiles: Path | None = None, presets: Path | None = None, calibration: Path | None = None
) -> LabFolders:
    """Return the folders of profiles, presets and camera maps: as asked, else by the configuration file, else where they are by default."""
    config, home = read_config(places().config), places().config
    default = data_root(os.environ) / CALIBRATION_FOLDER
    return LabFolders(
        profiles=_absolute(profiles or config.profiles or home / "profiles"),
        presets=_absolute(presets or config.presets or home / "presets"),
        calibration=_absolute(calibration or config.calibration or default),
        configured=profiles is not None or config.profiles is not None,
    )


def _absolute(folder: Path) -> Path:
    return folder.expanduser().absolute()


def own_runtime(name: str | None = None) -> Runtime | None:
    """Return this user's running cluster on this machine, if one answers."""
    user = places()
    names = (
        [name] if name else sorted(p.parent.name for p in (user.state / "clusters").glob("*/runtime.json"))
    )
    for candidate in names:
        runtime = read_runtime(user.runtime(candidate))
        if runtime is not None and answers(runtime.url, runtime.cluster_id):
            return runtime
    return None


def own_token(name: str, role: str = "owner") -> str:
    """Return a token of a cluster of this user."""
    known: Role | None = next((known for known in trust.ROLES if known == role), None)
    if known is None:
        console.refuse(f"there is no role {role!r}; there are {', '.join(trust.ROLES)}", console.USAGE)
    return trust.own_token(places().cluster(name), known)


def identity_at(url: str) -> Identity | None:
    """Return which cluster answers at a URL, if one does."""
    try:
        reply = httpx.get(f"{url}/api/v1/identity", timeout=2.0, trust_env=False, verify=only(None))
        return Identity.model_validate(reply.json()) if reply.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError):
        return None


def answers(url: str, cluster_id: str) -> bool:
    """Return whether that cluster answers there."""
    identity = identity_at(url)
    return identity is not None and identity.cluster_id == cluster_id


def lan_addresses() -> list[str]:
    """Return this machine's IPv4 addresses that others may reach."""
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith(("127.", "169.254."))
    ]
    return sorted(set(found))
