"""Names that are derived from files and users, of which anything may be, are always names that a message takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cluster.client import Client
from cluster.errors import Invalid
from cluster.file_names import fault_of_new_path
from cluster.unseen import Name, seen_name

TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from("\x1b\u200e\u200f\u202e\ud800 "))


@given(TEXT)
def test_what_is_seen_of_any_name_is_one_that_is_allowed(text: str) -> None:
    assert TypeAdapter(Name).validate_python(seen_name(text)).strip()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("left\u200fright.tif", "leftright.tif"),
        ("a\x1b[31mred\n", "a[31mred"),
        ("caf\udce9.tif", "caf\ufffd.tif"),
        ("zelle ü 日本 شلول.tif", "zelle ü 日本 شلول.tif"),
        ("\u200e \u200f", "unnamed"),
        ("x" * 2000, "x" * 1024),
    ],
)
def test_only_what_nobody_sees_is_left_out(text: str, seen: str) -> None:
    assert seen_name(text) == seen


@pytest.mark.skipif(sys.platform == "win32", reason="no folder has a ':' in its name there")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("there\u200f/12:30/new.h5r", None),
        ("there\u200f/12:31/new.h5r", "leave the ':' out"),
        ("there\u200f/new\u200f/a.h5r", "U[+]200F, which nobody sees; leave it out"),
        ("x" * 300 + "/a.h5r", "300 bytes"),
    ],
)
def test_folders_that_are_there_keep_their_names(tmp_path: Path, path: str, said: str | None) -> None:
    if "x" not in path:
        (tmp_path / "there\u200f" / "12:30").mkdir(parents=True)

    fault = fault_of_new_path(tmp_path, path.split("/"))

    assert (fault is None) if said is None else (fault is not None and said.replace("[+]", "+") in fault)


def test_the_python_client_says_what_is_wrong_as_the_scheduler_would() -> None:
    with (
        Client("http://127.0.0.1:1", "token") as client,
        pytest.raises(Invalid, match=r"^name: a name cannot hold the character U\+200E") as refused,
    ):
        client.submit("a.tif", name="a\u200eb")

    assert refused.value.facts["field"] == "name"
