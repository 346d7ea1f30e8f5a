from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fitting import analyse, fits
from fitting.estimators import estimate
from fitting.lanes import LANES
from fitting.neighbours import compose, fit_with_neighbours, list_neighbours
from fitting.poisson import UNKNOWN
from fitting.rois import RoiBuffer

SETTINGS = {"background": None, "psf_sigma_nm": 130.0}
REAL = np.ones(6, np.bool_)


def _pair(spot: Callable[..., Any], distance: float, seed: int = 0, photons: float = 1000.0) -> Any:
    rng = np.random.default_rng(seed)
    expected = (
        spot(20 - distance / 2, 20.2, 1000, 1.3, 40, 40)
        + spot(20 + distance / 2, 20.2, photons, 1.3, 40, 40)
        + 20
    )
    return np.round(100 + rng.poisson(np.stack([expected] * 50)) / 0.5).astype(np.uint16)


def _buffer(rois: Any, places: Any, shown: Any) -> RoiBuffer:
    buffer = RoiBuffer.with_room(len(rois), rois.shape[1])
    buffer.data[:] = 0
    buffer.extra[:] = 0
    for k, roi in enumerate(rois):
        buffer.data.reshape(-1, rois.shape[1] ** 2, LANES)[k // LANES, :, k % LANES] = roi.ravel()
        buffer.place[k] = (*places[k], shown[k])
    return buffer


def test_neighbours_are_of_one_frame_within_reach_and_do_not_touch() -> None:
    place = np.array(
        [(0, 5, 5, 1), (0, 6, 6, 1), (0, 5, 12, 1), (0, 12, 5, 1), (0, 13, 5, 1), (1, 5, 8, 1)], np.int32
    )

    assert _neighbours(place, REAL) == {0: [2, 3], 1: [2, 3, 4], 2: [0, 1, 3], 3: [0, 1, 2], 4: [1]}
    assert _neighbours(place, np.array([1, 1, 0, 1, 1, 1], np.bool_)) == {
        0: [3],
        1: [3, 4],
        3: [0, 1],
        4: [1],
    }
    assert _neighbours(place, np.zeros(6, np.bool_)) == {}


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_are_those_that_comparing_all_with_all_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    place = np.column_stack([rng.integers(0, top, 300) for top in (4, 90, 60, 2)]).astype(np.int32)
    place = place[
        np.lexsort((place[:, 1] + rng.integers(0, 4, 300), place[:, 0]))
    ]  # by y to within the slack
    real = rng.random(300) < 0.8

    frame, y, x, _ = place.T.astype(int)
    apart = np.maximum(abs(y[:, None] - y), abs(x[:, None] - x))
    near = (frame[:, None] == frame) & (apart > 1) & (apart <= 7) & real & real[:, None]
    assert _neighbours(place, real) == {
        i: list(np.flatnonzero(row)) for i, row in enumerate(near) if row.any()
    }


def _neighbours(place: Any, real: Any) -> dict[int, list[int]]:
    chosen, first, others = list_neighbours(place, real, 7)
    return {int(i): list(chosen[others[a:b]]) for i, (a, b) in zip(chosen, pairwise(first), strict=True)}


def test_a_neighbour_adds_its_light_to_the_background(spot: Callable[..., Any]) -> None:
    places = [(0, 10, 10), (0, 12, 15)]
    buffer = _buffer(np.ones((2, 7, 7)), places, (1, 1))
    buffer.extra[3 * LANES] = UNKNOWN
    theta = np.array([(0, 0, 1, 0, 1), (0.3, -0.2, 700, 5, 1.4)], np.float32)
    chosen, first, others = list_neighbours(buffer.place, REAL[:2], 9)
    data, extra = np.empty((2, 16 * 49), np.float32)

    compose(
        buffer.data, buffer.extra, buffer.place, 7, np.float32(1), chosen, first, others,
        theta, REAL[:2], False, data, extra,
    )  # fmt: skip

    expected = spot(3 + 5 + 0.3, 3 + 2 - 0.2, 700, 1.4, 7, 7)
    expected[0, 3] = UNKNOWN
    np.testing.assert_allclose(extra[::LANES].reshape(7, 7), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(data[::LANES], 1)


def test_at_first_a_molecule_has_the_pixels_that_are_nearest_to_it() -> None:
    buffer = _buffer(np.ones((2, 7, 7)), [(0, 10, 10), (0, 10, 14)], (1, 1))
    chosen, first, others = list_neighbours(buffer.place, REAL[:2], 9)
    data, extra = np.empty((2, 16 * 49), np.float32)

    compose(
        buffer.data, buffer.extra, buffer.place, 7, np.float32(1), chosen, first, others,
        np.zeros((2, 5), np.float32), REAL[:2], True, data, extra,
    )  # fmt: skip

    left, right = (extra.reshape(49, LANES)[:, lane].reshape(7, 7) == UNKNOWN for lane in (0, 1))
    assert left[:, 6].all()
    assert not left[:, :6].any()
    assert right[:, 0].all()
    assert not right[:, 1:].any()


@pytest.mark.parametrize("aspect", [1.0, 1.5])
def test_two_molecules_are_found_where_they_are_although_each_alone_is_not(
    spot: Callable[..., Any], metadata: dict[str, object], aspect: float
) -> None:
    from fitting.psf import _axis

    def light(x: float, y: float) -> Any:
        return 4000 * np.outer(_axis(y, 1.3 * aspect, 48)[0], _axis(x, 1.3, 48)[0])

    electrons = light(18.0, 20.2) + light(22.8, 20.2) + 20
    frame = np.round(100 + electrons / 0.5).astype(np.uint16)[np.newaxis]
    metadata |= {"voxelsize.y": 0.1 / aspect, "Camera.ReadNoise": 0.0}

    rows = analyse(frame, SETTINGS, metadata).rows

    assert np.sort(rows["fitResults"]["x0"]) == pytest.approx([1800, 2280], abs=1.5)
    assert rows["fitResults"]["y0"] == pytest.approx([2020 / aspect] * 2, abs=1.5)
    assert rows["nchi2"].max() < 0.1


def test_of_two_within_the_debounce_radius_the_brighter_alone_is_a_row_and_is_not_pulled(
    spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    frames = _pair(spot, 4.4, photons=800.0)

    result = analyse(frames, {**SETTINGS, "debounce_radius": 6}, metadata)

    where = result.rows["fitResults"]
    assert len(result.rows) == 50
    assert result.candidates["fitted"].sum() == 50
    assert len(result.candidates) > 90
    brighter = where["x0"] < 2000
    assert brighter.mean() > 0.8
    assert abs(where["x0"][brighter] - 1780).mean() < 10


def test_a_molecule_that_one_fit_explains_is_not_split_by_its_noise(
    spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    frames = _pair(spot, 0.0, photons=0.0)
    two_peaks = {**SETTINGS, "threshold": 0.2, "debounce_radius": 5.0}

    many, few = (analyse(frames, settings, metadata) for settings in (two_peaks, SETTINGS))

    assert len(many.candidates) > len(few.candidates)
    x, x_few = (
        where["x0"][np.hypot(where["x0"] - 2000, where["y0"] - 2020) < 100]
        for where in (many.rows["fitResults"], few.rows["fitResults"])
    )
    assert len(x) == len(x_few) == 50
    assert x.std() == pytest.approx(x_few.std(), rel=0.2)


def test_a_neighbour_that_fits_badly_is_left_out_and_does_no_harm(spot: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    good = rng.poisson(spot(3.2, 2.9, 1000, 1.3, 7, 7) + 20).astype(float)
    bad = np.full((7, 7), np.float64(UNKNOWN))
    buffer = _buffer(np.stack([good, bad]), [(0, 10, 10), (0, 10, 15)], (1, 1))
    buffer.extra[1::LANES] = UNKNOWN
    found = estimate("mle", buffer.data, buffer.extra, 2, 7, 1.3)
    alone = found.theta[0].copy()

    fit_with_neighbours(found, buffer, 2, 1.3, 1.0)

    assert found.quality[1, 3] == 7
    assert np.isfinite(found.theta).all()
    np.testing.assert_allclose(found.theta[0], alone, rtol=0.02, atol=0.02)


def test_a_dense_film_gives_the_same_bytes_in_any_split(
    film: Callable[..., Any], metadata: dict[str, object]
) -> None:
    frames = film(40, 48, 48, 14, seed=4)
    resolved = fits.resolve({}, metadata)

    whole = analyse(frames, {}, metadata).rows
    parts = []
    for start, stop in ((0, 1), (1, 17), (17, 40)):
        a, b = fits.context_range(resolved, metadata, (0, 40), start, stop)
        parts.append(
            analyse(
                frames[start:stop], {}, metadata,
                first_frame=start, series=(0, 40), context=(a, frames[a:b]),
            ).rows
        )  # fmt: skip

    assert len(whole) > 300
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_no_accepted_row_of_a_dense_film_holds_nan(
    film: Callable[..., Any], metadata: dict[str, object]
) -> None:
    rows = analyse(film(20, 48, 48, 40, seed=5), {"debounce_radius": 0.0}, metadata).rows

    good = rows[rows["resultCode"] == 1]
    assert len(good) > 300
    for name in ("x0", "y0", "A", "sigma", "background"):
        assert np.isfinite(rows["fitResults"][name]).all()
        assert np.isfinite(good["fitError"][name]).all()
    assert np.isfinite(good["nchi2"]).all()
