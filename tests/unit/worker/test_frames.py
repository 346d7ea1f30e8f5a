"""Fetching in bounded pieces, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays import FrameRange
from cluster.errors import Conflict, Invalid
from cluster.fingerprint import fingerprint
from cluster.job_calibrations import PSF_SCALE, digest
from cluster.protocol import CalibrationFile, DataServerInfo, FrameRun, JobSpec, SeriesFacts, SeriesPlace
from cluster.threads import DaemonThread
from cluster.worker import frames as frames_module
from cluster.worker.direct import shares_of
from cluster.worker.frames import FrameSource, pieces
from fitting.shift_field import ShiftField

pytestmark = pytest.mark.anyio
MakeSpec = Callable[..., JobSpec]


class FakeServers:
    """Frames whose pixels are their numbers; says what it was asked for."""

    def __init__(self, make: Callable[..., FrameRange]) -> None:
        self.asked: list[tuple[str, int, int, str]] = []
        self.missing: set[int] = set()
        self.facts_of: dict[str, int] = {}
        self.place_of: tuple[SeriesPlace, bool] | None = None
        self.places_asked = 0
        self._make = make

    async def frames(
        self, servers: Sequence[DataServerInfo], path: str, start: int, stop: int, fingerprint: str
    ) -> FrameRange:
        self.asked.append((path, start, stop, fingerprint))
        return self._make(start, stop, tuple(sorted(self.missing & set(range(start, stop)))))

    async def place(
        self, servers: Sequence[DataServerInfo], path: str, fingerprint: str
    ) -> tuple[SeriesPlace, bool] | None:
        self.places_asked += 1
        return self.place_of

    async def facts(self, servers: Sequence[DataServerInfo], path: str) -> SeriesFacts:
        count = 0 if "empty" in path else self.facts_of.get(path, 3)
        return SeriesFacts(
            path=path,
            height=4,
            width=5,
            dtype="uint16",
            frames=count,
            fingerprint="fm",
            bytes=1,
            format="tiff",
        )

    async def calibration(self, servers: Sequence[DataServerInfo], path: str) -> CalibrationFile:
        value = ShiftField((0.0, 0.0), 1000.0, np.ones((1, 1)), np.zeros((1, 1))).to_dict()
        return CalibrationFile(path=path, value=value, digest=digest(value))


READING = DaemonThread("read")


def source_of(servers: FakeServers) -> FrameSource:
    return FrameSource(servers, READING)


@pytest.fixture
def servers(make_frames: Callable[..., FrameRange]) -> FakeServers:
    return FakeServers(make_frames)


async def test_neighbouring_ranges_fetch_their_common_frames_once(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    source = source_of(servers)

    first = await source.range(make_spec(), 0, 50)
    second = await source.range(make_spec(), 20, 100)

    assert [(start, stop) for _, start, stop, _ in servers.asked] == [(0, 50), (50, 100)]
    assert first.frames[:, 0, 0].tolist() == list(range(50))
    assert (second.start, second.frames[:, 3, 4].tolist()) == (20, list(range(20, 100)))


async def test_the_frames_may_be_written_to_and_the_kept_ones_stay(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    source = source_of(servers)

    first = await source.range(make_spec(), 0, 10)
    second = await source.range(make_spec(), 5, 15)
    second.frames[:] = 0

    assert first.frames.flags.writeable
    assert first.frames[9, 0, 0] == 9


async def test_another_jobs_frames_are_not_taken_for_ones_own(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    source = source_of(servers)

    await source.range(make_spec("j1"), 0, 10)
    await source.range(make_spec("j2"), 0, 10)

    assert len(servers.asked) == 2


async def test_missing_frames_of_every_piece_and_of_the_job_come_together(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    servers.missing = {3, 25}
    source = source_of(servers)
    spec = make_spec(missing=[(18, 21), (500, 510)])

    await source.range(spec, 0, 20)
    got = await source.range(spec, 10, 30)

    assert got.missing == (18, 19, 20, 25)


async def test_the_fingerprint_travels_with_every_request(servers: FakeServers, make_spec: MakeSpec) -> None:
    await source_of(servers).range(make_spec(), 0, 10)

    assert servers.asked == [("cells/a b.tif", 0, 10, "f1")]


async def test_a_long_range_is_asked_for_in_pieces(
    servers: FakeServers, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "_REQUEST_BYTES", 4 * 5 * 2 * 8)

    got = await source_of(servers).range(make_spec(), 0, 20)

    assert [(start, stop) for _, start, stop, _ in servers.asked] == [(0, 8), (8, 16), (16, 20)]
    assert got.frames[:, 0, 0].tolist() == list(range(20))


@pytest.mark.parametrize(
    "sent",
    [
        FrameRange(1, np.zeros((10, 4, 5), np.uint16)),
        FrameRange(0, np.zeros((9, 4, 5), np.uint16)),
        FrameRange(0, np.zeros((10, 5, 4), np.uint16)),
        FrameRange(0, np.zeros((10, 4, 5), np.float32)),
    ],
    ids=["elsewhere", "too few", "turned", "another type"],
)
async def test_frames_that_are_not_those_of_the_job_are_refused(
    servers: FakeServers, make_spec: MakeSpec, sent: FrameRange
) -> None:
    async def frames(*_: Any) -> FrameRange:
        return sent

    servers.frames = frames  # type: ignore[method-assign]

    with pytest.raises(Invalid, match=r"cells/a b\.tif"):
        await source_of(servers).range(make_spec(), 0, 10)


async def test_maps_are_fetched_once_a_job_as_float_images(servers: FakeServers, make_spec: MakeSpec) -> None:
    source = source_of(servers)
    spec = make_spec(analysis={"variance_map": "maps/v.tif", "dark_map": None, "psf": None})

    maps = await source.maps(spec)
    await source.maps(spec)

    assert servers.asked == [("maps/v.tif", 0, 1, "fm")]
    assert list(maps) == ["variance_map"]
    assert (maps["variance_map"].dtype, maps["variance_map"].shape) == (np.dtype("float32"), (4, 5))


async def test_a_map_without_an_image_is_refused_by_name(servers: FakeServers, make_spec: MakeSpec) -> None:
    with pytest.raises(Invalid, match=r"dark_map: empty\.tif"):
        await source_of(servers).maps(make_spec(analysis={"dark_map": "empty.tif"}))


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 17))
def test_pieces_cover_the_range_once_in_order(
    start: int, length: int, at: int, known: int, longest: int
) -> None:
    kept = FrameRange(at, np.zeros((known, 1, 1), np.uint16))

    cut = pieces(start, start + length, kept, longest)

    covered = [frame for a, b, _ in cut for frame in range(a, b)]
    assert covered == list(range(start, start + length))
    assert all(at <= a and b <= at + known for a, b, is_kept in cut if is_kept)
    assert all(b - a <= longest for a, b, is_kept in cut if not is_kept)
    overlap = max(0, min(start + length, at + known) - max(start, at))
    assert sum(b - a for a, b, is_kept in cut if is_kept) == overlap


async def test_a_psf_comes_with_the_pitches_that_were_pinned_of_it(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    scale = {"pixel_nm": 100.0, "step_nm": 50.0, "focus_plane": 1.5, "channels": 1}
    stack = servers.facts_of["psf.tif"] = 6

    maps = await source_of(servers).maps(
        make_spec(analysis={"psf": "psf.tif"}, maps={"psf": "fp", PSF_SCALE: json.dumps(scale)})
    )

    assert servers.asked == [("psf.tif", 0, stack, "fp")]
    assert (maps["psf"].volume.shape, maps["psf"].volume.dtype) == ((6, 4, 5), np.dtype("float32"))
    assert (maps["psf"].pixel_nm, maps["psf"].step_nm, maps["psf"].focus_plane) == (100.0, 50.0, 1.5)


async def test_a_shift_field_that_changed_since_the_submit_is_refused(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    found = (await source_of(servers).maps(make_spec(analysis={"shifts": "s.json"})))["shifts"]
    pinned = make_spec("j1", analysis={"shifts": "s.json"}, maps={"shifts": digest(found)})
    changed = make_spec("j2", analysis={"shifts": "s.json"}, maps={"shifts": "0" * 64})

    assert (await source_of(servers).maps(pinned))["shifts"] == found
    with pytest.raises(Conflict, match=r"s\.json is no longer the file"):
        await source_of(servers).maps(changed)


def _placed(folder: Path, frames: int, size: int = 4 * 5 * 2) -> SeriesPlace:
    """Frames of 4 × 5 px whose pixels are their numbers, in a file, the way a data server would say it."""
    path = folder / "series.raw"
    path.write_bytes(np.repeat(np.arange(frames, dtype="<u2"), 20).tobytes())
    found = path.stat()
    return SeriesPlace(
        fingerprint="f1",
        files=[str(path)],
        stamps=[(found.st_size, found.st_mtime_ns)],
        runs=[FrameRun(frame=0, count=frames, file=0, offset=0, stride=size)],
    )


async def test_frames_in_files_of_this_machine_cross_no_socket(
    servers: FakeServers, make_spec: MakeSpec, tmp_path: Path
) -> None:
    servers.place_of = (_placed(tmp_path, 60), True)
    source = source_of(servers)

    first = await source.range(make_spec(missing=[(3, 5)]), 0, 40)
    second = await source.range(make_spec(), 30, 70)

    assert servers.asked == []
    assert servers.places_asked == 1
    assert first.frames[:, 3, 4].tolist() == list(range(40))
    assert first.missing == (3, 4)
    assert second.frames[:, 0, 0].tolist() == [*range(30, 60), *[0] * 10]
    assert second.missing == tuple(range(60, 70))


async def test_a_file_that_changes_meanwhile_ends_it_and_names_the_series(
    servers: FakeServers, make_spec: MakeSpec, tmp_path: Path
) -> None:
    servers.place_of = (_placed(tmp_path, 60), True)
    source = source_of(servers)
    await source.range(make_spec(), 0, 10)
    (tmp_path / "series.raw").write_bytes(bytes(60 * 40))

    with pytest.raises(Conflict, match=r"the file changed: cells/a b\.tif"):
        await source.range(make_spec(), 10, 20)


@pytest.mark.parametrize("why", ["another machine", "another fingerprint", "another size", "gone"])
async def test_files_that_are_not_here_or_not_the_same_come_over_http(
    servers: FakeServers, make_spec: MakeSpec, tmp_path: Path, why: str
) -> None:
    place = _placed(tmp_path, 60)
    if why == "another fingerprint":
        place = place.model_copy(update={"fingerprint": "f2"})
    if why == "another size":
        place = place.model_copy(update={"stamps": [(1, place.stamps[0][1])]})
    if why == "gone":
        (tmp_path / "series.raw").unlink()
    servers.place_of = (place, why != "another machine")

    got = await source_of(servers).range(make_spec(), 0, 20)

    assert [(start, stop) for _, start, stop, _ in servers.asked] == [(0, 20)]
    assert got.frames[:, 0, 0].tolist() == list(range(20))


async def test_a_share_that_both_see_is_read_here_if_its_content_is_the_same(
    servers: FakeServers, make_spec: MakeSpec, tmp_path: Path
) -> None:
    place = _placed(tmp_path, 60)
    content = fingerprint([tmp_path / "series.raw"])
    there = place.model_copy(update={"fingerprint": content, "files": ["D:\\data\\series.raw"]})
    servers.place_of = (there, False)

    source = FrameSource(servers, READING, shares_of({"D:\\data": tmp_path}))
    got = await source.range(make_spec(fingerprint=content), 5, 9)

    assert servers.asked == []
    assert got.frames[:, 0, 0].tolist() == [5, 6, 7, 8]
