"""What is logged is one line, and no terminal obeys it: names come from anywhere."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest

from cluster.commands import console
from cluster.commands.unhurried import Unhurried
from cluster.log_format import OneLine


def formatted(message: str, *arguments: object, **more: object) -> str:
    record = logging.LogRecord("x", logging.INFO, "file", 1, message, arguments, more.get("exc_info"))  # type: ignore[arg-type]
    return OneLine("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("cell 1\nERROR all is lost", r"cell 1\nERROR all is lost"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\rb\x00\x9b31m", r"a\rb\x00\x9b31m"),
        ("abc\u202etxt", r"abc\u202etxt"),
        ("µ-cell 日本 é", "µ-cell 日本 é"),
    ],
)
def test_a_name_cannot_write_lines_of_its_own(name: str, written: str) -> None:
    assert formatted("job %s is queued", name) == f"INFO job {written} is queued"


def test_what_a_command_says_keeps_its_lines_and_gives_no_order_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.say("two lines:\nApprove \x1b[2Jpc\u202e?")

    assert capsys.readouterr().err == "two lines:\nApprove \\x1b[2Jpc\\u202e?\n"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        int("no\nno")
    except ValueError:
        lines = formatted("failed", exc_info=sys.exc_info()).splitlines()

    assert lines[0] == "INFO failed"
    assert lines[1].startswith("Traceback")


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
        yield reading, stream
        os.close(reading)


def record(number: int) -> logging.LogRecord:
    return logging.LogRecord(
        "x", logging.INFO, "file", 1, "line %s of many that nobody reads", (number,), None
    )


def test_nobody_waits_for_a_pipe_that_nobody_reads(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    handler = Unhurried(stream, most_waiting=100)

    def log() -> None:
        for number in range(20_000):  # many times what a pipe holds
            handler.emit(record(number))

    logging_thread = threading.Thread(target=log, daemon=True)
    logging_thread.start()
    logging_thread.join(20.0)
    came_through = not logging_thread.is_alive()

    # somebody begins to read: what waited is written, and how much was dropped is said with the next line
    found = b""
    while b"were dropped" not in found:
        handler.emit(record(-1))
        found += os.read(reading, 1 << 16)
    lines = found.decode().splitlines()

    assert came_through
    assert lines[0] == "line 0 of many that nobody reads"
    assert len(lines) < 15_000


def test_at_the_end_all_lines_are_written(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    handler = Unhurried(stream)
    for number in range(100):
        handler.emit(record(number))

    handler.flush()

    assert os.read(reading, 1 << 16).decode().splitlines()[-1] == "line 99 of many that nobody reads"
