"""Who may do what: the cluster's secret, the tokens made from it, and the roles they carry.

A token is `c1.<role>.<base64url of HMAC-SHA256(secret, role)>`, so the scheduler needs no table of tokens. A data
server on another machine never sees the secret: it is given `verifiers`, the SHA-256 of each token, when it registers.
Where the cluster has a certificate, the tokens that it gives out name it (`pinning`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args

from filelock import FileLock

from cluster import held_files
from cluster.errors import Unauthorised
from cluster.pinning import bare, with_pin
from cluster.protocol import Role

ROLES: Final[tuple[Role, ...]] = get_args(Role)
SECRET_FILE: Final = "secret"  # noqa: S105 -- its name
PIN_FILE: Final = "certificate.sha256"
"""In a cluster's state folder: the fingerprint of the certificate that its scheduler shows, while it shows one."""
_SECRET_BYTES: Final = 32


def load_or_create_secret(path: Path) -> bytes:
    """Return the cluster's secret, made at first start with file mode 0600.

    Several processes may ask at once; the lock lets none see a file that is not yet whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            _write_secret(path)
        return _read_secret(path)


def _write_secret(path: Path) -> None:
    temporary = path.with_name(f"{path.name}.new")
    handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    held_files.replace(temporary, path)


def _read_secret(path: Path) -> bytes:
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise Unauthorised(
            f"{path} is damaged: a cluster secret has {_SECRET_BYTES} bytes, this has {len(secret)}"
        )
    return secret


def token(secret: bytes, role: Role) -> str:
    """Return the token of a role."""
    mac = hmac.new(secret, b"clusterofone token 1 " + role.encode(), hashlib.sha256).digest()
    return f"c1.{role}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def own_token(cluster: Path, role: Role) -> str:
    """Return the token of a role for a cluster of this user, by its state folder; it names the certificate, if there is one."""
    noted = cluster / PIN_FILE
    pin = noted.read_text(encoding="ascii").strip() if noted.exists() else None
    return with_pin(token(load_or_create_secret(cluster / SECRET_FILE), role), pin)


def verifiers(secret: bytes) -> dict[Role, str]:
    """Return what recognises each role's token without being one."""
    return {role: _digest(token(secret, role)) for role in ROLES}


def role_of(presented: str, known: Mapping[Role, str]) -> Role:
    """Return the role a token carries; compares in constant time.

    Raises
    ------
    Unauthorised
        If nobody issued this token.
    """
    found: Role | None = None
    digest = _digest(bare(presented))
    for role, verifier in known.items():
        if hmac.compare_digest(digest, verifier):
            found = role
    if found is None:
        raise Unauthorised("this token is not one of this cluster's")
    return found


def claimed_role(presented: str) -> Role | None:
    """Return the role that a token names; true only of one that a cluster has accepted, or None if it names none."""
    parts = presented.split(".")
    return next((role for role in ROLES if parts[1:2] == [role]), None)


def _digest(presented: str) -> str:
    return hashlib.sha256(presented.encode("utf-8", "surrogateescape")).hexdigest()
