from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fitting import analyse, fits, localise
from fitting.errors import InvalidFrames, InvalidMetadata, InvalidSettings
from fitting.localisations import CANDIDATE_DTYPE, LAT_GAUSS_DTYPE, FrameStatus

FRAMES = 60
Film = Callable[..., Any]


def _in_tasks(
    film: Any,
    settings: dict[str, object],
    metadata: dict[str, object],
    cuts: list[int],
    missing: tuple[int, ...] = (),
) -> Any:
    """What a cluster does: each task gets its frames and the context it needs, and the rows are put together."""
    resolved = fits.resolve(settings, metadata)
    parts = []
    for start, stop in pairwise(cuts):
        a, b = fits.context_range(resolved, metadata, (0, len(film)), start, stop)
        parts.append(
            analyse(
                film[start:stop], settings, metadata,
                first_frame=start, series=(0, len(film)), context=(a, film[a:b]), missing=missing,
            )
        )  # fmt: skip
    return [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("rows", "fiducials", "candidates", "frame_status")
    ]


def _bytes(analysis: Any) -> list[bytes]:
    return [getattr(analysis, name).tobytes() for name in ("rows", "fiducials", "candidates", "frame_status")]


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"background": "-7:8"},
        {"background_percentile": 0.3, "background": "-12:0"},
        {"background_percentile": None},
        {"background": None, "roi": [3, 5, 40, 33]},
        {"estimator": "wls", "start_at": 7, "stop_at": 51},
        {"track_fiducials": True, "fiducial_threshold": 0.5},
    ],
    ids=str,
)
def test_any_split_into_tasks_gives_the_same_bytes(
    kind: Any, settings: dict[str, object], film: Film, metadata: dict[str, object]
) -> None:
    frames = film(FRAMES, 40, 45, 3, seed=1).astype(kind)
    if kind is np.float32:
        frames[::7, 10:12, 20] = np.nan
    frames[22] = 0
    rng = np.random.default_rng(9)

    whole = analyse(frames, settings, metadata, missing=(30,))

    assert len(whole.rows) > 20
    for pieces in (3, 12):
        cuts = [0, *sorted(rng.choice(np.arange(1, FRAMES), pieces, replace=False).tolist()), FRAMES]
        parts = _in_tasks(frames, settings, metadata, cuts, missing=(30,))
        assert [part.tobytes() for part in parts] == _bytes(whole)


def test_a_second_analysis_gives_the_same_bytes_and_so_does_a_copy_elsewhere_in_memory(
    film: Film, metadata: dict[str, object]
) -> None:
    frames = film(12, 33, 47, 4)
    shifted = np.zeros(frames.size + 3, np.uint16)[3:].reshape(frames.shape)
    shifted[:] = frames

    assert _bytes(analyse(frames, {}, metadata)) == _bytes(analyse(shifted, {}, metadata))


def test_threads_that_work_at_the_same_time_do_not_disturb_each_other(
    film: Film, metadata: dict[str, object]
) -> None:
    frames = film(40, 48, 48, 4)

    alone = _bytes(analyse(frames, {}, metadata))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: _bytes(analyse(frames, {}, metadata)), range(8)))

    assert together == [alone] * 8


def test_rows_are_ordered_by_frame_then_y_then_x(film: Film, metadata: dict[str, object]) -> None:
    rows = localise(film(20, 64, 64, 8), {}, metadata)

    keys = list(zip(rows["tIndex"], rows["fitResults"]["y0"], rows["fitResults"]["x0"], strict=True))
    assert rows.dtype == LAT_GAUSS_DTYPE
    assert keys == sorted(keys)


def test_pixel_centres_are_whole_multiples_of_the_pixel_size(
    spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    electrons = spot(20, 11, 50_000, 1.3, 32, 48) + 10
    frame = np.round(100 + electrons / 0.5).astype(np.uint16)[np.newaxis]

    for estimator in ("mle", "wls"):
        found = localise(frame, {"estimator": estimator, "background": None}, metadata)["fitResults"]
        assert found["x0"] == pytest.approx([2000], abs=0.05)
        assert found["y0"] == pytest.approx([1100], abs=0.05)


def test_pyme_computes_the_photons_from_the_height_and_the_width(
    spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    frame = np.round(100 + (spot(16.3, 15.8, 4000, 1.3, 32, 32) + 10) / 0.5).astype(np.uint16)[np.newaxis]

    found = localise(frame, {"background": None, "roi_half_size": 6}, metadata)["fitResults"][0]

    photons = 2 * np.pi * found["A"] * (found["sigma"] / 100) ** 2 * 0.5
    assert photons == pytest.approx(4000, rel=0.005)
    assert found["sigma"] == pytest.approx(130, rel=0.005)
    assert found["background"] == pytest.approx(20, rel=0.05)


def test_pixels_need_not_be_square(spot: Callable[..., Any], metadata: dict[str, object]) -> None:
    from fitting.psf import _axis

    electrons = 5000 * np.outer(_axis(14.0, 1.0, 32)[0], _axis(17.0, 1.5, 32)[0]) + 10
    frame = np.round(100 + electrons / 0.5).astype(np.uint16)[np.newaxis]
    metadata |= {"voxelsize.x": 0.1, "voxelsize.y": 0.15}

    for estimator in ("mle", "wls"):
        found = localise(frame, {"background": None, "estimator": estimator, "roi_half_size": 5}, metadata)[
            "fitResults"
        ][0]
        assert (found["x0"], found["y0"]) == (pytest.approx(1700, abs=0.5), pytest.approx(2100, abs=0.5))
        assert found["sigma"] == pytest.approx(150, rel=0.07)


def _has_no_neighbour(rows: Any, distance_px: float) -> Any:
    where = np.column_stack([rows["fitResults"]["x0"], rows["fitResults"]["y0"], rows["tIndex"] * 1e6])
    nearest = np.sort(np.linalg.norm(where[:, np.newaxis] - where[np.newaxis], axis=2), axis=1)[:, 1]
    return nearest > 100 * distance_px


def test_a_part_of_the_frame_keeps_the_frames_coordinates(film: Film, metadata: dict[str, object]) -> None:
    frames = film(150, 64, 80, 8)

    mean = {"background_percentile": None}  # the level of a percentile is that of all that is analysed
    whole = localise(frames, mean, metadata)
    part = localise(frames, mean | {"roi": [20, 10, 70, 50]}, metadata)

    where = whole["fitResults"]
    inner = (where["x0"] > 3400) & (where["x0"] < 5600) & (where["y0"] > 2400) & (where["y0"] < 3600)
    same = {row.tobytes() for row in part}
    alone = _has_no_neighbour(whole, 10)
    assert (inner & alone).sum() > 20
    assert {row.tobytes() for row in whole[inner & alone]} <= same
    assert part["slicesUsed"]["x"]["start"].min() >= 20
    assert part["slicesUsed"]["y"]["stop"].max() <= 50


def test_a_constant_background_is_taken_from_the_frames_around(
    film: Film, metadata: dict[str, object]
) -> None:
    rows = localise(film(40, 64, 64, 3, background=50.0), {}, metadata)

    good = rows["resultCode"] == 1
    assert rows["subtractedBackground"].mean() == pytest.approx(100, rel=0.05)
    assert abs(np.median(rows["fitResults"]["background"][good])) < 3


def test_a_background_may_serve_detection_alone(film: Film, metadata: dict[str, object]) -> None:
    rows = localise(film(40, 64, 64, 3, background=50.0), {"subtract_background": False}, metadata)

    assert np.median(rows["fitResults"]["background"]) == pytest.approx(100, rel=0.05)
    assert rows["subtractedBackground"].mean() == pytest.approx(100, rel=0.05)


def test_every_frame_is_localised_skipped_or_failed(film: Film, metadata: dict[str, object]) -> None:
    frames = film(20, 32, 32, 2)
    frames[4] = 0
    frames[9] = 0

    result = analyse(frames, {"start_at": 2, "stop_at": 18}, metadata, missing=(9, 19))

    expected = np.full(20, FrameStatus.LOCALISED)
    expected[[0, 1, 4, 18]] = FrameStatus.SKIPPED
    expected[[9, 19]] = FrameStatus.FAILED
    np.testing.assert_array_equal(result.frame_status, expected)
    assert not set(result.rows["tIndex"]) & {0, 1, 4, 9, 18, 19}


def test_a_missing_frame_enters_no_background(film: Film, metadata: dict[str, object]) -> None:
    frames = film(30, 32, 32, 2)
    spoiled = frames.copy()
    spoiled[11] = 60_000

    assert _bytes(analyse(frames, {}, metadata, missing=(11,))) == _bytes(
        analyse(spoiled, {}, metadata, missing=(11,))
    )


def test_bytes_and_big_endian_words_are_the_numbers_they_stand_for(
    film: Film, metadata: dict[str, object]
) -> None:
    frames = np.minimum(film(35, 32, 32, 2, photons=300.0), 255)
    wide = analyse(frames, {}, {**metadata, "Camera.BitDepth": 8})

    assert _bytes(analyse(frames.astype(np.uint8), {}, metadata)) == _bytes(wide)
    assert _bytes(analyse(frames.astype(">u2"), {}, {**metadata, "Camera.BitDepth": 8})) == _bytes(wide)


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float64])
def test_other_types_are_converted(kind: Any, film: Film, metadata: dict[str, object]) -> None:
    frames = film(20, 32, 32, 2)

    rows = localise(frames.astype(kind), {}, metadata)

    assert rows.tobytes() == localise(frames.astype(np.float32), {}, metadata).tobytes()


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("all zero", np.zeros((32, 32))),
        ("saturated", np.full((32, 32), 65535.0)),
        ("constant", np.full((32, 32), 130.0)),
        ("below the offset", np.full((32, 32), 3.0)),
        ("nothing but NaN", np.full((32, 32), np.nan)),
        ("infinite", np.full((32, 32), np.inf)),
        ("half NaN", np.where(np.arange(1024).reshape(32, 32) % 2, 120.0, np.nan)),
    ],
)
def test_a_frame_without_information_has_no_molecules(
    name: str, frame: Any, metadata: dict[str, object]
) -> None:
    for background in (None, "-30:0"):
        result = analyse(np.stack([frame] * 3).astype(np.float32), {"background": background}, metadata)
        assert len(result.rows) == 0, name


def test_one_frame_is_a_series(film: Film, metadata: dict[str, object]) -> None:
    result = analyse(film(1, 64, 64, 3, photons=3000.0), {}, metadata)

    assert len(result.rows) == 3
    assert not result.rows["subtractedBackground"].any()


def test_no_frames_give_no_rows(metadata: dict[str, object]) -> None:
    result = analyse(np.zeros((0, 16, 16), np.uint16), {}, metadata)

    assert (len(result.rows), len(result.candidates), len(result.frame_status)) == (0, 0, 0)
    assert result.candidates.dtype == CANDIDATE_DTYPE


def test_more_molecules_than_a_buffer_holds_are_all_fitted(film: Film, metadata: dict[str, object]) -> None:
    frames = film(6, 200, 200, 60)

    few, many = (localise(frames, {"threshold": value}, metadata) for value in (1.0, 0.1))

    assert len(many) > 3000
    assert len(few) < len(many)


def test_an_emccd_counts_photons_before_its_gain(
    spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    metadata |= {"Camera.TrueEMGain": 100.0, "Camera.ElectronsPerCount": 10.0, "Camera.ReadNoise": 50.0}
    rng = np.random.default_rng(3)
    photons = rng.poisson(np.stack([spot(16.2, 15.7, 2000, 1.3, 32, 32) + 5] * 40))
    frames = np.round(100 + rng.gamma(np.maximum(photons, 1e-9), 100.0) / 10.0).astype(np.uint16)

    rows = localise(frames, {"background": None}, metadata)

    found = rows["fitResults"]
    assert len(rows) == 40
    assert (2 * np.pi * found["A"] * (found["sigma"] / 100) ** 2 * 10 / 100).mean() == pytest.approx(
        2000, rel=0.04
    )
    assert rows["nchi2"].mean() == pytest.approx(1, abs=0.15)


def test_context_that_is_missing_is_named(film: Film, metadata: dict[str, object]) -> None:
    frames = film(10, 32, 32, 1)

    with pytest.raises(InvalidFrames, match="70 to 109"):
        analyse(frames, {}, metadata, first_frame=100, series=(0, 500))
    with pytest.raises(InvalidFrames, match="20 of them, from 70 to 89"):
        analyse(frames, {}, metadata, first_frame=100, series=(0, 500), context=(90, film(10, 32, 32, 1)))


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((2, 0, 4), np.uint16),
        np.zeros((2, 4, 4), complex),
        np.zeros((2, 4, 4), bool),
        np.full((2, 4, 4), 2**40),
    ],
    ids=["two-dimensional", "colour", "no rows", "complex", "bool", "too large"],
)
def test_what_is_no_series_of_grey_images_is_refused(frames: Any, metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidFrames):
        analyse(frames, {}, metadata)


def test_context_of_another_type_is_refused(film: Film, metadata: dict[str, object]) -> None:
    frames = film(10, 32, 32, 1)

    with pytest.raises(InvalidFrames, match="float32"):
        analyse(frames, {}, metadata, context=(0, frames.astype(np.float32)))


def test_a_part_beyond_the_frame_is_refused(film: Film, metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match="32 × 32 px"):
        analyse(film(2, 32, 32, 1), {"roi": [0, 0, 33, 20]}, metadata)


def test_incomplete_metadata_are_refused_by_key(film: Film, metadata: dict[str, object]) -> None:
    del metadata["voxelsize.x"]

    with pytest.raises(InvalidMetadata, match=r"voxelsize\.x"):
        analyse(film(2, 32, 32, 1), {}, metadata)


def test_a_bead_that_stays_is_tracked(
    film: Film, spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    frames = film(30, 64, 64, 2)
    bead = np.round(spot(40.3, 21.6, 60_000, 3.0, 64, 64) / 0.5).astype(np.uint16)

    result = analyse(frames + bead, {"track_fiducials": True, "psf_sigma_nm": 300.0}, metadata)

    found = result.fiducials["fitResults"]
    assert sorted(result.fiducials["tIndex"]) == list(range(30))
    assert abs(found["x0"] - 4030).max() < 30
    assert abs(found["y0"] - 2160).max() < 30


@pytest.mark.parametrize("room", [1, 3, 7])
@pytest.mark.parametrize("settings", [{}, {"estimator": "wls"}, {"background_percentile": None}], ids=str)
def test_a_buffer_that_is_soon_full_gives_the_same_bytes(
    film: Film,
    metadata: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    room: int,
) -> None:
    frames = film(FRAMES, 40, 45, 4, seed=2)
    whole = analyse(frames, settings, metadata)

    monkeypatch.setattr(sys.modules["fitting.localise"], "_MOST_ROIS", room)
    small = analyse(frames, settings, metadata)

    assert len(whole.rows) > 50
    assert _bytes(small) == _bytes(whole)
