"""What is heard by mDNS, and which of the addresses that clusters announce answer from here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.commands.checks.finding import Finding, note, ok, problem
from cluster.commands.checks.firewalls import let_in
from cluster.discovery import Found, Identify, browse, identity_at
from cluster.errors import ClusterError

_MDNS_PORT = 5353


@dataclass(frozen=True)
class Heard:
    """The clusters that announced themselves, or why nobody could be heard."""

    clusters: tuple[Found, ...] = ()
    fault: str | None = None


async def listen(seconds: float) -> Heard:
    """Return who announces itself."""
    try:
        return Heard(tuple(await browse(seconds)))
    except (ClusterError, OSError) as error:
        return Heard(fault=str(error))


async def mdns(heard: Heard, seconds: float, *, identify: Identify = identity_at) -> Finding:
    """Judge what was heard: a cluster that announces itself and answers nowhere is behind a firewall."""
    if heard.fault is not None:
        return problem("mDNS", f"{heard.fault}. Name the scheduler instead: --scheduler URL")
    if not heard.clusters:
        hint = let_in(_MDNS_PORT, "UDP", platform=sys.platform)
        return note(
            "mDNS",
            f"no cluster announced itself in {seconds:.0f} s. If one runs with --lan on this network, {hint}; where multicast "
            "is blocked, name the scheduler: --scheduler URL",
        )
    lines = await asyncio.gather(*(_line(cluster, identify) for cluster in heard.clusters))
    told = "; ".join(line for line, _ in lines)
    return ok("mDNS", told) if all(well for _, well in lines) else problem("mDNS", told)


async def _line(cluster: Found, identify: Identify) -> tuple[str, bool]:
    answering = await those_of(cluster.urls, cluster.cluster_id, identify)
    if not answering:
        port = int(cluster.urls[0].rpartition(":")[2])
        told = f"{cluster.name} announces {', '.join(cluster.urls)}, but answers at none of them: on its machine, {let_in(port)}"
        return told, False
    silent = [url for url in cluster.urls if url not in answering]
    more = f" (not at {', '.join(silent)}, which does no harm)" if silent else ""
    return f"{cluster.name} at {', '.join(answering)}{more}", True


async def those_of(urls: Sequence[str], cluster_id: str, identify: Identify) -> list[str]:
    """Return the addresses at which this cluster answers; all are asked at once."""

    async def is_there(url: str) -> bool:
        try:
            return (await identify(url)).cluster_id == cluster_id
        except ClusterError:
            return False

    answers = await asyncio.gather(*map(is_there, urls))
    return [url for url, there in zip(urls, answers, strict=True) if there]
