"""`clusterofone doctor`: what is wrong with this setup."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from cluster.commands import console, surroundings
from cluster.commands.options import Json
from cluster.config import data_root
from cluster.errors import ClusterError
from cluster.protocol import DEFAULT_PORTS

Verdict = Literal["ok", "note", "problem"]
_LOW_DISK_BYTES: Final = 5 << 30
_MARKS: Final = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "problem": "[bold red]problem[/]"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    verdict: Verdict
    detail: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    json: Json = False,
    seconds: Annotated[
        float, typer.Option(min=0.0, max=30.0, help="How long to listen for clusters on the network.")
    ] = 2.0,
) -> None:
    """Look for what is wrong with this setup; the exit status is 1 if something is.

    Example: [bold]clusterofone doctor[/]
    """
    looks: list[Callable[[], Finding]] = [
        _versions,
        _state,
        _numba_cache,
        _root,
        _disk,
        _profiles,
        _ports,
        _own_cluster,
        lambda: _network(seconds),
        _host,
    ]
    findings = [look() for look in looks]
    if json:
        console.print_json({"findings": [finding.__dict__ for finding in findings]})
    else:
        for finding in findings:
            console.out.print(f"{_MARKS[finding.verdict]} {finding.what}: ", end="")
            console.out.print(finding.detail, markup=False)
    if any(finding.verdict == "problem" for finding in findings):
        raise typer.Exit(console.FAILED)


def _versions() -> Finding:
    wanted = ("clusterofone", "numpy", "numba", "scipy", "h5py", "zeroconf")
    found = []
    for name in wanted:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return Finding("versions", "problem", f"{name} is not installed: pip install clusterofone")
    return Finding("versions", "ok", f"python {platform.python_version()}, {', '.join(found)}")


def _state() -> Finding:
    folder = surroundings.places().state
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        return Finding("state folder", "problem", f"{folder} cannot be written: {error.strerror}")
    return Finding("state folder", "ok", str(folder))


def _numba_cache() -> Finding:
    from cluster.worker.engine import keep_compiled_code

    environ = dict(os.environ)
    keep_compiled_code(surroundings.places().cache, environ)
    folder = environ.get("NUMBA_CACHE_DIR")
    if folder is None:
        return Finding("compiled kernels", "ok", "kept beside the package")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        detail = f"{folder} cannot be written ({error.strerror}), so every start compiles for seconds"
        return Finding("compiled kernels", "problem", detail)
    return Finding("compiled kernels", "ok", f"kept in {folder}")


def _root() -> Finding:
    root = data_root(os.environ)
    if not root.exists():
        return Finding("data root", "note", f"{root} does not exist yet; clusterofone will make it")
    if not os.access(root, os.W_OK):
        return Finding("data root", "note", f"{root} is read-only; results go to $PYMEDATADIR")
    return Finding("data root", "ok", str(root))


def _disk() -> Finding:
    folder = surroundings.places().state
    free = shutil.disk_usage(folder if folder.exists() else folder.home()).free
    verdict: Verdict = "problem" if free < _LOW_DISK_BYTES else "ok"
    return Finding("disk", verdict, f"{console.megabytes(free)} free for state and results")


def _profiles() -> Finding:
    from cluster.lab import Lab

    folders = surroundings.lab_folders()
    try:
        found, broken = Lab(folders).profiles()
    except ClusterError as error:
        return Finding("microscope profiles", "problem", str(error))
    faults = [*broken, *(profile.fault for profile in found if profile.fault)]
    if faults:
        return Finding("microscope profiles", "problem", f"{folders.profiles}: {'; '.join(faults)}")
    return Finding("microscope profiles", "ok", f"{len(found)} in {folders.profiles}")


def _ports() -> Finding:
    taken = []
    for role, port in DEFAULT_PORTS.items():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                taken.append(f"{port} ({role})")
    if taken:
        return Finding("ports", "note", f"taken: {', '.join(taken)}; the next free ones are used instead")
    return Finding("ports", "ok", f"{', '.join(map(str, DEFAULT_PORTS.values()))} are free")


def _own_cluster() -> Finding:
    runtime = surroundings.own_runtime()
    if runtime is None:
        return Finding("your cluster", "note", "none runs on this machine; start one: clusterofone")
    return Finding("your cluster", "ok", f"{runtime.name} at {runtime.url}, process {runtime.pid}")


def _network(seconds: float) -> Finding:
    from cluster.discovery import browse

    try:
        found = asyncio.run(browse(seconds))
    except OSError as error:
        return Finding(
            "mDNS", "problem", f"cannot listen: {error}. Name the scheduler instead: --scheduler URL"
        )
    if not found:
        return Finding("mDNS", "note", f"no cluster announced itself in {seconds:.0f} s{_firewall_hint()}")
    return Finding(
        "mDNS", "ok", "; ".join(f"{cluster.name} at {', '.join(cluster.urls)}" for cluster in found)
    )


def _firewall_hint() -> str:
    hints = {
        "win32": " (Windows: allow Python on private networks in the firewall)",
        "darwin": " (macOS: allow Python under Privacy & Security > Local Network)",
    }
    return hints.get(sys.platform, " (a firewall may block UDP port 5353)")


def _host() -> Finding:
    addresses = surroundings.lan_addresses()
    if not addresses:
        return Finding(
            "network", "note", "this machine has no network address; only its own workers can join"
        )
    return Finding("network", "ok", f"{socket.gethostname()}: {', '.join(addresses)}")
