"""What `doctor` sees of this machine: versions, folders, disks, ports, addresses."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from cluster.commands import console, surroundings
from cluster.commands.checks.finding import Finding, note, ok, problem
from cluster.commands.checks.writing import compiled_kernels, state_folder
from cluster.config import data_root
from cluster.errors import ClusterError
from cluster.locate import CONFIG_FILE, read_config
from cluster.protocol import DEFAULT_PORTS

_LOW_DISK_BYTES: Final = 5 << 30
_PACKAGES: Final = ("clusterofone", "numpy", "numba", "scipy", "h5py", "zeroconf")
_LONG_PATHS_KEY: Final = r"SYSTEM\CurrentControlSet\Control\FileSystem"


def looks() -> list[Callable[[], Finding]]:
    """Return what there is to look at on this machine, without anybody else."""
    found = [_versions, _config, _state, _numba_cache, _root, _disk, _profiles]
    if sys.platform == "win32":
        found.append(lambda: long_paths(_long_paths_enabled))
    return [*found, _ports, _own_cluster, _host]


def _versions() -> Finding:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return problem("versions", f"{name} is not installed: pip install clusterofone")
    return ok("versions", f"python {platform.python_version()}, {', '.join(found)}")


def _config() -> Finding:
    file = surroundings.places().config / CONFIG_FILE
    try:
        read_config(file.parent)
    except ClusterError as error:
        return problem("configuration", error.detail)
    return ok("configuration", str(file) if file.exists() else f"none ({file})")


def _state() -> Finding:
    return state_folder(surroundings.places().state)


def _numba_cache() -> Finding:
    from cluster.worker.engine import keep_compiled_code

    environ = dict(os.environ)
    keep_compiled_code(surroundings.places().cache, environ)  # as a worker does before it loads numba
    try:
        from fitting.kernel import folder_of_kernels
    except ImportError as error:
        return problem("compiled kernels", f"numba cannot be loaded: {error}")
    return compiled_kernels(folder_of_kernels(environ.get("NUMBA_CACHE_DIR", "")))


def _root() -> Finding:
    root = data_root(os.environ)
    if not root.exists():
        return note("data root", f"{root} does not exist yet; clusterofone will make it")
    if not os.access(root, os.W_OK):
        return note("data root", f"{root} is read-only; results go to $PYMEDATADIR")
    return ok("data root", str(root))


def _disk() -> Finding:
    return disks({"state": surroundings.places().state, "data": data_root(os.environ)})


def disks(folders: dict[str, Path], *, free: Callable[[Path], int] | None = None) -> Finding:
    """Look at the room on the disks of folders, some of which may not be there yet."""
    ask = free or (lambda folder: shutil.disk_usage(folder).free)
    rooms = {what: ask(_nearest(folder)) for what, folder in folders.items()}
    told = ", ".join(f"{console.megabytes(room)} free for {what}" for what, room in rooms.items())
    if min(rooms.values()) < _LOW_DISK_BYTES:
        return problem(
            "disk", f"{told}: free some, less than {console.megabytes(_LOW_DISK_BYTES)} is soon full"
        )
    return ok("disk", told)


def _nearest(folder: Path) -> Path:
    """Return a folder, or the one nearest above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def _profiles() -> Finding:
    from cluster.lab import Lab

    folders = surroundings.lab_folders()
    found, broken = Lab(folders).profiles()
    faults = [*broken, *(profile.fault for profile in found if profile.fault)]
    if faults:
        return problem("microscope profiles", f"{folders.profiles}: {'; '.join(faults)}")
    return ok("microscope profiles", f"{len(found)} in {folders.profiles}")


def long_paths(enabled: Callable[[], bool]) -> Finding:
    """Look whether Windows opens paths of more than 260 characters."""
    try:
        on = enabled()
    except OSError:  # the value is not there, as on Windows before 10
        on = False
    if on:
        return ok("long paths", "enabled")
    return note(
        "long paths",
        "Windows opens no file whose path has more than 260 characters; if your folders are deep, as administrator: "
        f"reg add HKLM\\{_LONG_PATHS_KEY} /v LongPathsEnabled /t REG_DWORD /d 1 /f, and start Windows anew",
    )


if sys.platform == "win32":
    import winreg

    def _long_paths_enabled() -> bool:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _LONG_PATHS_KEY) as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])


def _ports() -> Finding:
    taken = []
    for role, port in DEFAULT_PORTS.items():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                taken.append(f"{port} ({role}{_who_has(port)})")
    if taken:
        return note("ports", f"taken: {', '.join(taken)}; the next free ones are used instead")
    return ok("ports", f"{', '.join(map(str, DEFAULT_PORTS.values()))} are free")


def _who_has(port: int) -> str:
    identity = surroundings.identity_at(f"http://127.0.0.1:{port}")
    return f", by the cluster {identity.name}" if identity is not None else ""


def _own_cluster() -> Finding:
    runtime = surroundings.own_runtime()
    if runtime is None:
        return note("your cluster", "none runs on this machine; start one: clusterofone")
    return ok("your cluster", f"{runtime.name} at {runtime.url}, process {runtime.pid}")


def _host() -> Finding:
    addresses = surroundings.lan_addresses()
    if not addresses:
        return note("network", "this machine has no network address; only its own workers can join")
    return ok("network", f"{socket.gethostname()}: {', '.join(addresses)}")
