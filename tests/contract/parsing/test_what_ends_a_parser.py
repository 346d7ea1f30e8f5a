"""A file may end, hold up or fill the process that parses it; the data server says so, and serves the others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from cluster.dataserver.parsing.limits import Limits
from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.store import SeriesStore
from cluster.errors import Invalid, Unavailable

PROGRAM = (sys.executable, str(Path(__file__).with_name("hostile_program.py")))
QUICK = Limits(base_s=1.5, read_s_per_mb=0.0, memory_bytes=300 << 20)
STACK = np.random.default_rng(5).integers(80, 200, (40, 64, 80)).astype(np.uint16)
Made = Callable[..., Parsers]


@pytest.fixture
def made() -> Iterator[Made]:
    there: list[Parsers] = []

    def make(limits: Limits = QUICK, **options: object) -> Parsers:
        there.append(Parsers(limits, program=PROGRAM, **options))  # type: ignore[arg-type]
        return there[-1]

    yield make
    for parsers in there:
        parsers.close()


@pytest.fixture(scope="module")
def living() -> Iterator[Parsers]:
    """For what ends no process."""
    parsers = Parsers(replace(QUICK, base_s=60.0), program=PROGRAM)
    yield parsers
    parsers.close()


def hostile(folder: Path, does: str, name: str = "bad") -> Path:
    path = folder / f"{name}.hostile"
    path.write_text(does, "utf-8")
    return path


def noted(path: Path, what: str) -> int:
    log = path.with_suffix(".log")
    return log.read_text("utf-8").split().count(what) if log.exists() else 0


ENDS = [
    ("abort open", Invalid, "SIGABRT"),
    ("segfault 3", Invalid, "SIGSEGV"),
    ("leave open", Invalid, "status 3"),
    ("eat open", Invalid, "took more than 300 MB of memory"),
    ("spin 3", Invalid, r"took more than \d+ s and was stopped: the file may be damaged"),
    ("sleep open", Unavailable, "disk or share"),
]
LONGER = [
    ("abort 3", Invalid, "SIGABRT"),
    ("segfault open", Invalid, "SIGSEGV"),
    ("eat 3", Invalid, "300 MB of memory"),
    ("spin open", Invalid, r"took more than \d+ s and was stopped"),
    ("sleep 3", Unavailable, "disk or share"),
    ("hold_the_lock open", Unavailable, "disk or share"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="processes end in other ways there")
@pytest.mark.parametrize(
    ("does", "kind", "reason"),
    [
        *(pytest.param(*case, id=case[0]) for case in ENDS),
        *(pytest.param(*case, id=case[0], marks=pytest.mark.slow) for case in LONGER),
    ],
)
def test_it_is_said_of_which_file_and_what_happened_and_it_is_not_tried_again(
    tmp_path: Path, made: Made, does: str, kind: type[Exception], reason: str
) -> None:
    path = hostile(tmp_path, does)
    tifffile.imwrite(tmp_path / "good.tif", STACK, compression="zlib")
    store = SeriesStore([tmp_path], parsers=made())

    with pytest.raises(kind, match=reason) as first:
        store.frames("bad.hostile", 0, 10)
    tries = noted(path, "open")
    began = time.monotonic()
    with pytest.raises(kind) as second:
        store.frames("bad.hostile", 0, 10)

    assert "bad.hostile" in str(first.value)
    assert str(second.value) == str(first.value)
    assert time.monotonic() - began < 0.5
    assert noted(path, "open") == tries
    np.testing.assert_array_equal(store.frames("good.tif", 0, 40).frames, STACK)
    store.close()


def test_a_file_that_was_mended_is_tried_again(tmp_path: Path, made: Made) -> None:
    path = hostile(tmp_path, "abort open")
    store = SeriesStore([tmp_path], parsers=made())
    with pytest.raises(Invalid):
        store.facts("bad.hostile")

    path.write_text("nothing", "utf-8")

    assert store.facts("bad.hostile").frames == 10
    store.close()


@pytest.mark.slow
def test_a_share_that_did_not_answer_is_asked_again_after_a_while(tmp_path: Path, made: Made) -> None:
    now = 0.0
    path = hostile(tmp_path, "sleep open")
    parsers = made(now=lambda: now)
    for _ in range(2):
        with pytest.raises(Unavailable, match="again in 120 s"):
            parsers.open(path)
    assert noted(path, "open") == 1

    now = 121.0
    with pytest.raises(Unavailable):
        parsers.open(path)

    assert noted(path, "open") == 2


def test_others_that_are_being_read_never_notice(tmp_path: Path, made: Made) -> None:
    tifffile.imwrite(tmp_path / "good.tif", STACK, compression="zlib")
    hostile(tmp_path, "nothing", "good too")
    for number, does in enumerate(("abort 3", "segfault 5", "leave open")):
        hostile(tmp_path, does, f"bad {number}")
    store = SeriesStore([tmp_path], parsers=made(replace(QUICK, base_s=30.0)))
    store.frames("good.tif", 0, 1)
    stop = time.monotonic() + 1.0
    refused: list[str] = []

    def read_good(seed: int) -> int:
        read = 0
        while time.monotonic() < stop or read < 5:
            at = (seed * 7 + read * 3) % 35
            found = store.frames("good.tif", at, at + 5)
            np.testing.assert_array_equal(found.frames, STACK[at : at + 5])
            assert found.missing == ()
            assert store.frames("good too.hostile", 4, 5).frames[0, 0, 0] == 4
            read += 1
        return read

    def read_bad(number: int) -> None:
        for _ in range(3):
            with pytest.raises(Invalid, match=f"bad {number}") as said:
                store.frames(f"bad {number}.hostile", 0, 10)
            refused.append(str(said.value))

    with ThreadPoolExecutor(8) as threads:
        good = [threads.submit(read_good, seed) for seed in range(3)]
        bad = [threads.submit(read_bad, number) for number in range(3)]
        counts = [one.result() for one in good]
        for one in bad:
            one.result()

    assert min(counts) >= 5
    assert len(refused) == 9
    assert len(set(refused)) == 3
    store.close()


@pytest.mark.slow
def test_who_waits_behind_a_loop_is_not_the_one_that_is_blamed(tmp_path: Path, made: Made) -> None:
    """The patient one has the shorter time, and does nothing: the one that computes is the cause."""
    busy, patient = hostile(tmp_path, "spin 3", "busy"), hostile(tmp_path, "nothing", "patient")
    parsers = made(replace(QUICK, base_s=2.0))
    first, second = parsers.open(busy), parsers.open(patient)
    blamed: list[str] = []

    def read_busy() -> None:
        with pytest.raises(Invalid) as said:
            first.read(0, 10)
        blamed.append(str(said.value))

    thread = threading.Thread(target=read_busy)
    thread.start()
    while not blamed:
        frames, missing = second.read(0, 10)
        assert (len(frames), missing) == (10, ())
    thread.join()

    assert "busy.hostile" in blamed[0]
    assert second.read(2, 3)[0][0, 0, 0] == 2


def test_a_parser_that_is_killed_from_outside_costs_nobody_a_frame(tmp_path: Path, made: Made) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    parsers = made()
    reader = parsers.open(tmp_path / "a.tif")
    before = parsers.pid
    psutil.Process(before).kill()

    frames, missing = reader.read(3, 30)

    np.testing.assert_array_equal(frames, STACK[3:30])
    assert missing == ()
    assert parsers.open(tmp_path / "a.tif").read(0, 2)[1] == ()
    assert parsers.pid != before


def test_a_series_that_changed_meanwhile_is_not_read_as_if_it_had_not(tmp_path: Path, made: Made) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    parsers = made()
    reader = parsers.open(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", STACK[:7], compression="zlib")
    psutil.Process(parsers.pid).kill()

    with pytest.raises(Unavailable, match=r"a\.tif changed just now"):
        reader.read(0, 3)


def test_a_read_larger_than_the_shared_memory_comes_whole(tmp_path: Path, living: Parsers) -> None:
    stack = np.random.default_rng(1).integers(0, 60000, (40, 512, 500)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="zlib", compressionargs={"level": 1})
    reader = living.open(tmp_path / "a.tif")

    frames, missing = reader.read(0, 40)

    np.testing.assert_array_equal(frames, stack)
    assert missing == ()


def test_what_a_reader_raises_is_told_and_the_process_stays(tmp_path: Path, living: Parsers) -> None:
    parsers = living
    before = parsers.pid

    with pytest.raises(Invalid, match=r"bad\.hostile .*ZeroDivisionError: what no reader should raise"):
        parsers.open(hostile(tmp_path, "raise_something open"))
    with pytest.raises(Unavailable, match="Input/output error"):
        parsers.open(hostile(tmp_path, "fail_for_a_moment open"))
    with pytest.raises(OSError, match="Input/output error"):
        parsers.open(hostile(tmp_path, "fail_for_a_moment 3")).read(0, 5)

    assert parsers.pid == before
    psutil.Process(before)


def test_what_a_library_prints_is_no_answer(tmp_path: Path, living: Parsers) -> None:
    reader = living.open(hostile(tmp_path, "print_something open"))

    assert reader.read(4, 6)[0][:, 0, 0].tolist() == [4, 5]
    assert [event.description for event in reader.events()] == ["ü"]


def test_a_series_is_opened_once_and_closed(tmp_path: Path, living: Parsers) -> None:
    path = hostile(tmp_path, "nothing")
    reader = living.open(path)

    for frame in range(5):
        reader.read(frame, frame + 1)
    reader.close()

    assert (noted(path, "open"), noted(path, "close")) == (1, 1)


def test_memory_is_looked_at_where_the_system_sets_no_limit(tmp_path: Path, made: Made) -> None:
    limits = replace(QUICK, memory_bytes=200 << 20, watches_memory=True)
    parsers = made(replace(limits, base_s=30.0), now=time.monotonic)

    with pytest.raises(Invalid, match="more than 200 MB of memory"):
        parsers.open(hostile(tmp_path, "eat open"))


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_the_process_dumps_no_core_and_is_not_forked_from_this_one(living: Parsers, tmp_path: Path) -> None:
    import resource

    parsers = living
    parsers.open(hostile(tmp_path, "nothing"))
    process = psutil.Process(parsers.pid)

    if sys.platform == "linux":
        assert process.rlimit(resource.RLIMIT_CORE) == (1, 1)
        assert process.rlimit(resource.RLIMIT_DATA)[0] < (300 << 20) + (1 << 30)
    assert process.cmdline()[1:2] == [PROGRAM[1]]


def test_a_process_that_does_not_start_is_nobody_s_file_s_fault(tmp_path: Path) -> None:
    parsers = Parsers(QUICK, program=(sys.executable, "-c", "raise SystemExit(1)"))

    for _ in range(2):
        with pytest.raises(Unavailable, match="does not start"):
            parsers.open(hostile(tmp_path, "nothing"))
    parsers.close()


def test_closing_ends_the_process_also_while_it_is_busy(tmp_path: Path, made: Made) -> None:
    parsers = made(replace(QUICK, base_s=60.0))
    path = hostile(tmp_path, "hold_the_lock open")
    said: list[BaseException] = []

    def opening() -> None:
        try:
            parsers.open(path)
        except Unavailable as error:
            said.append(error)

    thread = threading.Thread(target=opening)
    thread.start()
    until(lambda: noted(path, "open") == 1)
    process = psutil.Process(parsers.pid)

    parsers.close()
    thread.join(20)

    assert not process.is_running()
    assert [str(error) for error in said] == ["the data server is stopping"]


OWNER = """
import sys, time
from pathlib import Path
from cluster.dataserver.parsing.parsers import Parsers
parsers = Parsers(program=sys.argv[1:3])
reader = parsers.open(Path(sys.argv[3]))
print(parsers.pid, flush=True)
if len(sys.argv) > 4:
    reader.read(0, 10)
time.sleep(600)
"""


@pytest.mark.parametrize("busy", [False, True])
def test_it_leaves_when_the_data_server_was_killed(tmp_path: Path, busy: bool) -> None:
    path = hostile(tmp_path, "spin 3")
    command = [sys.executable, "-c", OWNER, *PROGRAM, str(path), *(["read"] if busy else [])]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
    assert owner.stdout is not None
    parser = psutil.Process(int(owner.stdout.readline()))
    until(lambda: not busy or noted(path, "read") == 1)

    owner.kill()
    owner.wait()
    owner.stdout.close()

    until(lambda: not parser.is_running() or parser.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_it_leaves_by_itself_when_it_is_stuck_and_nobody_is_there(tmp_path: Path, made: Made) -> None:
    """Held up in C, it cannot hear that its pipe has ended."""
    parsers = made(replace(QUICK, base_s=60.0, stuck_s=1.0))
    path = hostile(tmp_path, "hold_the_lock open")

    with pytest.raises(Invalid, match=r"bad\.hostile"):
        parsers.open(path)

    assert noted(path, "open") == 2


def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
