"""Several molecules in one place: found as often as the data allow, with errors that tell the truth, and never one too many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from fitting import analyse
from fitting.scoring import columns_of, match, score

pytestmark = pytest.mark.statistical

Film = Callable[[Any, int, np.random.Generator], Any]

SINGLE = {"background": None, "psf_sigma_nm": 130.0}
SEVERAL = {**SINGLE, "fit": "GaussMultifitSR"}
SIZE, PITCH = 240, 40


def truth_of(places: Any) -> dict[str, Any]:
    frame = np.repeat(np.arange(len(places)), [len(xy) for xy in places])
    xy = np.concatenate(places) * 100
    return {"frame": frame, "x_nm": xy[:, 0], "y_nm": xy[:, 1]}


def groups(shape: Any, frames: int, rng: np.random.Generator) -> Any:
    """Copies of a shape (molecules, 2) in random directions, 40 px from each other: (frames, all molecules, 2)."""
    y, x = np.mgrid[PITCH // 2 : SIZE : PITCH, PITCH // 2 : SIZE : PITCH]
    middle = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-0.5, 0.5, (frames, x.size, 2))
    angle = rng.uniform(0, 2 * np.pi, (frames, x.size))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(
        *angle.shape, 2, 2
    )
    return (middle[:, :, np.newaxis] + np.einsum("fgij,mj->fgmi", turn, np.asarray(shape))).reshape(
        frames, -1, 2
    )


def test_a_lone_molecule_stays_one(film: Film, film_metadata: dict[str, object]) -> None:
    rng = np.random.default_rng(1)
    places = groups([(0.0, 0.0)], 56, rng)
    number = places.shape[0] * places.shape[1]

    rows = analyse(film(places, SIZE, rng), SEVERAL, film_metadata).rows

    assert number >= 2000
    assert len(rows) >= number
    # no more than what a rate of two per mille gives in all but one of 10,000 samples of this size
    assert len(rows) - number <= binom.ppf(0.9999, number, 0.002)
    assert score(columns_of(rows), truth_of(places)).recall == 1


def test_two_molecules_two_pixels_apart_are_two(film: Film, film_metadata: dict[str, object]) -> None:
    rng = np.random.default_rng(2)
    places = groups([(-1.0, 0.0), (1.0, 0.0)], 20, rng)
    number = places.shape[0] * places.shape[1]

    # a frame with nothing but pairs says nothing of the width
    known = {**SEVERAL, "options": {"width": "given"}}
    rows = analyse(film(places, SIZE, rng), known, film_metadata).rows
    single = analyse(film(places, SIZE, rng), SINGLE, film_metadata).rows

    scored = score(columns_of(rows), truth_of(places), radius_nm=150)
    assert len(single) <= 0.51 * number
    assert scored.recall >= 0.97 - 4 * math.sqrt(0.97 * 0.03 / number)
    assert scored.precision >= 0.99 - 4 * math.sqrt(0.99 * 0.01 / number)


@pytest.mark.parametrize("distance_px", [3.5, 5.0])
def test_errors_of_triples_are_those_that_they_report(
    distance_px: float, film: Film, film_metadata: dict[str, object]
) -> None:
    rng = np.random.default_rng(round(10 * distance_px))
    corner = distance_px / math.sqrt(3)
    shape = [(corner * math.cos(a), corner * math.sin(a)) for a in np.arange(3) * 2 * np.pi / 3]
    places = groups(shape, 20, rng)
    truth = truth_of(places)

    rows = analyse(film(places, SIZE, rng), SEVERAL, film_metadata).rows

    found = columns_of(rows)
    where, true = (np.column_stack([table["x_nm"], table["y_nm"]]) for table in (found, truth))
    i, j = match(found["frame"], where, truth["frame"], true, 100.0)
    error = np.column_stack([found["x_err_nm"], found["y_err_nm"]])
    pull = ((where[i] - true[j]) / error[i]).ravel()
    assert len(i) >= 0.995 * len(true)
    assert len(rows) <= 1.005 * len(true)
    assert 0.93 <= pull.std() <= 1.07
    assert abs(pull.mean()) < 4 / math.sqrt(len(pull))
    photons = rows["fitResults"]["A"][i] * 0.5 * 2 * np.pi * 1.3**2
    assert (
        0.93
        <= ((photons - 1000) / photons / (rows["fitError"]["A"][i] / rows["fitResults"]["A"][i])).std()
        <= 1.07
    )


@pytest.mark.parametrize(("per_um2", "frames", "gain"), [(0.1, 30, 0.0), (2.0, 12, 0.2), (5.0, 5, 0.3)])
def test_dense_frames_gain_and_sparse_ones_do_not_lose(
    per_um2: float, frames: int, gain: float, film: Film, film_metadata: dict[str, object]
) -> None:
    rng = np.random.default_rng(round(10 * per_um2))
    number = round(per_um2 * 5.6**2) if per_um2 > 1 else round(per_um2 * 12**2)
    size = 64 if per_um2 > 1 else 128
    places = rng.uniform(4, size - 5, (frames, number, 2))
    frames_ = film(places, size, rng)

    several = score(columns_of(analyse(frames_, SEVERAL, film_metadata).rows), truth_of(places))
    single = score(
        columns_of(analyse(frames_, {**SINGLE, "debounce_radius": 2.0}, film_metadata).rows), truth_of(places)
    )

    assert several.jaccard >= single.jaccard + gain
    assert several.accuracy.rmse_nm < single.accuracy.rmse_nm


@pytest.mark.parametrize("wrong", [0.75, 1.25])
@pytest.mark.parametrize(("per_um2", "frames", "gain"), [(0.1, 24, 0.0), (2.0, 10, 0.2), (5.0, 4, 0.3)])
def test_a_wrong_width_neither_splits_molecules_nor_unites_them(
    wrong: float, per_um2: float, frames: int, gain: float, film: Film, film_metadata: dict[str, object]
) -> None:
    rng = np.random.default_rng(round(10 * per_um2))
    size = 64 if per_um2 > 1 else 128
    places = rng.uniform(4, size - 5, (frames, round(per_um2 * ((size - 8) / 10) ** 2), 2))
    frames_ = film(places, size, rng)
    width = {"psf_sigma_nm": 130.0 * wrong, "roi_half_size": 3}

    several, single = (
        score(columns_of(analyse(frames_, {**kind, **width}, film_metadata).rows), truth_of(places))
        for kind in (SEVERAL, SINGLE)
    )

    assert several.jaccard >= single.jaccard + gain
    assert several.precision >= (0.94 if per_um2 > 1 else 0.98)
    assert several.accuracy.rmse_nm < single.accuracy.rmse_nm
