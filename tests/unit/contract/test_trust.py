"""Tokens and the secret they come from."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cluster.errors import Unauthorised
from cluster.trust import ROLES, load_or_create_secret, role_of, token, verifiers

SECRET = bytes(range(32))


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret"

    first = load_or_create_secret(path)

    assert load_or_create_secret(path) == first
    assert len(first) == 32
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_secret_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")

    with pytest.raises(Unauthorised, match="damaged"):
        load_or_create_secret(tmp_path / "secret")


@pytest.mark.parametrize("role", ROLES)
def test_a_token_carries_its_role(role: str) -> None:
    assert role_of(token(SECRET, role), verifiers(SECRET)) == role


@pytest.mark.parametrize(
    "presented", ["", "c1.owner.", "c1.owner.AAAA", token(b"x" * 32, "owner"), "\udcff", "é" * 50]
)
def test_a_token_nobody_issued_is_refused(presented: str) -> None:
    with pytest.raises(Unauthorised):
        role_of(presented, verifiers(SECRET))


def test_a_role_cannot_be_written_into_another_token() -> None:
    forged = token(SECRET, "viewer").replace("viewer", "owner")

    with pytest.raises(Unauthorised):
        role_of(forged, verifiers(SECRET))


def test_verifiers_are_not_tokens() -> None:
    for verifier in verifiers(SECRET).values():
        with pytest.raises(Unauthorised):
            role_of(verifier, verifiers(SECRET))
