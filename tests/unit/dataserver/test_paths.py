from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.dataserver.paths import Roots, checked_segments
from cluster.errors import Invalid, NotFound

MALFORMED = [
    "../secret.tif", "a/../../secret.tif", "a/..", "..", ".", "a/./b", "/etc/passwd", "//server/share/a.tif", "a//b",
    "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "https://h/a.tif",
    "a/", "C:/data/a.tif", "c:a.tif", "a\\b.tif", "..\\secret.tif", "\\\\server\\share", "a\0.tif", "a\n.tif", "CON",
    "con.tif", "folder/NUL.tif", "com1.tif", "LPT9", "aux/a.tif", "a.tif.", "a.tif ", "a?.tif", "a*.tif", "a|b",
    'a".tif', "<a>.tif", "\ud800.tif", "a" * 1025, "b/d:stream", "a\x9b31m.tif",
    "cells\u202efit.tif", "\u2066a.tif", "a\u2028b.tif",
]  # fmt: skip
SOUND = [
    "a.tif",
    "a/b c/d.tif",
    "2026-11-23 12.30.00/cell.ome.tif",
    "µ/zelle ü.tif",
    "console.tif",
    "a..b.tif",
    "12:30.tif",
    "left\u200fright\u200e.tif",
]


@pytest.mark.parametrize("path", MALFORMED)
def test_a_path_that_could_mean_anything_else_is_refused_by_its_looks(path: str) -> None:
    with pytest.raises(Invalid, match="no path of a series"):
        checked_segments(path)


@pytest.mark.parametrize("path", SOUND)
def test_an_ordinary_path_is_taken(path: str) -> None:
    assert "/".join(checked_segments(path)) == path


@pytest.mark.parametrize(
    ("path", "said"),
    [("a:b.tif", "'a:', for a drive; rename it"), ("C:/data/a.tif", "absolute"), ("/a", "absolute")],
)
def test_a_drive_is_told_from_a_name_that_begins_like_one(path: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        checked_segments(path)


@given(st.text(max_size=60))
def test_no_path_that_is_taken_can_climb(path: str) -> None:
    try:
        segments = checked_segments(path)
    except Invalid:
        return
    assert ".." not in segments
    assert all(segments)
    assert not Path(path).is_absolute()


def test_the_first_root_that_has_the_file_wins(tmp_path: Path) -> None:
    for root in ("one", "two"):
        (tmp_path / root).mkdir()
    (tmp_path / "two" / "a.tif").write_text("2", encoding="utf-8")
    roots = Roots([tmp_path / "one", tmp_path / "two"])

    assert roots.file("a.tif").read_text(encoding="utf-8") == "2"
    (tmp_path / "one" / "a.tif").write_text("1", encoding="utf-8")
    assert roots.file("a.tif").read_text(encoding="utf-8") == "1"


@pytest.mark.parametrize("path", ["none.tif", "folder", ""])
def test_what_is_no_file_is_not_found(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(NotFound):
        Roots([tmp_path]).file(path)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_link_that_leads_out_of_the_root_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "secret.tif").write_bytes(b"x")
    (tmp_path / "root" / "a.tif").symlink_to(tmp_path / "secret.tif")
    (tmp_path / "root" / "sub" / "up").symlink_to(tmp_path)
    roots = Roots([tmp_path / "root"])

    for path in ("a.tif", "sub/up/secret.tif"):
        with pytest.raises(NotFound):
            roots.file(path)
    with pytest.raises(NotFound):
        roots.folders("sub/up")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_link_within_the_root_and_a_root_that_is_a_link_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.tif").write_bytes(b"x")
    (tmp_path / "real" / "b.tif").symlink_to(tmp_path / "real" / "a.tif")
    (tmp_path / "root").symlink_to(tmp_path / "real")

    assert Roots([tmp_path / "root"]).file("b.tif").name == "a.tif"


def test_a_root_that_is_away_is_skipped_and_found_when_it_comes(tmp_path: Path) -> None:
    roots = Roots([tmp_path / "share"])
    with pytest.raises(NotFound):
        roots.file("a.tif")

    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "a.tif").write_bytes(b"x")

    assert roots.file("a.tif").is_file()


def test_a_shelf_is_a_folder_under_a_name_of_its_own_and_is_not_left_either(tmp_path: Path) -> None:
    for name in ("root/a.tif", "root/@maps/own.tif", "maps/left/dark.tif", "secret.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    roots = Roots([tmp_path / "root"], {"@maps": tmp_path / "maps"})

    assert roots.file("@maps/left/dark.tif") == (tmp_path / "maps/left/dark.tif").resolve()
    assert roots.file("@maps/own.tif") == (tmp_path / "root/@maps/own.tif").resolve()
    for path in ("left/dark.tif", "@other/left/dark.tif"):
        with pytest.raises(NotFound):
            roots.file(path)
    with pytest.raises(Invalid):
        roots.file("@maps/../secret.tif")
    assert [folder for _, folder in roots.folders("")] == [(tmp_path / "root").resolve()]
