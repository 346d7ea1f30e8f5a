"""What `deploy/` runs, run: the batch script as a batch system would, the containers' commands as processes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

pytestmark = pytest.mark.e2e

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("bash") is None, reason="batch nodes run Linux")
def test_the_script_for_one_allocation_localises_and_leaves_nothing_behind(
    shell: Any, series: Path, tmp_path: Path
) -> None:
    reference = shell.json("localise", series, "-o", tmp_path / "reference.h5r", "-n", 1)
    command = tmp_path / "clusterofone"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m clusterofone "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    node = tmp_path / "node"
    node.mkdir()
    environment = {
        **{key: value for key, value in shell.environment.items() if not key.startswith("SLURM")},
        "CLUSTEROFONE": str(command),
        "SLURM_TMPDIR": str(node),
        "SLURM_CPUS_PER_TASK": "1",
    }

    done = subprocess.run(
        [
            "bash",
            str(DEPLOY / "slurm/cluster.sbatch"),
            str(series),
            "--",
            "-o",
            str(series.parent / "batch.h5r"),
        ],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )

    assert done.returncode == 0, done.stderr
    with h5py.File(series.parent / "batch.h5r") as ours, h5py.File(reference["output"]) as theirs:
        assert ours["FitResults"][:].tobytes() == theirs["FitResults"][:].tobytes()
    assert list(node.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="containers run Linux")
def test_the_roles_of_compose_find_each_other_by_the_state_they_share(
    shell: Any, series: Path, eventually: Callable[..., Any]
) -> None:
    services = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text(encoding="utf-8"))["services"]
    port, data_port = str(free_port()), str(free_port())
    changes = {
        "/data": str(series.parent),
        "15400": port,
        "15440": data_port,
        "http://scheduler:15400": f"http://127.0.0.1:{port}",
    }
    started = {}
    for name in ("scheduler", "dataserver", "worker"):
        started[name] = shell.start(*[changes.get(word, word) for word in services[name]["command"]])
        eventually(lambda name=name: re.search("is ready", shell.said(started[name])), f"the {name}")

    job = shell.json("localise", series, "--scheduler", f"http://127.0.0.1:{port}")

    assert (job["state"], job["frames"]["localised"]) == ("done", 300)
