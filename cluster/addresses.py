"""At which addresses a data server may be reached from here, the likeliest first."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cluster.protocol import DataServerInfo


@dataclass(frozen=True)
class Place:
    """Who is asking, and where the scheduler is: decides which of a data server's addresses come first."""

    machine: str
    cluster_id: str
    scheduler_machine: str
    scheduler_url: str


@dataclass(frozen=True)
class Candidate:
    """One address of one data server; `near` means that bytes do not cross a network."""

    server: str
    url: str
    near: bool


def candidates(servers: Sequence[DataServerInfo], place: Place) -> list[Candidate]:
    """Return every address worth trying, the likeliest first.

    On our own machine loopback comes first; beside the scheduler, the host at which we reach the scheduler. A
    loopback address of another machine would lead to ourselves, so it is left out, unless the scheduler itself is
    reached by loopback.
    """
    scheduler_host = urlsplit(place.scheduler_url).hostname or ""
    found: list[Candidate] = []
    for server in servers:
        here = server.machine == place.machine or is_loopback(scheduler_host)
        hosts = ["127.0.0.1"] if server.machine == place.machine else []
        hosts += [scheduler_host] if server.machine == place.scheduler_machine else []
        hosts += [host for host in server.addresses if here or not is_loopback(host)]
        for host in dict.fromkeys(hosts):
            near = is_loopback(host) or server.machine == place.machine
            found.append(Candidate(server.id, _url(server, host), near))
    return found


def _url(server: DataServerInfo, host: str) -> str:
    scheme = "https" if server.tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
