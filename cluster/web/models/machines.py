"""The cluster in lines: workers, who waits at the door, data servers, and how another machine joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from cluster.addresses import server_url
from cluster.protocol import Identity, Job, RootSpace, Worker, WorkerLoad
from cluster.web.models.wording import ago, plural, rate, size

Tone = Literal["quiet", "busy", "good", "warning", "bad"]
_TONES: Final[dict[str, Tone]] = {
    "idle": "good",
    "working": "busy",
    "lost": "bad",
    "excluded": "warning",
    "draining": "quiet",
}

_LITTLE_ROOM: Final = 0.05
_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class WorkerLine:
    """A worker as it is shown."""

    id: str
    machine: str
    process: str
    state: str
    tone: Tone
    doing: str
    frames: str
    rate: str
    load: str
    seen: str
    why: str
    can_drain: bool
    can_be_used_again: bool


def worker_lines(workers: list[Worker], jobs: list[Job], now: float) -> list[WorkerLine]:
    """Return the workers, those that need somebody to look at them first, then by machine."""
    names = {job.id: job.name for job in jobs}
    lines = [
        WorkerLine(
            id=worker.id,
            machine=worker.host,
            process=f"process {worker.pid} · {worker.version}",
            state=worker.state,
            tone=_TONES[worker.state],
            doing="" if worker.job is None else names.get(worker.job, "a test"),
            frames=f"{worker.frames:,}",
            rate=rate(worker.rate_frames_per_s) if worker.rate_frames_per_s else "–",
            load=load_said(worker.load),
            seen=ago(worker.last_seen, now),
            why=worker.excluded
            or ("finishes what it has begun, and gets no more" if worker.state == "draining" else ""),
            can_drain=worker.state in {"idle", "working"},
            can_be_used_again=worker.state == "draining",
        )
        for worker in workers
    ]
    return sorted(lines, key=lambda line: (line.tone not in {"bad", "warning"}, line.machine, line.process))


def load_said(load: WorkerLoad | None) -> str:
    """Return how busy a worker is, in a line, and its machine in the next."""
    if load is None:
        return "–"
    return (
        f"{load.cores:.0%} of a core · {size(load.memory_bytes)}\n"
        f"machine: CPU {load.machine_cpu:.0%}, memory {load.machine_memory:.0%}"
    )


def space_said(root: RootSpace) -> tuple[str, Tone]:
    """Return how much room there is under a root; little of it is a warning."""
    if root.free_bytes is None or not root.total_bytes:
        return "not there now", "bad"
    share = root.free_bytes / root.total_bytes
    said = f"{size(root.free_bytes)} of {size(root.total_bytes)} free"
    if not root.writable:
        said += ", read only"
    return said, "warning" if share < _LITTLE_ROOM else "quiet"


def usable(workers: list[Worker]) -> int:
    """Return how many workers may take tasks."""
    return sum(worker.state in {"idle", "working"} for worker in workers)


def headline(workers: list[Worker]) -> str:
    """Return the cluster's strength in a line."""
    hosts = len({worker.host for worker in workers if worker.state in {"idle", "working"}})
    total = sum(worker.rate_frames_per_s or 0.0 for worker in workers)
    said = f"{plural(usable(workers), 'worker')} on {plural(hosts, 'machine')}"
    return f"{said}, {rate(total)} frames/s" if total else said


def join_lines(identity: Identity, scheduler: str) -> tuple[str, list[str]]:
    """Return how another machine joins: what to know, and the lines to type there, the simplest first.

    How the cluster was started shows in the address of its scheduler: whether others can reach it, and whether it is encrypted.
    """
    parts = urlsplit(scheduler)
    host, encrypted = parts.hostname or "", parts.scheme == "https"
    hosts = _reachable(identity) if host in _LOOPBACK else [host]
    if not hosts:
        line = "clusterofone --lan --tls" if encrypted else "clusterofone --lan"
        hint = "" if encrypted else " (and with --tls, where others listen on the network)"
        return (
            f"This cluster listens on this computer alone. Start it as before with --lan added to let other machines in{hint}:",
            [line],
        )
    addresses = [server_url(host, parts.port or _PORTS[parts.scheme], tls=encrypted) for host in hosts]
    lines = ["clusterofone worker", *(f"clusterofone worker --scheduler {address}" for address in addresses)]
    if identity.join == "token":
        named = ", which names this cluster's certificate" if encrypted else ""
        return (
            f"A new machine needs the worker token{named}. Print it on this computer: clusterofone token --role worker",
            [f"{line} --token TOKEN" for line in lines],
        )
    after = " It waits at the top of this view until you approve it." if identity.join == "approve" else ""
    safe = (
        "Frames and tokens are encrypted (--tls)."
        if encrypted
        else "What crosses the network is not encrypted; start the cluster with --lan --tls where others listen."
    )
    return f"On another machine of this network:{after} {safe}", lines


def _reachable(identity: Identity) -> list[str]:
    """Return the addresses at which the data servers say that other machines reach them; the scheduler is at one of them."""
    found = [address for server in identity.dataservers for address in server.addresses]
    return [address for address in found if ":" not in address and address not in _LOOPBACK][:3]
