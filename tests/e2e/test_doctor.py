"""`clusterofone doctor` beside a real cluster: what it says of the token, the versions, the clock and the addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.checks.writing import fault_of_writing

pytestmark = pytest.mark.e2e

A_DAY_BEHIND = """
import time
_time = time.time
time.time = lambda: _time() - 86_400
"""


@pytest.fixture(scope="module")
def url(shared_shell: Any, eventually: Callable[..., Any]) -> str:
    """A cluster without workers, and where its scheduler is."""
    process = shared_shell.start("--name", "lab", "--no-browser", "--no-page", "-n", 0)
    eventually(lambda: "Ctrl-C" in shared_shell.said(process), "a cluster")
    runtime = shared_shell.home / "state" / "clusters" / "lab" / "runtime.json"
    return str(json.loads(runtime.read_text(encoding="utf-8"))["url"])


def examined(shell: Any, *arguments: object, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    out = subprocess.run(
        [sys.executable, "-m", "clusterofone", "doctor", "--json", "--seconds", "0", *map(str, arguments)],
        check=False, env={**shell.environment, **environment}, cwd=shell.cwd, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in out.stderr
    found = json.loads(out.stdout.splitlines()[-1])["findings"]
    return out.returncode, {each["what"]: each for each in found}


def test_ones_own_cluster_is_found_and_everything_about_it_is_well(shared_shell: Any, url: str) -> None:
    _, found = examined(shared_shell)

    assert url in found["scheduler"]["detail"]
    for what in (
        "scheduler",
        "versions of both",
        "clock",
        "token",
        "data servers",
        "compiled kernels",
    ):
        assert found[what]["verdict"] == "ok", found[what]
    assert "of the role owner" in found["token"]["detail"]
    assert "none has joined" in found["workers"]["detail"]


@pytest.mark.parametrize("role", ["worker", "submitter", "viewer"])
def test_the_role_of_a_token_is_told(shared_shell: Any, url: str, role: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(shared_shell.run("token", "--role", role, "--name", "lab").stdout, encoding="utf-8")

    _, found = examined(shared_shell, "--scheduler", url, "--token-file", file)

    assert found["token"]["verdict"] == "ok"
    assert f"of the role {role}" in found["token"]["detail"]


def test_a_token_of_another_cluster_is_a_problem_and_ends_with_one(shared_shell: Any, url: str) -> None:
    status, found = examined(
        shared_shell, CLUSTEROFONE_SCHEDULER=url, CLUSTEROFONE_TOKEN="c1.owner.ofanothercluster"
    )

    assert status == 1
    assert found["token"]["verdict"] == "problem"
    assert "clusterofone token" in found["token"]["detail"]
    assert "ofanothercluster" not in str(found)


def test_a_clock_that_is_a_day_behind_is_noticed(shared_shell: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(A_DAY_BEHIND, encoding="utf-8")

    status, found = examined(shared_shell, "--scheduler", url, PYTHONPATH=str(tmp_path))

    assert status == 1
    assert found["clock"]["verdict"] == "problem"
    ahead_s = int(found["clock"]["detail"].partition(" s ahead")[0].rpartition(" ")[2])
    assert abs(ahead_s - 86_400) <= 3


def test_a_machine_that_knows_no_token_is_told_where_to_get_one(
    shared_shell: Any, url: str, tmp_path: Path
) -> None:
    stranger = str(tmp_path / "stranger")

    _, found = examined(shared_shell, "--scheduler", url, CLUSTEROFONE_HOME=stranger)

    assert found["scheduler"]["verdict"] == "ok"
    assert found["token"]["verdict"] == "note"
    assert "clusterofone token" in found["token"]["detail"]


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs Linux and root, to mount a small disk"
)
@pytest.mark.parametrize(("options", "said"), [("size=32k", "no room"), ("ro", "read-only")])
def test_a_real_disk_that_is_full_or_read_only_is_told_as_what_it_is(
    tmp_path: Path, options: str, said: str
) -> None:
    mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
    if subprocess.run(mounting, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        fault = fault_of_writing(tmp_path / "kernels")
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

    assert said in (fault or "")
    assert left == []
