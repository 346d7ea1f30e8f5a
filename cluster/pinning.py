"""Whom a client believes: a server is the one that is meant if it shows the certificate that the token, or its address, names.

The fingerprint, the SHA-256 of the certificate, stands at the end of a token (`c1.worker.<mac>.<fingerprint>`), and after the `#`
of an address that the cluster itself hands out (`https://host:port#<fingerprint>`). Who signed a certificate is only
asked where neither names one: behind a proxy with a name of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
from typing import Any, Final

from cluster.errors import Untrusted

_PARTS_OF_A_PINNED_TOKEN: Final = 4


def fingerprint(certificate: bytes) -> str:
    """Return by what a certificate (DER) is known."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()


def with_pin(token: str, pin: str | None) -> str:
    """Return a token that names the certificate of its cluster, if there is one."""
    return bare(token) if pin is None else f"{bare(token)}.{pin}"


def bare(token: str) -> str:
    """Return a token as the server knows it."""
    return ".".join(token.split(".")[: _PARTS_OF_A_PINNED_TOKEN - 1])


def pin_in(token: str | None) -> str | None:
    """Return the fingerprint that a token names, if it names one."""
    parts = (token or "").split(".")
    return parts[-1] or None if len(parts) == _PARTS_OF_A_PINNED_TOKEN else None


def pinned_address(url: str, pin: str | None) -> str:
    """Return the address of a server that shows this certificate."""
    return url if pin is None else f"{url}#{pin}"


def split_address(address: str) -> tuple[str, str | None]:
    """Return the URL in an address, and the fingerprint, if it names one."""
    url, _, pin = address.partition("#")
    return url, pin or None


class WrongCertificate(ssl.SSLError):
    """The other side shows another certificate than it should."""


class _CheckedObject(ssl.SSLObject):
    """For asyncio."""

    def do_handshake(self) -> None:
        super().do_handshake()
        _check(self.context, self.getpeercert(binary_form=True))


class _CheckedSocket(ssl.SSLSocket):
    """For programs that wait."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check(self.context, self.getpeercert(binary_form=True))


class _Pinned(ssl.SSLContext):
    """Accepts one certificate, whoever signed it; without a pin, the one that it is shown first."""

    sslobject_class = _CheckedObject
    sslsocket_class = _CheckedSocket
    pin: str | None = None


def _check(context: ssl.SSLContext, shown: bytes | None) -> None:
    assert isinstance(context, _Pinned)
    seen = fingerprint(shown or b"")
    if context.pin is None:
        context.pin = seen
    if not hmac.compare_digest(seen, context.pin):
        raise WrongCertificate(f"its certificate is {seen}, not {context.pin}")


def only(pin: str | None) -> ssl.SSLContext:
    """Return a context that accepts the certificate of a fingerprint; if None, that of the first server it meets, for as long as it lives."""
    context = _Pinned(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who signed it says nothing here; `_check` decides
    context.pin = pin
    return context


def verification(url: str, pin: str | None, token: str | None) -> ssl.SSLContext | bool:
    """Return whom a client of a server believes, as httpx takes it.

    Without a token nothing is shown to anybody, and nothing is believed: who asks to join knows no certificate yet.

    Raises
    ------
    Untrusted
        If a token that names a certificate would be sent in the clear.
    """
    wanted = pin or pin_in(token)
    if not url.startswith("https:"):
        if pin_in(token) is not None:
            raise Untrusted(
                f"{url} does not encrypt, and this token is of a cluster that does: it is not sent there",
                url=url,
            )
        return False
    return True if token and wanted is None else only(wanted)


def explained(error: BaseException, url: str) -> Untrusted | None:
    """Return what is wrong with the certificate at a URL, if that is why a connection failed."""
    cause: Any = error
    server = "/".join(url.split("/")[:3])
    while cause is not None:
        if isinstance(cause, WrongCertificate):
            return Untrusted(
                f"who answers at {server} is not who the token was made for: {cause.args[0]}. If the cluster has a new "
                "certificate, take a new token from it (clusterofone token); else somebody stands between",
                url=server,
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Untrusted(
                f"the certificate of {server} cannot be checked ({cause.verify_message}): use the token that "
                "clusterofone token prints there, which names it",
                url=server,
            )
        cause = cause.__cause__ or cause.__context__
    return None
