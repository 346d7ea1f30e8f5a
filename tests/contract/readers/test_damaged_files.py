"""Small sound files of every format with bytes changed, lost and put in: refused in words or read, and nothing else.

They are opened as a data server opens them. That the process which parses them lives through it is asked too: not where
HDF5 itself parses, of which nobody promises that.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.dataserver.parsing.limits import Limits
from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.readers.registry import file_on_disk
from cluster.dataserver.store import SeriesStore
from cluster.errors import Invalid, NotFound, TooLarge, Unavailable

LIMITS = replace(Limits(), base_s=20.0, memory_bytes=512 << 20)
BOUND_S = 15.0
MOST_BYTES = 32 << 20
TELLING = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", b"\0\0\0\1", b"-1", b"9" * 19, b"\n"]  # fmt: skip

Change = tuple[int, float, str, bytes]
changes = st.lists(
    st.tuples(
        st.integers(0, 99),
        st.floats(0, 1),
        st.sampled_from(["write", "write", "write", "insert", "delete", "cut"]),
        st.one_of(st.sampled_from(TELLING), st.binary(min_size=1, max_size=8)),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def parsers() -> Iterator[Parsers]:
    made = Parsers(LIMITS)
    yield made
    made.close()


class Damaged:
    """A sound series, of which a damaged copy can be had again and again."""

    def __init__(self, folder: Path, kind: Any, written: Any) -> None:
        sound = folder / "sound"
        sound.mkdir()
        path = kind.write(sound, written)
        (sound / "series.json").write_text('{"Camera": {"ADOffset": 100, "Name": "a"}, "x": [1, 2]}', "utf-8")
        (sound / "series.md").write_text("md['Camera.ReadNoise'] = 1.5\nmd['y'] = (1, 2)\n", "utf-8")
        self._sound = {
            file.relative_to(sound): file.read_bytes() for file in sorted(sound.rglob("*")) if file.is_file()
        }
        self.root = folder / "root"
        self.name = path.relative_to(sound).as_posix()
        self._described = [name for name in self._sound if len(self._sound[name]) < 4096]

    def make(self, wanted: list[Change]) -> None:
        content = {name: bytearray(data) for name, data in self._sound.items()}
        names = [*content, *self._described]  # what describes is looked at more closely
        for number, place, what, new in wanted:
            data = content[names[number % len(names)]]
            at = int(place * place * len(data))  # headers come first, mostly
            match what:
                case "write":
                    data[at : at + len(new)] = new
                case "insert":
                    data[at:at] = new
                case "delete":
                    del data[at : at + len(new)]
                case _:
                    del data[at:]
        shutil.rmtree(self.root, ignore_errors=True)
        for name, data in content.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(data)


def use(store: SeriesStore, name: str) -> None:
    """Everything that can be asked of a series."""
    facts = store.facts(name)
    frame_bytes = facts.height * facts.width * {"uint8": 1, "uint16": 2, "float32": 4}[facts.dtype]
    stop = min(facts.frames, 40, MOST_BYTES // frame_bytes)
    if stop:
        found = store.frames(name, 0, stop, pinned=facts.fingerprint)
        assert found.frames.shape == (stop, facts.height, facts.width)
        assert found.frames.dtype == facts.dtype
        assert set(found.missing) <= set(range(stop))
    assert len(store.events(name)) == facts.events
    with contextlib.suppress(NotFound):  # whose frames do not lie as they are served
        store.place(name)


def check(damaged: Damaged, parsers: Parsers, wanted: list[Change]) -> None:
    damaged.make(wanted)
    before, began = parsers.pid, time.monotonic()
    store = SeriesStore([damaged.root], parsers=parsers)
    said = ""
    try:
        store.listing("")
        use(store, damaged.name)
    except (Invalid, NotFound, TooLarge, Unavailable) as error:
        said = error.detail
    finally:
        store.close()

    assert time.monotonic() - began < BOUND_S
    assert "its parser failed" not in said
    is_hdf5 = file_on_disk(damaged.root / damaged.name).suffix == ".h5"
    assert is_hdf5 or (parsers.pid == before and "was stopped" not in said), said


ROOM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=6, deadline=None, suppress_health_check=ROOM)
@given(wanted=changes)
def test_a_damaged_file_is_refused_or_read(damaged: Damaged, parsers: Parsers, wanted: list[Change]) -> None:
    check(damaged, parsers, wanted)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=ROOM)
@given(wanted=changes)
def test_many_damaged_files_are_refused_or_read(
    damaged: Damaged, parsers: Parsers, wanted: list[Change]
) -> None:
    check(damaged, parsers, wanted)


@pytest.fixture
def damaged(kind: Any, frames_of: Callable[..., Any], tmp_path: Path) -> Damaged:
    return Damaged(tmp_path, kind, frames_of(frames=5))
