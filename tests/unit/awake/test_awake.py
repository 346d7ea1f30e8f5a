"""The computer is kept awake while there is work, and nothing comes of it where it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster import awake
from cluster.awake import LINGER_S, LOOK_EVERY_S, held_awake, held_by, stay_awake_while

pytestmark = pytest.mark.anyio
ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


class Bed:
    """Notes when the computer was kept awake and when it was let go."""

    def __init__(self, means: str | None = "test") -> None:
        self.means = means
        self.log: list[str] = []

    @contextlib.contextmanager
    def hold(self) -> Iterator[str | None]:
        self.log.append("held")
        try:
            yield self.means
        finally:
            self.log.append("let go")


async def watched(busy: list[bool], hold: Callable[..., Any]) -> None:
    """Look as often as `busy` says, which is what it finds; then stop."""
    left = list(busy)
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert seconds == LOOK_EVERY_S
        if not left:
            over.set()
            await asyncio.Event().wait()

    watching = asyncio.create_task(stay_awake_while(lambda: left.pop(0), hold=hold, sleep=sleep))
    ended = asyncio.create_task(over.wait())
    await asyncio.wait({watching, ended}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert not watching.done(), watching.result()
    watching.cancel()
    await asyncio.wait({watching}, timeout=10)


async def test_it_is_held_once_while_there_is_work_and_let_go_at_the_end() -> None:
    bed = Bed()

    await watched([False, True, True, True], bed.hold)

    assert bed.log == ["held", "let go"]


async def test_without_work_it_is_not_held_at_all() -> None:
    bed = Bed()

    await watched([False] * 5, bed.hold)

    assert bed.log == []


async def test_the_moment_between_two_tasks_does_not_let_it_go_and_a_minute_does() -> None:
    bed, quiet = Bed(), int(LINGER_S / LOOK_EVERY_S)

    await watched([True, *[False] * (quiet - 1), True, *[False] * (quiet + 3), True], bed.hold)

    assert bed.log == ["held", "let go", "held", "let go"]


async def test_by_which_means_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    bed, quiet = Bed("caffeinate"), int(LINGER_S / LOOK_EVERY_S)

    with caplog.at_level(logging.INFO, logger="cluster.awake"):
        await watched([True, *[False] * quiet, True], bed.hold)

    assert [record.getMessage() for record in caplog.records] == [
        "this computer is kept awake while it works (caffeinate)"
    ]


@pytest.mark.parametrize("fault", [None, OSError("no bus"), ImportError("no wakepy")])
async def test_a_computer_that_cannot_be_kept_awake_is_said_once_and_nothing_fails(
    caplog: pytest.LogCaptureFixture, fault: Exception | None
) -> None:
    def hold() -> Any:
        if fault is not None:
            raise fault
        return Bed(None).hold()

    with caplog.at_level(logging.INFO, logger="cluster.awake"):
        await watched([True, True, True], hold)

    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert "cannot be kept awake" in said.getMessage()


async def test_a_means_that_fails_when_it_is_let_go_fails_nothing() -> None:
    @contextlib.contextmanager
    def hold() -> Iterator[str | None]:
        yield "test"
        raise RuntimeError("the bus is gone")

    await watched([True], hold)


def test_the_real_means_can_be_asked_for_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "WAKEPY_FAKE_SUCCESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(awake, "_LOGIND", ("no-such-command",))

    with held_awake() as means:
        assert means is None or sys.platform in {"win32", "darwin"}


def test_what_the_desktop_offers_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "WAKEPY_FAKE_SUCCESS", "yes"
    )  # the library's own switch for computers without a desktop

    with held_awake() as means:
        assert means == "WakepyFakeSuccess"


def test_a_command_that_runs_holds_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def noted(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(real(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)

    with held_by((sys.executable, "-c", ECHO)) as means:
        assert means == sys.executable
        assert started[0].poll() is None
    assert started[0].poll() == 0


@pytest.mark.parametrize(
    "command", [("no-such-command-anywhere",), (sys.executable, "-c", "raise SystemExit(1)")]
)
def test_a_command_that_is_not_there_or_refused_holds_nothing(command: tuple[str, ...]) -> None:
    with held_by(command) as means:
        assert means is None
