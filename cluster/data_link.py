"""From a scheduler to its data server: the first of its addresses at which a server of the same cluster answers."""

from __future__ import annotations

from typing import Final

import httpx

from cluster.addresses import Place, candidates
from cluster.errors import ClusterError, Unavailable
from cluster.protocol import Identity
from cluster.transport import BlockingLink

_IDENTITY: Final = "/api/v1/identity"


def data_link(
    scheduler: BlockingLink, *, only: str | None = None, transport: httpx.BaseTransport | None = None
) -> BlockingLink:
    """Return a link to a data server, or to the one with this id; the token is shown to none that is not of this cluster.

    Raises
    ------
    Unavailable
        If none can be reached.
    """
    identity = scheduler.request("GET", _IDENTITY).message(Identity)
    place = Place("", identity.cluster_id, identity.machine, scheduler.url)
    servers = [server for server in identity.dataservers if only in (None, server.id)]
    for candidate in candidates(servers, place):
        link = BlockingLink(candidate.url, scheduler.token, transport=transport, timeout_s=10.0)
        if _is_of_cluster(link, identity.cluster_id):
            return link
        link.close()
    raise Unavailable("no data server of this cluster can be reached from here")


def _is_of_cluster(link: BlockingLink, cluster_id: str) -> bool:
    try:
        identity = link.request("GET", _IDENTITY, anonymous=True).message(Identity)
    except ClusterError:
        return False
    return identity.role == "dataserver" and identity.cluster_id == cluster_id
