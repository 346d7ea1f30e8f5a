"""Finding a scheduler on the local network by mDNS, and being found.

mDNS only proposes: whatever answers at an address is believed once `/api/v1/identity` there names the cluster. The
token is never in an announcement. zeroconf is imported when it is needed and not before, so that a worker that is
given a URL runs where zeroconf is missing or its port is blocked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from cluster.errors import ClusterError, Conflict, NotFound, Unavailable
from cluster.protocol import SERVICE_TYPE, Identity
from cluster.transport import linked

if TYPE_CHECKING:
    from zeroconf import Zeroconf
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

logger = logging.getLogger(__name__)

API_PATH: Final = "/api/v1"
_TXT_VERSION: Final = "1"
_LABEL_BYTES: Final = 63
_RESOLVE_MS: Final = 1500
_RACE_S: Final = 2.0
_ADDRESS_CHECK_S: Final = 15.0
_VIRTUAL: Final = (
    "docker",
    "br-",
    "veth",
    "virbr",
    "vmnet",
    "vboxnet",
    "vethernet",
    "utun",
    "tun",
    "tap",
    "zt",
)

Identify = Callable[[str], Awaitable[Identity]]


@dataclass(frozen=True)
class Found:
    """A cluster that announced itself: what it says, not yet checked."""

    cluster_id: str
    name: str
    urls: tuple[str, ...]
    protocol: int
    join: str = "token"


# --- what an announcement says ------------------------------------------------------------------------------------


def announcement(identity: Identity, *, tls: bool) -> dict[str, str]:
    """Return the TXT record of a scheduler: who it is and how to speak to it."""
    return {
        "txtvers": _TXT_VERSION,
        "proto": str(identity.protocol),
        "id": _cut(identity.cluster_id, 200),
        "name": _cut(identity.name, 200),
        "path": API_PATH,
        "tls": "1" if tls else "0",
        "join": identity.join,
    }


def instance_label(name: str, suffix: str) -> str:
    """Return a label of at most 63 bytes of UTF-8; the suffix keeps two clusters of one name apart."""
    return f"{_cut(name.replace('.', '-'), _LABEL_BYTES - len(suffix) - 1)}-{suffix}"


def found_from(txt: Mapping[bytes, bytes | None], addresses: Sequence[str], port: int) -> Found | None:
    """Read an announcement; None if it is not one that we understand."""
    said = {
        k.decode("utf-8", "replace").lower(): (v or b"").decode("utf-8", "replace") for k, v in txt.items()
    }
    cluster_id, proto = said.get("id", ""), said.get("proto", "")
    if said.get("txtvers") != _TXT_VERSION or not cluster_id or not proto.isdigit() or not 0 < port < 1 << 16:
        return None
    scheme = "https" if said.get("tls") == "1" else "http"
    urls = tuple(dict.fromkeys(f"{scheme}://{_bracketed(a)}:{port}" for a in addresses if _usable(a)))
    name = said.get("name") or cluster_id
    return Found(cluster_id, name, urls, int(proto), said.get("join") or "token") if urls else None


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode()[:limit_bytes].decode("utf-8", "ignore")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _usable(address: str) -> bool:
    """Loopback (Debian's 127.0.1.1) leads a remote worker to itself; a link-local IPv6 needs a zone that URLs lack."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast) and not (
        parsed.version == 6 and parsed.is_link_local
    )


# --- being found --------------------------------------------------------------------------------------------------


def own_addresses() -> list[str]:
    """Return this machine's addresses that others may reach, those of real network cards first."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = [
        (name, entry.address.partition("%")[0])
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family in {socket.AF_INET, socket.AF_INET6}
    ]
    ordered = sorted(found, key=lambda pair: (pair[0].lower().startswith(_VIRTUAL), ":" in pair[1]))
    return list(dict.fromkeys(address for _, address in ordered if _usable(address)))


@asynccontextmanager
async def announce(
    identity: Identity,
    port: int,
    addresses: Sequence[str] | None = None,
    *,
    tls: bool = False,
    check_s: float = _ADDRESS_CHECK_S,
) -> AsyncIterator[str]:
    """Announce a scheduler for the length of the block; gives the announced instance's name.

    Without `addresses` all of this machine's are announced, and looked at again every `check_s` seconds: a cable that
    is plugged in later, or a laptop that changes networks, is noticed.

    Raises
    ------
    Unavailable
        If this machine cannot announce anything; workers then need the scheduler's URL.
    """
    from zeroconf.asyncio import AsyncZeroconf

    current = list(own_addresses() if addresses is None else addresses)
    label = instance_label(identity.name, secrets.token_hex(3))
    info = _service_info(identity, label, port, current, tls=tls)
    try:
        zeroconf = AsyncZeroconf()
    except OSError as error:
        raise Unavailable(f"mDNS cannot be used here ({error}); workers need --scheduler URL") from error
    refresher: asyncio.Task[None] | None = None
    try:
        await (await zeroconf.async_register_service(info, cooperating_responders=True))
        if addresses is None:
            following = _follow_addresses(
                zeroconf, lambda now: _service_info(identity, label, port, now, tls=tls), current, check_s
            )
            refresher = asyncio.create_task(following)
        yield info.name
    finally:
        if refresher is not None:
            refresher.cancel()
        with suppress(OSError, TimeoutError):
            await zeroconf.async_unregister_all_services()
        await zeroconf.async_close()


async def _follow_addresses(
    zeroconf: AsyncZeroconf,
    remake: Callable[[Sequence[str]], AsyncServiceInfo],
    current: list[str],
    check_s: float,
) -> None:
    while True:
        await asyncio.sleep(check_s)
        now = await asyncio.to_thread(own_addresses)
        if now == current or not now:
            continue
        try:
            await zeroconf.async_update_interfaces()
            await (await zeroconf.async_update_service(remake(now)))
        except OSError as error:
            logger.warning("the new addresses %s cannot be announced yet: %s", now, error)
            continue
        current = now


def _service_info(
    identity: Identity, label: str, port: int, addresses: Sequence[str], *, tls: bool
) -> AsyncServiceInfo:
    from zeroconf.asyncio import AsyncServiceInfo

    return AsyncServiceInfo(
        SERVICE_TYPE,
        f"{label}.{SERVICE_TYPE}",
        port=port,
        properties=announcement(identity, tls=tls),
        server=f"{label.lower().encode('ascii', 'ignore').decode() or 'clusterofone'}.local.",
        parsed_addresses=list(addresses),
    )


# --- finding ------------------------------------------------------------------------------------------------------


async def browse(timeout_s: float = 3.0, name: str | None = None) -> list[Found]:
    """Return the clusters that announce themselves, in the order of their names.

    Two ways at once: the usual listening on port 5353, and one-shot questions from a port of our own, whose answers
    come by unicast; these get through where 5353 is taken or a firewall keeps multicast out.

    Raises
    ------
    Unavailable
        If this machine can ask in neither way.
    """
    from cluster.mdns import ask_once

    answers = await asyncio.gather(_listen(timeout_s), ask_once(timeout_s), return_exceptions=True)
    heard = [found for answer in answers if isinstance(answer, list) for found in answer]
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, OSError | ImportError):
            raise answer
    if all(isinstance(answer, BaseException) for answer in answers):
        raise Unavailable(f"mDNS cannot be used here: {answers[0]}")
    return [found for found in merged(heard) if name is None or found.name == name]


def merged(heard: Iterable[Found]) -> list[Found]:
    """Return one entry a cluster, with every address it was heard at."""
    by_id: dict[str, Found] = {}
    for found in heard:
        known = by_id.get(found.cluster_id)
        urls = tuple(dict.fromkeys([*(known.urls if known else ()), *found.urls]))
        by_id[found.cluster_id] = Found(found.cluster_id, found.name, urls, found.protocol, found.join)
    return sorted(by_id.values(), key=lambda found: (found.name, found.cluster_id))


async def _listen(timeout_s: float) -> list[Found]:
    from zeroconf import ServiceStateChange
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

    names: asyncio.Queue[str] = asyncio.Queue()

    def on_change(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        del zeroconf, service_type
        if state_change is not ServiceStateChange.Removed:
            names.put_nowait(name)

    async with AsyncZeroconf() as zeroconf:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE_TYPE, handlers=[on_change])
        found: list[Found] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    found += await _resolved(zeroconf.zeroconf, await names.get())
        await browser.async_cancel()
    return found


async def _resolved(zeroconf: Zeroconf, name: str) -> list[Found]:
    from zeroconf.asyncio import AsyncServiceInfo

    info = AsyncServiceInfo(SERVICE_TYPE, name)
    if not await info.async_request(zeroconf, _RESOLVE_MS):
        return []
    found = found_from(info.properties, info.parsed_addresses(), info.port or 0)
    return [found] if found else []


async def reachable(found: Found, identify: Identify | None = None, *, race_s: float = _RACE_S) -> str:
    """Return the first of a cluster's addresses at which that cluster answers; all are tried at once.

    Raises
    ------
    Unavailable
        If none does; names them.
    """
    ask = identify or identity_at
    races = {asyncio.create_task(_confirmed(ask, url, found.cluster_id)): url for url in found.urls}
    try:
        async with asyncio.timeout(race_s):
            for finished in asyncio.as_completed(races):
                url = await finished
                if url is not None:
                    return url
    except TimeoutError:
        pass
    finally:
        for race in races:
            race.cancel()
    raise Unavailable(
        f"the cluster {found.name} announces {', '.join(found.urls)}, but answers at none of them"
    )


async def _confirmed(identify: Identify, url: str, cluster_id: str) -> str | None:
    try:
        identity = await identify(url)
    except ClusterError:
        return None
    return url if identity.cluster_id == cluster_id and identity.role == "scheduler" else None


async def identity_at(url: str) -> Identity:
    """Return who answers at a URL; no token is sent."""
    async with linked(url, timeout_s=_RACE_S) as link:
        return await link.get(f"{API_PATH}/identity", Identity)


def choose(
    found: Sequence[Found],
    *,
    name: str | None,
    known: Collection[str],
    ask: Callable[[list[str]], int] | None,
) -> Found:
    """Return the one cluster to join.

    One that is named, or alone, is it. Of several a person is asked; unattended, only one that has let this machine
    in before is chosen, for a wrong guess would send a lab's data to the neighbours.

    Raises
    ------
    NotFound
        If none has the name, or there is none at all.
    Conflict
        If there are several and nobody to ask; lists them.
    """
    named = [one for one in found if name is None or one.name == name]
    if not named:
        others = f"; there are {', '.join(one.name for one in found)}" if found else ""
        raise NotFound(f"no cluster {name or ''} announces itself on this network{others}".replace("  ", " "))
    if len(named) == 1:
        return named[0]
    remembered = [one for one in named if one.cluster_id in known]
    if len(remembered) == 1:
        return remembered[0]
    listing = ", ".join(f"{one.name} ({one.urls[0]})" for one in named)
    if ask is None:
        raise Conflict(
            f"there are several clusters on this network: {listing}; name one with --name or --scheduler"
        )
    picked = ask([f"{one.name}  {one.urls[0]}" for one in named])
    if not 0 <= picked < len(named):
        raise Conflict(f"there is no choice {picked + 1} among {listing}")
    return named[picked]
