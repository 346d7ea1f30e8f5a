from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dataserver.sidecars import parse_sidecar, read_sidecars, sidecar_paths
from cluster.errors import Invalid


def test_flat_keys_are_taken_as_they_are() -> None:
    text = '{"voxelsize.x": 0.1, "Camera.ADOffset": 100, "Sample.Notes": "dim"}'

    values = parse_sidecar("a.json", text)

    assert values == {"voxelsize.x": 0.1, "Camera.ADOffset": 100, "Sample.Notes": "dim"}


def test_nested_groups_become_dotted_keys() -> None:
    values = parse_sidecar(
        "a.json", '{"Camera": {"ADOffset": 100, "ROI": [0, 0, 8, 8]}, "voxelsize": {"x": 0.1}}'
    )

    assert values == {"Camera.ADOffset": 100, "Camera.ROI": [0, 0, 8, 8], "voxelsize.x": 0.1}


def test_md_lines_are_read_and_comments_and_imports_ignored() -> None:
    text = (
        "#PYME Simple Metadata v1\n'''a word'''\nimport os\nfrom numpy import array\n\n"
        "md['voxelsize.x'] = 0.1\nmd['Camera.Name'] = 'Zyla'\nmd['Camera.ROI'] = (1, 2,\n   3, 4)\n"
        "md['Sample.Labelling'] = [['tubulin', 'A647']]\nmd['Lasers.On'] = True\nmd['Analysis.BGRange'] = [-30, 0]\n"
    )

    values = parse_sidecar("a.md", text)

    assert values == {
        "voxelsize.x": 0.1,
        "Camera.Name": "Zyla",
        "Camera.ROI": [1, 2, 3, 4],
        "Sample.Labelling": [["tubulin", "A647"]],
        "Lasers.On": True,
        "Analysis.BGRange": [-30, 0],
    }


def test_a_windows_path_in_an_md_file_is_text() -> None:
    assert parse_sidecar("a.md", r"md['PSFFile'] = 'D:\data\psf.tif'") == {"PSFFile": r"D:\data\psf.tif"}


BAD = [
    ("a.json", "{", 1),
    ("a.json", '{"a": 1,\n "b": }', 2),
    ("a.json", "[1, 2]", 1),
    ("a.json", '{"a": NaN}', 1),
    ("a.json", '{"a": 1e999}', None),
    ("a.md", "md['a'] = ", 1),
    ("a.md", "md['a'] = 1\nmd['b'] = __import__('os').getcwd()", 2),
    ("a.md", "md['a'] = open('x')", 1),
    ("a.md", "x = 1", 1),
    ("a.md", "md['a'] = 1\n\nprint(md)", 3),
    ("a.md", "md[1] = 1", 1),
    ("a.md", "md['a'].b = 1", 1),
    ("a.md", "# A title\n\nSome notes of the experiment.", 3),
    ("a.md", "md['a'] = {1, 2}", None),
    ("a.md", "md['a'] = 'x\0y'", None),
]


@pytest.mark.parametrize(("name", "text", "line"), BAD)
def test_a_bad_sidecar_is_refused_by_file_and_line(name: str, text: str, line: int | None) -> None:
    with pytest.raises(Invalid, match=name) as refusal:
        parse_sidecar(name, text)

    if line is not None:
        assert f"line {line}" in refusal.value.detail


def test_an_md_file_is_never_run(tmp_path: Path) -> None:
    proof = tmp_path / "run"

    with pytest.raises(Invalid):
        parse_sidecar("a.md", f"md['a'] = open({str(proof)!r}, 'w')")

    assert not proof.exists()


def test_the_more_particular_sidecar_wins_and_each_value_says_where_it_is_from(tmp_path: Path) -> None:
    series = tmp_path / "cell.ome.tif"
    (tmp_path / "cell.md").write_text("md['a'] = 1\nmd['b'] = 1\nmd['c'] = 1", encoding="utf-8")
    (tmp_path / "cell.json").write_text('{"b": 2, "c": 2}', encoding="utf-8")
    (tmp_path / "cell.ome.tif.json").write_text('{"c": 3}', encoding="utf-8")

    found = read_sidecars(series)

    assert {key: (value.value, value.source) for key, value in found.items()} == {
        "a": (1, "sidecar cell.md"),
        "b": (2, "sidecar cell.json"),
        "c": (3, "sidecar cell.ome.tif.json"),
    }


def test_a_series_is_not_its_own_sidecar() -> None:
    names = {path.name for path in sidecar_paths(Path("cell.json"))}

    assert "cell.json" not in names


def test_a_dotted_series_name_does_not_take_another_series_sidecar() -> None:
    names = {path.name for path in sidecar_paths(Path("2026.11.23 cell.tif"))}

    assert "2026.11.json" not in names
    assert "2026.json" not in names
    assert "2026.11.23 cell.json" in names


def test_a_sidecar_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff\xfe"}')

    with pytest.raises(Invalid, match=r"a\.json is not UTF-8"):
        read_sidecars(tmp_path / "a.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_sidecar_that_leads_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.json").write_text('{"password": 1}', encoding="utf-8")
    (tmp_path / "root" / "a.json").symlink_to(tmp_path / "secret.json")

    assert read_sidecars(tmp_path / "root" / "a.tif") == {}


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')

    assert read_sidecars(tmp_path / "a.tif")["a"].value == 1


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["a.json", "a.md"]), st.text())
def test_any_text_is_a_sidecar_or_refused(name: str, text: str) -> None:
    try:
        values = parse_sidecar(name, text)
    except Invalid:
        return
    json.dumps(values, allow_nan=False)


LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1), LITERALS))
def test_what_is_written_as_md_or_json_reads_back(values: dict[str, object]) -> None:
    md = "\n".join(f"md[{key!r}] = {value!r}" for key, value in values.items())

    assert parse_sidecar("a.md", md) == values
    assert parse_sidecar("a.json", json.dumps(values)) == values
