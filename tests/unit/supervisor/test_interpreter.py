"""Our processes run our code, whatever lies in the folder they are started in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cluster.interpreter import RUN_MODULE


@pytest.mark.parametrize(
    "name", ["cluster/__init__.py", "fitting/__init__.py", "secrets.py", "clusterofone.py"]
)
def test_a_file_beside_the_data_is_never_imported(tmp_path: Path, name: str) -> None:
    beside = tmp_path / name
    beside.parent.mkdir(exist_ok=True)
    beside.write_text('raise SystemExit("taken from the current folder")\n', encoding="utf-8")

    ran = subprocess.run(
        [*RUN_MODULE, "clusterofone", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert "taken from" not in ran.stdout + ran.stderr
