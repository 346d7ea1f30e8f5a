"""The example package of a reader: installed, its own tests pass, and a data server serves what it reads."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from cluster.dataserver.readers.conformance import camera_frames
from cluster.dataserver.readers.registry import open_series
from cluster.dataserver.store import SeriesStore
from cluster.errors import Invalid

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "lumen-reader"


def installed(folder: Path) -> list[str]:
    """Put what an installation leaves behind into a folder; return what is to be on the path."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    noted = folder / f"lumen_reader-{project['version']}.dist-info"
    noted.mkdir(parents=True)
    (noted / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["clusterofone.readers"].items()]
    (noted / "entry_points.txt").write_text(
        "\n".join(["[clusterofone.readers]", *lines, ""]), encoding="utf-8"
    )
    return [str(folder), str(EXAMPLE)]


def test_the_examples_own_tests_pass_with_the_conformance_suite_among_them(tmp_path: Path) -> None:
    path = os.pathsep.join([*installed(tmp_path / "packages"), *sys.path])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(EXAMPLE / "pyproject.toml"),
    ]

    out = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "run"), str(EXAMPLE / "tests")],
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert out.returncode == 0, out.stdout + out.stderr
    assert "16 passed" in out.stdout


def test_a_data_server_lists_serves_places_and_follows_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*installed(tmp_path / "packages"), *sys.path])
    spec = importlib.util.spec_from_file_location("test_lumen", EXAMPLE / "tests" / "test_lumen.py")
    assert spec is not None
    assert spec.loader is not None
    examples_tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(examples_tests)
    root = tmp_path / "data"
    root.mkdir()
    written = camera_frames()
    path = examples_tests.write_lumen(root, written)
    store = SeriesStore([root])

    listed = [entry.path for entry in store.listing("").entries]
    facts = store.facts("cell.lmn")
    served = store.frames("cell.lmn", 3, 7, pinned=facts.fingerprint)
    place = store.place("cell.lmn")
    path.write_bytes(path.read_bytes()[:-100])
    growing = store.facts("cell.lmn", follow=True)
    store.close()

    assert listed == ["cell.lmn"]
    assert (facts.format, facts.frames) == ("lumen", 13)
    np.testing.assert_array_equal(served.frames, written[3:7])
    assert place.runs[0].count == 13
    assert (growing.frames, growing.complete) == (12, False)


def test_without_the_package_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cell.lmn"
    path.write_bytes(b"LUMN" + bytes(100))

    with pytest.raises(Invalid, match="is not a series that can be opened"):
        open_series(path)
