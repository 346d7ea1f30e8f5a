from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from cluster.dataserver.open_readers import OpenReaders
from cluster.dataserver.readers.interface import Frames, SeriesShape
from cluster.dataserver.store import MAX_REQUEST_BYTES, SeriesStore
from cluster.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from cluster.protocol import SeriesEvent

STACK = np.arange(5 * 8 * 10, dtype=np.uint16).reshape(5, 8, 10)


class FakeReader:
    """One black frame; knows whether it is open."""

    def __init__(self, path: Path) -> None:
        self.files = (path,)
        self.open = True
        self.shape = SeriesShape(format="fake", height=1, width=1, dtype=np.dtype("u1"), frames=1)

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        assert self.open, "read after close"
        return np.zeros((stop - start, 1, 1), np.uint8), ()

    def events(self) -> list[SeriesEvent]:
        return []

    def close(self) -> None:
        self.open = False


class Opener:
    """Remembers every reader it made."""

    def __init__(self) -> None:
        self.made: list[FakeReader] = []

    def __call__(self, path: Path) -> FakeReader:
        self.made.append(FakeReader(path))
        return self.made[-1]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{number}.tif" for number in range(5)]
    for file in made:
        file.write_bytes(b"x")
    return made


def test_a_series_is_opened_once_and_used_again(files: list[Path]) -> None:
    opener = Opener()
    readers = OpenReaders(opener, now=lambda: 0.0)

    for _ in range(3):
        with readers.using(files[0]):
            pass

    assert len(opener.made) == 1


def test_the_least_recently_used_is_closed_when_there_are_too_many(files: list[Path]) -> None:
    opener = Opener()
    readers = OpenReaders(opener, now=lambda: 0.0, limit=2)

    for number in (0, 1, 0, 2):
        with readers.using(files[number]):
            pass

    assert [reader.open for reader in opener.made] == [True, False, True]
    assert len(readers) == 2


def test_one_in_use_is_closed_only_when_its_user_is_done(files: list[Path]) -> None:
    opener = Opener()
    readers = OpenReaders(opener, now=lambda: 0.0, limit=1)

    with readers.using(files[0]) as series:
        with readers.using(files[1]):
            series.reader.read(0, 1)
        assert opener.made[0].open

    assert not opener.made[0].open


def test_an_idle_series_is_closed_and_a_used_one_kept(files: list[Path]) -> None:
    now = 0.0
    opener = Opener()
    readers = OpenReaders(opener, now=lambda: now, idle_s=60.0)
    for number in (0, 1):
        with readers.using(files[number]):
            pass

    now = 59.0
    with readers.using(files[1]):
        pass
    now = 61.0
    readers.close_idle()

    assert [reader.open for reader in opener.made] == [False, True]


def test_a_changed_file_is_opened_anew(files: list[Path]) -> None:
    opener = Opener()
    readers = OpenReaders(opener, now=lambda: 0.0)
    with readers.using(files[0]) as first:
        before = first.fingerprint

    files[0].write_bytes(b"other")
    with readers.using(files[0]) as second:
        after = second.fingerprint

    assert before != after
    assert [reader.open for reader in opener.made] == [False, True]


def test_many_threads_open_a_series_once_and_nobody_reads_a_closed_one(files: list[Path]) -> None:
    opener = Opener()
    readers = OpenReaders(opener, now=lambda: 0.0, limit=2)
    faults: list[BaseException] = []

    def use(seed: int) -> None:
        try:
            for step in range(200):
                with readers.using(files[(seed * 7 + step * 3) % 5]) as series:
                    series.reader.read(0, 1)
        except BaseException as fault:  # noqa: BLE001 - handed to the test
            faults.append(fault)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    readers.close()

    assert faults == []
    assert not any(reader.open for reader in opener.made)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    made = SeriesStore([tmp_path])
    yield made
    made.close()


def test_facts_merge_sidecars_over_the_file(tmp_path: Path, store: SeriesStore) -> None:
    tifffile.imwrite(
        tmp_path / "b.tif", STACK, imagej=True, resolution=(10, 10), metadata={"axes": "TYX", "unit": "um"}
    )
    (tmp_path / "b.json").write_text('{"voxelsize.x": 0.2}', encoding="utf-8")

    facts = store.facts("b.tif")

    found = {key: (value.value, value.source) for key, value in facts.metadata.items()}
    assert found == {"voxelsize.x": (0.2, "sidecar b.json"), "voxelsize.y": (0.1, "file")}
    assert (facts.frames, facts.height, facts.width, facts.dtype) == (5, 8, 10, "uint16")
    assert facts.bytes == (tmp_path / "b.tif").stat().st_size


def test_a_sidecar_written_later_is_seen_and_leaves_the_fingerprint_alone(
    tmp_path: Path, store: SeriesStore
) -> None:
    before = store.facts("a.tif")

    (tmp_path / "a.json").write_text('{"Camera.ADOffset": 3}', encoding="utf-8")
    after = store.facts("a.tif")

    assert before.metadata == {}
    assert after.metadata["Camera.ADOffset"].value == 3
    assert after.fingerprint == before.fingerprint


def test_frames_of_a_file_replaced_since_are_a_conflict(tmp_path: Path, store: SeriesStore) -> None:
    pinned = store.facts("a.tif").fingerprint
    assert store.frames("a.tif", 0, 5, pinned=pinned).missing == ()

    tifffile.imwrite(tmp_path / "a.tif", STACK + 1)

    with pytest.raises(Conflict, match="the file changed"):
        store.frames("a.tif", 0, 5, pinned=pinned)


def test_a_file_that_keeps_its_size_but_not_its_time_is_another(tmp_path: Path, store: SeriesStore) -> None:
    pinned = store.facts("a.tif").fingerprint

    os.utime(tmp_path / "a.tif", ns=(1, 1))

    with pytest.raises(Conflict):
        store.frames("a.tif", 0, 1, pinned=pinned)


def test_a_series_that_grows_keeps_its_identity_and_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_growing(path: Path) -> FakeReader:
        reader = FakeReader(path)
        frames = path.stat().st_size
        reader.shape = replace(reader.shape, frames=frames, complete=frames > 2, identity="its own")
        return reader

    monkeypatch.setattr("cluster.dataserver.store.open_series", open_growing)
    store = SeriesStore([tmp_path])
    (tmp_path / "grows.tif").write_bytes(b"x")
    early = store.facts("grows.tif")

    (tmp_path / "grows.tif").write_bytes(b"xxx")
    late = store.facts("grows.tif")

    assert (early.frames, early.complete, late.frames, late.complete) == (1, False, 3, True)
    assert early.fingerprint == late.fingerprint == "its own"
    assert len(store.frames("grows.tif", 0, 3, pinned=early.fingerprint).frames) == 3


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (5, 6), (3, 3), (4, 2), (-1, 2)])
def test_a_range_outside_the_series_is_refused_and_the_range_there_is_named(
    store: SeriesStore, start: int, stop: int
) -> None:
    with pytest.raises(Invalid, match="frames 0 to 4"):
        store.frames("a.tif", start, stop)


def _sparse_raw(folder: Path, frames: int) -> int:
    """Write a file that claims gigabytes and takes none; return the size of a frame."""
    frame_bytes = 512 * 512 * 2
    with (folder / "huge.raw").open("wb") as file:
        file.truncate(frames * frame_bytes)
        file.seek((frames - 1) * frame_bytes)
        file.write(b"\x07\x00" * 10)
    described = f"Byte Order: <\nData Type: uint16\nFrames: {frames}\nHeight: 512\nWidth: 512\n"
    (folder / "huge.yaml").write_text(described, encoding="utf-8")
    return frame_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system with holes")
def test_twenty_gigabytes_open_and_serve_their_last_frame_in_little_memory(
    tmp_path: Path, store: SeriesStore
) -> None:
    frames = 41_000
    _sparse_raw(tmp_path, frames)
    before = psutil.Process().memory_info().rss

    facts = store.facts("huge.raw")
    last = store.frames("huge.raw", frames - 1, frames)

    assert facts.bytes > 20 << 30
    assert int(last.frames[0, 0, :10].sum()) == 70
    assert psutil.Process().memory_info().rss - before < 32 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system with holes")
def test_too_large_a_range_is_refused_with_the_largest_there_is(tmp_path: Path, store: SeriesStore) -> None:
    frame_bytes = _sparse_raw(tmp_path, 1000)
    most = MAX_REQUEST_BYTES // frame_bytes

    with pytest.raises(TooLarge, match=f"at most {most} at a time") as refusal:
        store.frames("huge.raw", 0, most + 1)

    assert refusal.value.facts["most_frames"] == most
    assert store.extent("huge.raw", 10, 10 + most) == (10, 10 + most, most * frame_bytes)


def test_missing_frames_of_a_truncated_file_are_listed_in_each_range(
    tmp_path: Path, store: SeriesStore
) -> None:
    (tmp_path / "cut.raw").write_bytes(STACK.tobytes()[:-10])
    (tmp_path / "cut.yaml").write_text(
        "Byte Order: <\nData Type: uint16\nFrames: 6\nHeight: 8\nWidth: 10\n", encoding="utf-8"
    )

    assert store.facts("cut.raw").missing == [(4, 6)]
    assert store.frames("cut.raw", 0, 6).missing == (4, 5)
    assert store.frames("cut.raw", 0, 4).missing == ()


def test_a_share_that_fails_for_a_moment_is_unavailable_not_lost_frames(
    store: SeriesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("cluster.dataserver.readers.tiff_pages.read_into", fails)

    with pytest.raises(Unavailable, match=r"a\.tif cannot be read now: Input/output error"):
        store.frames("a.tif", 0, 1)


def test_a_listing_shows_folders_and_series_and_hides_the_rest(tmp_path: Path, store: SeriesStore) -> None:
    for folder in ("cells", "analysis", ".hidden"):
        (tmp_path / folder).mkdir()
    for name in ("b.TIF", "c.h5", "r.h5r", "x_locs.hdf5", "notes.txt", ".d.tif", "analysis/e.h5r"):
        (tmp_path / name).write_bytes(b"x")

    listing = store.listing("")

    assert [(entry.path, entry.kind) for entry in listing.entries] == [
        ("a.tif", "series"),
        ("b.TIF", "series"),
        ("c.h5", "series"),
        ("cells", "folder"),
    ]
    assert listing.entries[1].bytes == 1


def test_a_listing_merges_roots_and_names_paths_from_the_root(tmp_path: Path) -> None:
    for root, name in (("one", "a.tif"), ("two", "a.tif"), ("two", "b.tif")):
        (tmp_path / root / "day 1").mkdir(parents=True, exist_ok=True)
        (tmp_path / root / "day 1" / name).write_bytes(root.encode())
    store = SeriesStore([tmp_path / "one", tmp_path / "two"])

    entries = store.listing("day 1").entries

    assert [(entry.path, entry.bytes) for entry in entries] == [("day 1/a.tif", 3), ("day 1/b.tif", 3)]


def test_a_folder_of_results_that_also_holds_series_is_listed(tmp_path: Path, store: SeriesStore) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "f.tif").write_bytes(b"x")

    assert "analysis" in [entry.path for entry in store.listing("").entries]


def test_a_folder_that_is_not_there_is_not_found_and_an_absent_root_is_empty(tmp_path: Path) -> None:
    store = SeriesStore([tmp_path / "away"])

    assert store.listing("").entries == []
    with pytest.raises(NotFound):
        store.listing("none")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_listing_does_not_show_links_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "root" / "way out").symlink_to(tmp_path / "secret")

    assert SeriesStore([tmp_path / "root"]).listing("").entries == []


def test_a_listing_for_settings_shows_calibrations_and_where_results_lie(
    tmp_path: Path, store: SeriesStore
) -> None:
    (tmp_path / "shifts.json").write_text("{}", encoding="utf-8")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "analysis").mkdir()

    listed = {entry.path: entry.kind for entry in store.listing("", calibrations=True).entries}

    assert listed["shifts.json"] == "calibration"
    assert listed["analysis"] == "folder"
    assert "notes.txt" not in listed
    assert "shifts.json" not in {entry.path for entry in store.listing("").entries}
