"""Several molecules in one place: all of them are found where they are, and none where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import erf

from fitting import analyse, fits
from fitting.common_width import widths_of_frames
from fitting.errors import InvalidSettings
from fitting.estimators import estimate
from fitting.lanes import LANES
from fitting.multi import Emitters, MultiOptions, fit_patches
from fitting.poisson import UNKNOWN
from fitting.regions import label_regions
from fitting.rois import RoiBuffer

Array = np.ndarray[Any, Any]
Spot = Callable[..., Array]
SIDE, SIGMA = 7, 1.3
SETTINGS = {"background": None, "psf_sigma_nm": 130.0, "fit": "GaussMultifitSR"}


def cut_out(images: Array, places: list[tuple[int, int, int]], extra: Array | float = 0.0) -> RoiBuffer:
    """ROIs around places (frame, y, x) of images of photo-electrons, as a scan makes them; unknown beyond the edge and where NaN."""
    buffer = RoiBuffer.with_room(max(len(places), 1), SIDE)
    half = SIDE // 2
    known = np.broadcast_to(np.asarray(extra, float), images.shape)
    shown = np.where(np.isnan(images), UNKNOWN, images)
    known = np.where(np.isnan(images), UNKNOWN, known)
    wide = ((0, 0), (half, half), (half, half))
    shown, known = (np.pad(array, wide, constant_values=UNKNOWN) for array in (shown, known))
    for array, source in ((buffer.data, shown), (buffer.extra, known)):
        lanes = array.reshape(-1, SIDE, SIDE, LANES)
        for k, (t, y, x) in enumerate(places):
            lanes[k // LANES, :, :, k % LANES] = source[t, y : y + SIDE, x : x + SIDE]
    for k, place in enumerate(places):
        buffer.place[k] = (*place, 1)
    return buffer


def fitted(
    images: Array, places: list[tuple[int, int, int]], extra: Array | float = 0.0, **options: Any
) -> Emitters:
    return fit_patches(cut_out(images, places, extra), len(places), SIGMA, options=MultiOptions(**options))


def image_of(
    spot: Spot, truth: list[tuple[float, float, float]], side: int = 24, sigma: float = SIGMA
) -> Array:
    return 20 + sum(spot(x, y, n, sigma, side, side) for x, y, n in truth)[np.newaxis]


def assert_found(found: Emitters, truth: list[tuple[float, float, float]], tolerance: float = 0.01) -> None:
    """Every molecule to `tolerance` px, its photons to as many percent, and nothing else."""
    assert len(found.frame) == len(truth)
    for x, y, n in truth:
        near = np.argmin(np.hypot(found.theta[:, 0] - x, found.theta[:, 1] - y))
        assert found.theta[near, :2] == pytest.approx((x, y), abs=tolerance)
        assert found.theta[near, 2] == pytest.approx(n, rel=tolerance)


@pytest.mark.parametrize("distance", [1.5, 2.0, 2.7, 4.0])
@pytest.mark.parametrize("angle", [0.0, 0.6, math.pi / 2])
def test_both_of_a_pair_are_found_from_one_candidate(spot: Spot, distance: float, angle: float) -> None:
    dx, dy = distance / 2 * math.cos(angle), distance / 2 * math.sin(angle)
    truth = [(12.2 - dx, 11.8 - dy, 20_000.0), (12.2 + dx, 11.8 + dy, 14_000.0)]

    found = fitted(image_of(spot, truth), [(0, 12, 12)])

    assert_found(found, truth)
    assert (found.quality[:, 1] == 2).all()
    assert (found.quality[:, 2] == 1).all()
    assert found.theta[:, 3] == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("distance", [1.5, 2.5, 4.0])
def test_all_three_of_a_triangle_are_found_from_one_candidate(spot: Spot, distance: float) -> None:
    radius = distance / math.sqrt(3)
    truth = [
        (12.1 + radius * math.cos(a), 12.3 + radius * math.sin(a), 30_000.0) for a in (0.3, 2.394, 4.489)
    ]

    found = fitted(image_of(spot, truth), [(0, 12, 12)])

    assert_found(found, truth)


def test_a_lone_molecule_is_the_single_fit_turned_to_the_known_width(spot: Spot) -> None:
    rng = np.random.default_rng(2)
    image = rng.poisson(image_of(spot, [(12.3, 11.8, 1000.0)])).astype(float)
    buffer = cut_out(image, [(0, 12, 12)])

    found = fitted(image, [(0, 12, 12)], width="given")

    alone = estimate("mle", buffer.data, buffer.extra, 1, SIDE, SIGMA).theta[0]
    assert len(found.frame) == 1
    assert found.theta[0, :2] == pytest.approx(alone[:2] + 12, abs=1e-5)
    assert found.theta[0, 4] == SIGMA
    best = _best_photons(spot, image[0], alone[0] + 12, alone[1] + 12)
    assert best != pytest.approx(alone[2], rel=0.015)
    assert found.theta[0, 2] == pytest.approx(best, rel=0.005)


def _best_photons(spot: Spot, image: Array, x: float, y: float) -> float:
    """Photons of the likeliest molecule of width SIGMA at a place, by a search over N and b."""
    inside = np.s_[9:16, 9:16]
    shape, seen = spot(x, y, 1.0, SIGMA, 24, 24)[inside], image[inside]

    def cost(theta: Array) -> float:
        mu = theta[0] * shape + theta[1]
        return float((mu - seen * np.log(mu)).sum()) if mu.min() > 0 else 1e12

    found = minimize(cost, (900.0, 20.0), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-9})
    return float(found.x[0])


def test_errors_are_those_of_the_joint_fisher_matrix(spot: Spot) -> None:
    truth = [(11.0, 12.0, 1000.0), (13.5, 12.0, 1500.0)]
    image = image_of(spot, truth)

    found = fitted(image, [(0, 12, 12)])

    inside = np.s_[9:16, 9:16]
    step, columns = 1e-4, []
    for k in range(2):
        for axis, size in ((0, step), (1, step), (2, 1.0)):
            more, less = ([list(m) for m in truth] for _ in range(2))
            more[k][axis] += size
            less[k][axis] -= size
            columns.append(((image_of(spot, more) - image_of(spot, less))[0][inside] / (2 * size)).ravel())
    slopes = np.stack([*columns, np.ones(49)])
    bound = np.diag(np.linalg.inv((slopes / image[0][inside].ravel()) @ slopes.T))[:6].reshape(2, 3)
    order = np.argsort(found.theta[:, 0])
    assert found.covariance[order, :3] == pytest.approx(bound, rel=0.01)


def test_a_free_width_is_shared_and_found(spot: Spot) -> None:
    truth = [(10.8, 12.0, 20_000.0), (13.4, 12.3, 20_000.0)]
    image = image_of(spot, truth, sigma=1.45)

    found = fitted(image, [(0, 12, 12)], width="place")

    assert_found(found, truth)
    assert found.theta[:, 4] == pytest.approx(1.45, rel=0.005)
    assert (found.covariance[:, 3] > 0).all()


def test_the_width_of_a_frame_is_that_of_its_lone_molecules(spot: Spot) -> None:
    lone = [(12.0 + 14 * i, 12.0, 20_000.0) for i in range(4)]
    pair = [(25.0, 36.0, 20_000.0), (27.2, 36.0, 20_000.0)]
    image = image_of(spot, lone + pair, side=68, sigma=1.5)
    places = [*[(0, 12, 12 + 14 * i) for i in range(4)], (0, 36, 26)]

    found = fitted(image, places)

    assert_found(found, lone + pair, tolerance=0.02)
    assert found.theta[:, 4] == pytest.approx(1.5, rel=0.003)
    assert len(fitted(image, places, width="given").frame) > 6


def test_what_a_frame_says_of_the_width_is_weighed_against_what_is_expected() -> None:
    frame = np.repeat(np.array([0, 2, 3], np.int32), [5, 1, 2])
    width = np.array([1.5, 1.5, 1.52, 4.0, 0.2, 1.6, 9.0, np.nan])
    variance = np.array([1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 0.25**2 * 2 / math.pi, np.nan, np.nan])
    alone = np.array([True, True, True, True, False, True, True, False])

    common, uncertain = widths_of_frames(frame, width, variance, alone, 1.0)

    assert common[:5] == pytest.approx(1.51, abs=1e-3)
    assert common[5] == pytest.approx(1.3)  # both count the same
    assert (common[6:] == 1.0).all()
    assert np.sqrt(uncertain[[0, 5, 6]]) == pytest.approx([0.000627, 0.25 / math.sqrt(2), 0.25], rel=0.01)


def test_pixels_need_not_be_square() -> None:
    def shares(centre: float, sigma: float) -> Array:
        return np.diff(0.5 * erf((np.arange(25) - 0.5 - centre) / (math.sqrt(2) * sigma)))

    truth = [(11.0, 12.0, 20_000.0), (13.4, 12.0, 20_000.0)]
    image = 20 + sum(n * np.outer(shares(y, 1.3 * 0.8), shares(x, 1.3)) for x, y, n in truth)

    found = fit_patches(cut_out(image[np.newaxis], [(0, 12, 12)]), 1, 1.3, aspect=0.8)

    assert_found(found, truth)


def test_read_noise_and_known_background_are_part_of_the_model(spot: Spot) -> None:
    rng = np.random.default_rng(5)
    truth = [(10.8, 12.0, 20_000.0), (13.4, 12.3, 15_000.0)]
    extra = rng.uniform(0, 30, (1, 24, 24))  # what is known of every pixel is taken for itself

    found = fitted(image_of(spot, truth) + extra, [(0, 12, 12)], extra)

    assert_found(found, truth)
    assert found.theta[:, 3] == pytest.approx(20, rel=0.01)


def test_unknown_pixels_and_the_frames_edge_cost_nothing_but_precision(spot: Spot) -> None:
    truth = [(1.0, 5.0, 20_000.0), (3.1, 5.2, 20_000.0)]
    image = image_of(spot, truth)
    image[0, 4, 2] = np.nan

    found = fitted(image, [(0, 5, 1)])

    assert_found(found, truth)


def test_a_region_larger_than_a_window_is_fitted_as_a_whole(spot: Spot) -> None:
    rng = np.random.default_rng(3)
    grid = [(6.0 + 3.2 * i, 6.0 + 3.2 * j) for j in range(10) for i in range(10)]
    truth = [(x + rng.uniform(-0.4, 0.4), y + rng.uniform(-0.4, 0.4), 5000.0) for x, y in grid]
    places = [(0, round(y), round(x)) for x, y, _ in truth]
    places = sorted(place for k, place in enumerate(places) if k % 3)  # one in three has no candidate

    found = fitted(image_of(spot, truth, side=42), places, width="given")

    assert_found(found, truth, tolerance=0.03)
    assert (found.quality[:, 2] == 1).all()


def test_a_window_holds_no_more_emitters_than_allowed(spot: Spot) -> None:
    truth = [(10.0, 12.0, 20_000.0), (12.5, 11.0, 12_000.0), (13.0, 14.0, 16_000.0)]

    found = fitted(image_of(spot, truth), [(0, 12, 12)], most_emitters=2)

    assert len(found.frame) == 2


def test_regions_are_connected_by_overlap_within_a_frame() -> None:
    place = np.array(
        [(0, 5, 5, 1), (0, 5, 30, 1), (0, 9, 11, 1), (0, 15, 16, 1), (1, 5, 5, 1), (1, 12, 5, 1)], np.int32
    )
    label = np.empty(len(place), np.int32)

    label_regions(place, len(place), 7, 4, label)

    assert label.tolist() == [0, 1, 0, 0, 4, 5]


def test_nothing_comes_of_nothing() -> None:
    dark = np.full((1, 24, 24), np.nan)

    assert len(fitted(dark, []).frame) == 0
    found = fitted(dark, [(0, 12, 12)])
    assert not (found.quality[:, 2] == 1).any()


@pytest.mark.parametrize("level", [0.0, 1e-3, 3.0, 1e6])
def test_a_flat_image_shows_nothing_certain(level: float) -> None:
    found = fitted(np.full((1, 24, 24), level), [(0, 12, 12), (0, 12, 15)])

    assert np.isfinite(found.theta).all()
    certain = found.theta[:, 2] > 3 * np.sqrt(np.nan_to_num(found.covariance[:, 2], nan=np.inf))
    assert not certain.any()


def test_absurd_pixels_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    images = rng.choice([0.0, 1.0, 1e4, 1e9, np.nan], (20, 24, 24))

    found = fitted(images, [(t, y, x) for t in range(20) for y, x in ((8, 8), (12, 11), (14, 16))])

    assert np.isfinite(found.theta).all()


def test_a_molecule_does_not_depend_on_what_else_is_in_the_buffer(spot: Spot) -> None:
    rng = np.random.default_rng(7)
    truth = [
        [(*rng.uniform(5, 18, 2), rng.uniform(500, 3000)) for _ in range(rng.integers(1, 7))]
        for _ in range(12)
    ]
    images = rng.poisson(np.concatenate([image_of(spot, molecules) for molecules in truth])).astype(float)
    places = [sorted({(t, round(y), round(x)) for x, y, _ in molecules}) for t, molecules in enumerate(truth)]

    whole = fitted(images, [place for frame in places for place in frame])

    for t, frame in enumerate(places):
        alone = fitted(images[t : t + 1], [(0, y, x) for _, y, x in frame])
        mine = whole.frame == t
        for together, apart in zip(whole[1:], alone[1:], strict=True):
            assert together[mine].tobytes() == apart.tobytes()


# --- from frames to rows


def test_a_row_is_pymes() -> None:
    group = [("A", "<f4"), ("x0", "<f4"), ("y0", "<f4")]
    expected = [("tIndex", "<i4"), ("fitResults", group), ("fitError", group), ("resultCode", "<i4"), ("nChi2", "<f4"), ("nFit", "<i4")]  # fmt: skip

    assert fits.find("multi-emitter").dtype == np.dtype(expected)


def test_a_lone_molecule_has_the_height_and_place_of_the_ordinary_fit(
    film: Callable[..., Array], metadata: dict[str, object]
) -> None:
    frames = film(20, 32, 32, 1, photons=2000.0)

    rows = analyse(frames, SETTINGS, metadata).rows
    single = analyse(frames, {**SETTINGS, "fit": "LatGaussFitFR"}, metadata).rows

    assert rows["tIndex"].tolist() == single["tIndex"].tolist()
    for name, tolerance in (("x0", 0.1), ("y0", 0.1)):
        assert rows["fitResults"][name] == pytest.approx(single["fitResults"][name], abs=tolerance)
    off = rows["fitResults"]["A"] / single["fitResults"]["A"] - 1
    assert np.abs(off).max() < 5 * np.max(single["fitError"]["A"] / single["fitResults"]["A"])
    assert (rows["nFit"] == 1).all()
    assert (rows["resultCode"] == 1).all()
    assert rows["nChi2"].mean() == pytest.approx(1, abs=0.2)


def test_rows_do_not_depend_on_how_the_series_was_cut(
    film: Callable[..., Array], metadata: dict[str, object]
) -> None:
    frames = film(24, 48, 64, 50, photons=1000.0)
    settings = {**SETTINGS, "background": "-5:0"}

    whole = analyse(frames, settings, metadata).rows
    pieces = [
        analyse(frames[a:b], settings, metadata, first_frame=a, series=(0, 24), context=(0, frames)).rows
        for a, b in ((0, 1), (1, 9), (9, 24))
    ]

    assert len(whole) > 24 * 25
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


def test_frames_without_molecules_give_no_rows(metadata: dict[str, object]) -> None:
    frames = np.full((3, 32, 32), 110, np.uint16)

    assert len(analyse(frames, SETTINGS, metadata).rows) == 0


def test_an_em_gain_makes_errors_larger_and_splits_nothing(spot: Spot, metadata: dict[str, object]) -> None:
    rng = np.random.default_rng(2)
    expected = 10 + sum(spot(x, y, 2000.0, 1.3, 64, 64) for x in (12, 32, 52) for y in (12, 32, 52))
    electrons = rng.gamma(rng.poisson(np.stack([expected] * 30)).astype(float)) * 100
    frames = np.round(100 + electrons / 10).astype(np.uint16)
    camera = {
        **metadata,
        "Camera.ElectronsPerCount": 10.0,
        "Camera.TrueEMGain": 100.0,
        "Camera.ReadNoise": 0.0,
    }

    rows = analyse(frames, SETTINGS, camera).rows

    assert len(rows) == 9 * 30
    at = rows["fitResults"]["x0"] / 100
    pull = (at - np.array([12, 32, 52])[np.abs(at[:, None] - (12, 32, 52)).argmin(axis=1)]) * 100
    ratio = np.sqrt((pull**2).mean() / (rows["fitError"]["x0"] ** 2).mean())
    assert ratio == pytest.approx(1, abs=4 / math.sqrt(2 * len(rows)))
    assert rows["nChi2"].mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("most_emitters", 0), ("least_gain", -1.0), ("width", "perhaps"), ("emitters", 3)],
)
def test_an_option_that_makes_no_sense_is_named(
    name: str, value: object, metadata: dict[str, object]
) -> None:
    with pytest.raises(InvalidSettings, match=name):
        fits.resolve({**SETTINGS, "options": {name: value}}, metadata)


def test_least_squares_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match="estimator"):
        fits.resolve({**SETTINGS, "estimator": "wls"}, metadata)
