"""The supervisor with real, tiny processes in place of the roles."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cluster.errors import Unavailable
from cluster.supervisor import NOT_AGAIN, Role, RoleProcess, Supervisor

pytestmark = pytest.mark.anyio

ENDS_WITH_PIPE = 'import sys; print(\'{"ready": 1, "url": "here"}\', flush=True); sys.stdin.read()'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which `python -m clusterofone CODE` runs CODE."""
    (tmp_path / "clusterofone.py").write_text("import sys; exec(sys.argv[1])", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def role(code: str, tmp_path: Path, name: str = "worker-1") -> Role:
    return Role(name, [code], log=tmp_path / f"{name}.log")


async def test_a_role_says_that_it_is_ready_and_ends_with_its_pipe(
    environ: dict[str, str], tmp_path: Path
) -> None:
    process = await RoleProcess.start(role(ENDS_WITH_PIPE, tmp_path), environ)

    assert (await process.ready(30))["url"] == "here"
    await process.stop()

    assert process.ended


async def test_a_role_that_ends_first_says_why(environ: dict[str, str], tmp_path: Path) -> None:
    process = await RoleProcess.start(role("import sys; sys.exit('port 15400 is taken')", tmp_path), environ)

    with pytest.raises(Unavailable, match="port 15400 is taken"):
        await process.ready(30)
    await process.stop()


async def test_a_role_that_never_gets_ready_is_given_a_deadline(
    environ: dict[str, str], tmp_path: Path
) -> None:
    process = await RoleProcess.start(role("import sys; sys.stdin.read()", tmp_path), environ)

    with pytest.raises(Unavailable, match="not ready"):
        await process.ready(0.2)
    await process.stop()


async def test_a_role_that_ignores_its_pipe_is_killed(environ: dict[str, str], tmp_path: Path) -> None:
    process = await RoleProcess.start(role("import time\nwhile True: time.sleep(1)", tmp_path), environ)

    await process.stop(deadline_s=0.5)

    assert process.ended


async def test_a_worker_that_dies_is_started_again(environ: dict[str, str], tmp_path: Path) -> None:
    events: list[str] = []
    again = asyncio.Event()

    def on_event(text: str) -> None:
        events.append(text)
        if len(events) == 2:
            again.set()

    supervisor = Supervisor(environ, on_event=on_event)
    supervisor.keep(role("import sys; sys.exit('crashed')", tmp_path))

    await asyncio.wait_for(again.wait(), 60)
    await supervisor.stop()

    assert "crashed" in events[0]


async def test_a_worker_that_cannot_work_is_not_started_again(
    environ: dict[str, str], tmp_path: Path
) -> None:
    events: list[str] = []
    supervisor = Supervisor(environ, on_event=events.append)
    code = f"import sys; print('pip install numpy==2.0', file=sys.stderr); sys.exit({NOT_AGAIN})"
    supervisor.keep(role(code, tmp_path))

    why = await asyncio.wait_for(supervisor.wait(asyncio.Event()), 60)
    await supervisor.stop()

    assert why == "no worker can work: pip install numpy==2.0"
    assert len(events) == 1


async def test_a_role_that_must_not_die_ends_the_wait_when_it_does(
    environ: dict[str, str], tmp_path: Path
) -> None:
    supervisor = Supervisor(environ)
    code = "import sys; print('{\"ready\": 1}', flush=True); sys.exit('the disk is gone')"

    await supervisor.start(role(code, tmp_path, "scheduler"))
    why = await asyncio.wait_for(supervisor.wait(asyncio.Event()), 60)
    await supervisor.stop()

    assert why is not None
    assert "the disk is gone" in why


async def test_a_log_that_grew_large_is_set_aside(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "worker-1.log").write_bytes(b"x" * (5 << 20))

    process = await RoleProcess.start(role(ENDS_WITH_PIPE, tmp_path), environ)
    await process.ready(30)
    await process.stop()

    assert (tmp_path / "worker-1.log").stat().st_size < 1000
    assert (tmp_path / "worker-1.old.log").stat().st_size == 5 << 20


async def test_a_role_that_must_be_there_is_started_anew_when_it_dies(
    environ: dict[str, str], tmp_path: Path
) -> None:
    events: list[str] = []
    came_back = asyncio.Event()
    first = 'import sys; print(\'{"ready": 1, "url": "here"}\', flush=True); sys.exit(\'crashed\')'

    def again(said: dict[str, object]) -> Role:
        assert said["url"] == "here"
        came_back.set()
        return role(ENDS_WITH_PIPE, tmp_path, "scheduler")

    supervisor = Supervisor(environ, on_event=events.append)
    await supervisor.start(role(first, tmp_path, "scheduler"), again)
    await asyncio.wait_for(came_back.wait(), 60)
    await supervisor.stop()

    assert "crashed" in events[0]
