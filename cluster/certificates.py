"""The certificate of this machine, made by itself; whoever holds a token of the cluster knows it by its fingerprint (ADR 11)."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock

from cluster.config import Places, write_private
from cluster.discovery import own_addresses
from cluster.errors import Invalid
from cluster.machine import host_name
from cluster.pinning import fingerprint

_YEARS: Final = 20  # nothing but its fingerprint is looked at, so that it need not be renewed
_NAMES_LIMIT: Final = 64  # bytes of a common name


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate and of its key, and the fingerprint by which it is known."""

    file: Path
    key_file: Path
    fingerprint: str


def of_this_machine(places: Places) -> Certificate:
    """Return the certificate that every role of this user shows on this machine; raises as `load_or_create` does."""
    return load_or_create(places.state, host=host_name(), addresses=own_addresses())


def load_or_create(folder: Path, *, host: str, addresses: Sequence[str] = ()) -> Certificate:
    """Return the certificate in a folder, made at first use; only its owner may read the key.

    `host` and `addresses` are what the certificate says that it is for, to programs that look at it.

    Raises
    ------
    Invalid
        If the files are damaged; says which to delete.
    """
    file, key_file = folder / "certificate.pem", folder / "certificate.key"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "certificate.lock"):
        if not (file.exists() and key_file.exists()):
            certificate, key = _made(host, addresses)
            write_private(key_file, key)
            write_private(file, certificate)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, key_file)
        der = ssl.PEM_cert_to_DER_cert(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise Invalid(
            f"{file} and {key_file.name} are damaged ({error}); delete both, and give the cluster's tokens out anew"
        ) from error
    return Certificate(file, key_file, fingerprint(der))


def _made(host: str, addresses: Sequence[str]) -> tuple[str, str]:
    # only who serves with TLS, and only at its first start, needs these
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, host.encode()[:_NAMES_LIMIT].decode("utf-8", "ignore"))]
    )
    now = dt.datetime.now(dt.UTC)
    hosts = [x509.DNSName(known) for known in dict.fromkeys((host, "localhost")) if known.isascii()]
    places = [
        x509.IPAddress(ipaddress.ip_address(a)) for a in dict.fromkeys(("127.0.0.1", "::1", *addresses))
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))  # clocks of lab machines are wrong
        .not_valid_after(now + dt.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([*hosts, *places]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), written.decode()
