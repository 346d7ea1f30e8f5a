"""At which addresses a data server may be reached from here, the likeliest first."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cluster.pinning import pinned_address
from cluster.protocol import DataServerInfo

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 -- compared, not bound


@dataclass(frozen=True)
class Place:
    """Who is asking, and where the scheduler is: decides which of a data server's addresses come first."""

    machine: str
    cluster_id: str
    scheduler_machine: str
    scheduler_url: str


@dataclass(frozen=True)
class Candidate:
    """One address of one data server, as `pinning` says; `near` means that bytes do not cross a network."""

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
            found.append(Candidate(server.id, address_of(server, host), near))
    return found


def address_of(server: DataServerInfo, host: str) -> str:
    """Return the address of a data server at one of its hosts, with the certificate that it says it has."""
    return pinned_address(server_url(host, server.port, tls=server.tls), server.certificate)


def server_url(host: str, port: int, *, tls: bool) -> str:
    """Return the URL of a server that listens at a host or address; of one that listens everywhere, here."""
    shown = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
