"""One-shot mDNS questions (RFC 6762 §5.1): asked from a port of our own, answered by unicast to it.

They need no port 5353 of ours, so they work where another program holds it; and a firewall that keeps multicast out
lets an answer to one's own question in.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import psutil

from cluster.discovery import Found, found_from
from cluster.protocol import SERVICE_TYPE

if TYPE_CHECKING:
    from zeroconf import DNSRecord  # type: ignore[attr-defined]

_GROUP: Final = ("224.0.0.251", 5353)
_ASK_AGAIN_S: Final = 0.8
_PTR: Final = 12
_INTERNET: Final = 1
_UNICAST_REPLY: Final = 0x8000


async def ask_once(timeout_s: float) -> list[Found]:
    """Ask on every IPv4 interface and return what was answered within the time.

    Raises
    ------
    OSError
        If there is no interface to ask on.
    """
    answers: list[bytes] = []
    loop = asyncio.get_running_loop()
    transports = []
    try:
        for address in interface_addresses():
            sock = _socket_at(address)
            if sock is not None:
                transport, _ = await loop.create_datagram_endpoint(lambda: _Collector(answers), sock=sock)
                transports.append(transport)
        if not transports:
            raise OSError("no network interface takes multicast")
        await _ask_repeatedly(transports, timeout_s)
    finally:
        for transport in transports:
            transport.close()
    return found_in(answers)


def question() -> bytes:
    """Return the packet that asks for schedulers, answers by unicast preferred."""
    labels = [label.encode() for label in SERVICE_TYPE.rstrip(".").split(".")]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack(">6H", 0, 0, 1, 0, 0, 0) + name + struct.pack(">2H", _PTR, _UNICAST_REPLY | _INTERNET)


def found_in(packets: Iterable[bytes]) -> list[Found]:
    """Return the clusters that answering packets tell of; what cannot be read is passed over."""
    from zeroconf import DNSIncoming  # type: ignore[attr-defined]

    records: list[DNSRecord] = []
    for packet in packets:
        incoming = DNSIncoming(packet)
        if incoming.valid and not incoming.is_query():
            records += incoming.answers()
    return _assembled(records)


def interface_addresses() -> list[str]:
    """Return the IPv4 addresses of this machine's interfaces, loopback left out."""
    return [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]


def _assembled(records: Iterable[DNSRecord]) -> list[Found]:
    from zeroconf import DNSAddress, DNSService, DNSText  # type: ignore[attr-defined]
    from zeroconf.asyncio import AsyncServiceInfo

    services: dict[str, DNSService] = {}
    texts: dict[str, bytes] = {}
    addresses: dict[str, list[str]] = {}
    for record in records:
        if isinstance(record, DNSService) and record.key.endswith(SERVICE_TYPE.lower()):
            services[record.key] = record
        elif isinstance(record, DNSText):
            texts[record.key] = record.text
        elif isinstance(record, DNSAddress):
            addresses.setdefault(record.key, []).append(_presentation(record.address))
    found = []
    for key, service in services.items():
        properties = AsyncServiceInfo(SERVICE_TYPE, service.name, properties=texts.get(key, b"")).properties
        one = found_from(properties, addresses.get(service.server.lower(), []), service.port)
        found += [one] if one else []
    return found


def _presentation(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


async def _ask_repeatedly(transports: list[asyncio.DatagramTransport], timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    packet = question()
    while (left := until - loop.time()) > 0:
        for transport in transports:
            transport.sendto(packet, _GROUP)
        await asyncio.sleep(min(_ASK_AGAIN_S, left))


def _socket_at(address: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sock.bind((address, 0))
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None
    return sock


class _Collector(asyncio.DatagramProtocol):
    """Keeps the packets that arrive; an interface that goes away is no concern of the others."""

    _LIMIT = 256

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Keep a packet."""
        del addr
        if len(self._answers) < self._LIMIT:
            self._answers.append(data)

    def error_received(self, exc: Exception) -> None:
        """Pass over what one interface cannot do."""
