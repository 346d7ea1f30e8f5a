from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cluster.arrays import FrameRange
from cluster.dataserver.live import presence
from cluster.dataserver.live import series as series_module
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.live.noise_steps import rounded
from cluster.dataserver.live.series import AcquiredSeries
from cluster.dataserver.live.staged import StagedChunk
from cluster.dataserver.readers.acquired import AcquiredZarr
from cluster.dataserver.store import SeriesStore
from cluster.errors import Conflict, Forbidden, Invalid, OutOfSpace, Unavailable
from cluster.protocol import NewSeries, NoiseStep, SeriesEvent
from cluster.stored_frames import decode, encode_stored

STACK = np.random.default_rng(5).poisson(120, (21, 12, 16)).astype(np.uint16)


def new(**others: Any) -> NewSeries:
    return NewSeries(height=12, width=16, chunk_frames=4, **others)


@pytest.fixture
def made(tmp_path: Path) -> AcquiredSeries:
    acquisitions = Acquisitions([tmp_path], reserve_bytes=0)
    acquisitions.create("cell.zarr", new(metadata={"voxelsize.x": 0.1, "voxelsize.y": 0.1}))
    return acquisitions.series("cell.zarr")


def opened(folder: Path) -> Any:
    group = zarr.open_group(folder, mode="r")
    path = group.attrs["ome"]["multiscales"][0]["datasets"][0]["path"]  # type: ignore[index,call-overload]
    return group[path]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_zarr_python_reads_what_was_appended_and_what_was_archived(tmp_path: Path, dtype: str) -> None:
    acquisitions = Acquisitions([tmp_path], reserve_bytes=0)
    acquisitions.create("cell.zarr", new(dtype=dtype))
    series = acquisitions.series("cell.zarr")
    stack = STACK.astype(dtype)
    series.append(6, stack[6:])
    series.append(0, stack[:6])
    series.complete(21)

    before = np.asarray(opened(series.folder)[:])
    series.archive()
    after = opened(series.folder)

    assert np.array_equal(before, stack)
    assert after.shards is not None
    assert np.array_equal(np.asarray(after[:]), stack)
    assert not (series.folder / "0").exists()


def test_the_folder_says_in_ome_zarr_what_its_axes_are(made: AcquiredSeries) -> None:
    attributes = json.loads((made.folder / "zarr.json").read_text("utf-8"))["attributes"]
    scales = attributes["ome"]["multiscales"][0]

    assert attributes["ome"]["version"] == "0.5"
    assert [axis["name"] for axis in scales["axes"]] == ["t", "y", "x"]
    assert scales["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [1.0, 0.1, 0.1]}]


def test_a_chunk_that_becomes_whole_while_it_is_looked_for_is_not_taken_for_a_gap(
    made: AcquiredSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.append(0, STACK[:3])
    made.append(4, STACK[4:8])

    def whole_by_now(*arguments: Any) -> StagedChunk:
        monkeypatch.undo()
        made.append(3, STACK[3:4])
        return StagedChunk(*arguments)

    monkeypatch.setattr(presence, "StagedChunk", whole_by_now)
    reader = AcquiredZarr(made.folder)

    frames, lost = reader.read(0, 8)
    assert (reader.shape.frames, reader.shape.missing, lost) == (8, (), ())
    assert np.array_equal(frames, STACK[:8])


def test_an_append_writes_its_chunk_once_and_touches_no_other(made: AcquiredSeries) -> None:
    made.append(0, STACK[:4])
    before = (made.folder / "0" / "c.0.0.0").stat().st_mtime_ns

    made.append(4, STACK[4:12])

    assert sorted(file.name for file in (made.folder / "0").glob("c.*")) == ["c.0.0.0", "c.1.0.0", "c.2.0.0"]
    assert (made.folder / "0" / "c.0.0.0").stat().st_mtime_ns == before
    assert list((made.folder / "staged").iterdir()) == []


def test_a_growing_series_is_listed_and_served_and_its_fingerprint_stays(
    tmp_path: Path, made: AcquiredSeries
) -> None:
    store = SeriesStore([tmp_path])
    made.append(2, STACK[2:7])
    early = store.facts("cell.zarr")
    made.append(0, STACK[:2])
    made.append(7, STACK[7:9])
    made.complete(12)
    late = store.facts("cell.zarr")

    assert (early.frames, early.missing, early.complete) == (7, [(0, 2)], False)
    assert (late.frames, late.missing, late.complete) == (12, [(9, 12)], True)
    assert early.fingerprint == late.fingerprint
    assert late.metadata["voxelsize.x"].source == "acquisition"
    assert [(entry.path, entry.kind) for entry in store.listing("").entries] == [("cell.zarr", "series")]
    read = store.frames("cell.zarr", 0, 12, pinned=early.fingerprint)
    assert np.array_equal(read.frames[:9], STACK[:9])
    assert read.missing == (9, 10, 11)


def _both_ways(root: Path, start: int, stop: int) -> list[FrameRange]:
    """A range as it is read, and as it arrives when it is sent as it lies."""
    store = SeriesStore([root])
    stored = store.stored("cell.zarr", start, stop)
    assert stored is not None
    return [store.frames("cell.zarr", start, stop), decode(b"".join(encode_stored(stored)))]


@pytest.mark.parametrize("state", ["in pieces", "complete", "archived"])
def test_frames_sent_as_they_lie_arrive_as_they_are_read(
    tmp_path: Path, made: AcquiredSeries, state: str
) -> None:
    made.append(0, STACK[:3])
    made.append(5, STACK[5:11])
    if state != "in pieces":
        made.complete(14)
    if state == "archived":
        made.archive()

    for start, stop in [(0, 11), (0, 1), (2, 6), (5, 11), (4, 8)]:
        read, sent = _both_ways(tmp_path, start, stop)
        assert (sent.start, sent.missing) == (read.start, read.missing)
        np.testing.assert_array_equal(sent.frames, read.frames)


def test_a_damaged_chunk_costs_its_frames_and_no_others(tmp_path: Path, made: AcquiredSeries) -> None:
    made.append(0, STACK[:12])
    file = made.folder / "0" / "c.1.0.0"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)

    for read in _both_ways(tmp_path, 0, 12):
        assert read.missing == (4, 5, 6, 7)
        assert not read.frames[4:8].any()
        assert np.array_equal(read.frames[8:], STACK[8:12])


@pytest.mark.parametrize("archived", [False, True])
def test_a_chunk_that_is_gone_is_missing(tmp_path: Path, made: AcquiredSeries, archived: bool) -> None:
    made.append(0, STACK[:12])
    made.complete(12)
    if archived:
        made.archive()
    for file in made.folder.rglob("c.*" if archived else "c.1.0.0"):
        file.unlink()

    for read in _both_ways(tmp_path, 0, 12):
        assert read.missing == (tuple(range(12)) if archived else (4, 5, 6, 7))


def test_the_same_frames_after_completion_are_there_already_and_new_ones_come_too_late(
    made: AcquiredSeries,
) -> None:
    made.append(0, STACK[:6])
    made.complete(None)
    made.complete(6)

    assert made.append(2, STACK[2:6]).new == 0
    with pytest.raises(Conflict, match="complete"):
        made.append(4, STACK[4:8])
    with pytest.raises(Conflict, match="completed with 6"):
        made.complete(7)


def test_a_series_cannot_be_completed_with_fewer_frames_than_came(made: AcquiredSeries) -> None:
    made.append(0, STACK[:6])

    with pytest.raises(Conflict, match="up to 5"):
        made.complete(5)


def test_events_sent_twice_are_there_once_and_a_torn_one_is_dropped(
    tmp_path: Path, made: AcquiredSeries
) -> None:
    first, second = (SeriesEvent(name="E", description=str(n), time=float(n)) for n in range(2))
    assert made.add_events([first]) == 1
    with (made.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"name": "to')

    assert made.add_events([first, second]) == 1

    assert SeriesStore([tmp_path]).events("cell.zarr") == [first, second]


def test_many_threads_append_and_every_frame_is_there(tmp_path: Path, made: AcquiredSeries) -> None:
    order = np.random.default_rng(1).permutation(len(STACK))

    def append_some(mine: Any) -> None:
        for number in mine:
            made.append(int(number), STACK[number : number + 1])
            made.append(int(number), STACK[number : number + 1])

    threads = [threading.Thread(target=append_some, args=(order[first::4],)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert np.array_equal(SeriesStore([tmp_path]).frames("cell.zarr", 0, 21).frames, STACK)


def test_a_disk_that_fills_takes_nothing_and_goes_on_once_there_is_room(
    made: AcquiredSeries, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room = 0
    acquisitions = Acquisitions([tmp_path], reserve_bytes=1000, free=lambda _: room)

    with pytest.raises(OutOfSpace, match="nearly full"):
        acquisitions.create("other.zarr", new())
    room = 1 << 30
    assert acquisitions.create("other.zarr", new())


def test_an_archive_of_a_damaged_series_is_refused_and_leaves_it_as_it_is(made: AcquiredSeries) -> None:
    made.append(0, STACK[:8])
    with pytest.raises(Conflict, match="still grows"):
        made.archive()
    made.complete(8)
    file = made.folder / "0" / "c.0.0.0"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(Conflict, match="damaged"):
        made.archive()

    assert file.exists()
    assert not (made.folder / "archive").exists()


def test_other_programs_see_by_the_arrays_shape_how_far_a_series_has_come(
    made: AcquiredSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_module, "_SHAPE_EVERY_S", 0.0)

    made.append(0, STACK[:8])

    assert np.array_equal(np.asarray(opened(made.folder)[:]), STACK[:8])


def test_a_series_is_made_once_and_another_of_its_name_is_refused(tmp_path: Path) -> None:
    acquisitions = Acquisitions([tmp_path], reserve_bytes=0)

    assert acquisitions.create("day 1/cell.zarr", new()) is True
    assert acquisitions.create("day 1/cell.zarr", new()) is False
    with pytest.raises(Conflict, match="another series"):
        acquisitions.create("day 1/cell.zarr", new(frames=5))


@pytest.mark.parametrize(
    "path", ["cell.tif", "../cell.zarr", ".hidden/cell.zarr", "a.zarr/b.zarr", "/etc/cell.zarr", ""]
)
def test_a_name_that_is_no_series_below_the_roots_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(Invalid):
        Acquisitions([tmp_path], reserve_bytes=0).create(path, new())


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "way").symlink_to(tmp_path / "outside")

    with pytest.raises(Invalid, match="out of the root"):
        Acquisitions([tmp_path / "root"], reserve_bytes=0).create("way/cell.zarr", new())

    assert list((tmp_path / "outside").iterdir()) == []


def test_a_server_that_only_reads_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="--read-only"):
        Acquisitions([tmp_path], allowed=False).create("cell.zarr", new())


def test_a_series_made_anew_under_its_old_name_is_another(tmp_path: Path, made: AcquiredSeries) -> None:
    acquisitions = Acquisitions([tmp_path], reserve_bytes=0)
    acquisitions.series("cell.zarr").append(0, STACK[:4])
    made.folder.rename(tmp_path / "away.zarr")
    acquisitions.create("cell.zarr", new())

    assert acquisitions.series("cell.zarr").append(0, STACK[4:8]).new == 4


def test_a_share_that_fails_is_unavailable(made: AcquiredSeries, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.dataserver.live.durable import clear_failures

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(Unavailable, match="Input/output error"), clear_failures("cell.zarr"):
        made.append(0, STACK[:4])
    monkeypatch.undo()
    assert made.append(0, STACK[:4]).new == 4


def test_rounding_stays_within_the_noise_keeps_order_and_does_not_drift() -> None:
    step = NoiseStep(adu_per_e=2.0, offset_adu=100, read_noise_adu=3.0, step_sigma=0.5)
    values = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)

    once = rounded(values, step)

    noise = np.sqrt(2.0 * np.maximum(values.astype(float) - 100, 0) + 9 + 1.5)
    assert (np.abs(once.astype(float) - values) <= 0.25 * noise * 1.1 + 1).all()
    assert (np.diff(once.ravel().astype(int)) >= 0).all()
    assert np.array_equal(rounded(once, step), once)
    assert len(np.unique(once)) < 2000


def test_a_series_with_rounding_stores_rounded_values_and_knows_them_again(tmp_path: Path) -> None:
    step = NoiseStep(adu_per_e=4.0, offset_adu=90)
    acquisitions = Acquisitions([tmp_path], reserve_bytes=0)
    acquisitions.create("cell.zarr", new(lossy=step))
    series = acquisitions.series("cell.zarr")

    series.append(0, STACK[:8])

    assert series.append(0, STACK[:8]).new == 0
    assert np.array_equal(SeriesStore([tmp_path]).frames("cell.zarr", 0, 8).frames, rounded(STACK[:8], step))
    assert series.record.created.lossy == step
