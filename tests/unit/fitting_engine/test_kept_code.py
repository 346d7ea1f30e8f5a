from __future__ import annotations

import os
from pathlib import Path

import pytest

import fitting.kernel
from fitting.kernel import folder_of_kept_code


def test_compiled_code_is_kept_where_one_says() -> None:
    assert folder_of_kept_code("somewhere") == Path("somewhere")


def test_compiled_code_is_kept_beside_the_package() -> None:
    assert folder_of_kept_code("") == Path(fitting.kernel.__file__).parent / "__pycache__"


def test_a_package_that_cannot_be_written_keeps_its_code_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    folder = folder_of_kept_code("")

    assert not folder.is_relative_to(Path(fitting.kernel.__file__).parent)
    assert "clusterofone" in folder.parts
