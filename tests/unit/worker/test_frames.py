"""Fetching in bounded pieces, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays import FrameRange
from cluster.errors import Conflict, Invalid
from cluster.job_calibrations import PSF_SCALE, digest
from cluster.protocol import CalibrationFile, DataServerInfo, JobSpec, SeriesFacts
from cluster.worker import frames as frames_module
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
        self._make = make

    async def frames(
        self, servers: Sequence[DataServerInfo], path: str, start: int, stop: int, fingerprint: str
    ) -> FrameRange:
        self.asked.append((path, start, stop, fingerprint))
        return self._make(start, stop, tuple(sorted(self.missing & set(range(start, stop)))))

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


@pytest.fixture
def servers(make_frames: Callable[..., FrameRange]) -> FakeServers:
    return FakeServers(make_frames)


async def test_neighbouring_ranges_fetch_their_common_frames_once(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    source = FrameSource(servers)

    first = await source.range(make_spec(), 0, 50)
    second = await source.range(make_spec(), 20, 100)

    assert [(start, stop) for _, start, stop, _ in servers.asked] == [(0, 50), (50, 100)]
    assert first.frames[:, 0, 0].tolist() == list(range(50))
    assert (second.start, second.frames[:, 3, 4].tolist()) == (20, list(range(20, 100)))


async def test_the_frames_may_be_written_to_and_the_kept_ones_stay(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    source = FrameSource(servers)

    first = await source.range(make_spec(), 0, 10)
    second = await source.range(make_spec(), 5, 15)
    second.frames[:] = 0

    assert first.frames.flags.writeable
    assert first.frames[9, 0, 0] == 9


async def test_another_jobs_frames_are_not_taken_for_ones_own(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    source = FrameSource(servers)

    await source.range(make_spec("j1"), 0, 10)
    await source.range(make_spec("j2"), 0, 10)

    assert len(servers.asked) == 2


async def test_missing_frames_of_every_piece_and_of_the_job_come_together(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    servers.missing = {3, 25}
    source = FrameSource(servers)
    spec = make_spec(missing=[(18, 21), (500, 510)])

    await source.range(spec, 0, 20)
    got = await source.range(spec, 10, 30)

    assert got.missing == (18, 19, 20, 25)


async def test_the_fingerprint_travels_with_every_request(servers: FakeServers, make_spec: MakeSpec) -> None:
    await FrameSource(servers).range(make_spec(), 0, 10)

    assert servers.asked == [("cells/a b.tif", 0, 10, "f1")]


async def test_a_long_range_is_asked_for_in_pieces(
    servers: FakeServers, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "_REQUEST_BYTES", 4 * 5 * 2 * 8)

    got = await FrameSource(servers).range(make_spec(), 0, 20)

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
        await FrameSource(servers).range(make_spec(), 0, 10)


async def test_maps_are_fetched_once_a_job_as_float_images(servers: FakeServers, make_spec: MakeSpec) -> None:
    source = FrameSource(servers)
    spec = make_spec(analysis={"variance_map": "maps/v.tif", "dark_map": None, "psf": None})

    maps = await source.maps(spec)
    await source.maps(spec)

    assert servers.asked == [("maps/v.tif", 0, 1, "fm")]
    assert list(maps) == ["variance_map"]
    assert (maps["variance_map"].dtype, maps["variance_map"].shape) == (np.dtype("float32"), (4, 5))


async def test_a_map_without_an_image_is_refused_by_name(servers: FakeServers, make_spec: MakeSpec) -> None:
    with pytest.raises(Invalid, match=r"dark_map: empty\.tif"):
        await FrameSource(servers).maps(make_spec(analysis={"dark_map": "empty.tif"}))


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

    maps = await FrameSource(servers).maps(
        make_spec(analysis={"psf": "psf.tif"}, maps={"psf": "fp", PSF_SCALE: json.dumps(scale)})
    )

    assert servers.asked == [("psf.tif", 0, stack, "fp")]
    assert (maps["psf"].volume.shape, maps["psf"].volume.dtype) == ((6, 4, 5), np.dtype("float32"))
    assert (maps["psf"].pixel_nm, maps["psf"].step_nm, maps["psf"].focus_plane) == (100.0, 50.0, 1.5)


async def test_a_shift_field_that_changed_since_the_submit_is_refused(
    servers: FakeServers, make_spec: MakeSpec
) -> None:
    found = (await FrameSource(servers).maps(make_spec(analysis={"shifts": "s.json"})))["shifts"]
    pinned = make_spec("j1", analysis={"shifts": "s.json"}, maps={"shifts": digest(found)})
    changed = make_spec("j2", analysis={"shifts": "s.json"}, maps={"shifts": "0" * 64})

    assert (await FrameSource(servers).maps(pinned))["shifts"] == found
    with pytest.raises(Conflict, match=r"s\.json is no longer the file"):
        await FrameSource(servers).maps(changed)
