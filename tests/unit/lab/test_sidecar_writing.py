"""Answers are kept in the sidecar that would be read last, and nothing else in it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.dataserver.sidecars import read_sidecars
from cluster.errors import Invalid
from cluster.sidecar_writing import sidecar_to_write, with_values, write_sidecar


@pytest.mark.parametrize(
    ("there", "target"),
    [
        ([], "cell.json"),
        (["cell.md"], "cell.json"),
        (["cell.json", "cell.ome.md"], "cell.ome.json"),
        (["cell.ome.tif.md"], "cell.ome.tif.json"),
    ],
)
def test_it_goes_where_it_is_read_last(tmp_path: Path, there: list[str], target: str) -> None:
    series = tmp_path / "cell.ome.tif"
    for name in there:
        text = "md['voxelsize.x'] = 7" if name.endswith(".md") else '{"voxelsize.x": 7}'
        (tmp_path / name).write_text(text, encoding="utf-8")

    assert sidecar_to_write(series) == tmp_path / target
    assert write_sidecar(series, {"voxelsize.x": 0.1}) == tmp_path / target
    assert read_sidecars(series)["voxelsize.x"].value == 0.1


def test_values_go_where_the_key_is_already() -> None:
    document = {"Camera": {"ADOffset": None, "Name": "ü"}, "voxelsize.x": 9, "deep": {"er.key": 1}}

    changed = with_values(
        document, {"Camera.ADOffset": 100, "voxelsize.x": 0.1, "Camera.ReadNoise": 1, "deep.er.key": 2}
    )

    assert changed == {
        "Camera": {"ADOffset": 100, "Name": "ü"},
        "voxelsize.x": 0.1,
        "deep": {"er.key": 2},
        "Camera.ReadNoise": 1,
    }
    assert document["voxelsize.x"] == 9


@pytest.mark.parametrize("text", ["[1]", "{", ""])
def test_what_is_no_sidecar_stays_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "cell.json").write_text(text, encoding="utf-8")

    with pytest.raises(Invalid, match=r"cell\.json"):
        write_sidecar(tmp_path / "cell.tif", {"voxelsize.x": 0.1})

    assert (tmp_path / "cell.json").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["cell.json"]


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text('{"Sample.Notes": "µ-tubulin"}', encoding="utf-8")

    write_sidecar(tmp_path / "cell.tif", {"voxelsize.x": 0.1})

    written = json.loads((tmp_path / "cell.json").read_text(encoding="utf-8"))
    assert written == {"Sample.Notes": "µ-tubulin", "voxelsize.x": 0.1}
