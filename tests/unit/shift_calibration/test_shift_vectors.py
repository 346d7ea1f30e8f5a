from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fitting.calibration.field_models import MODELS, ModelName
from fitting.calibration.shift_vectors import (
    ShiftVectors,
    fit_shift_field,
    one_for_each_bead,
    shifts_from_rows,
    unlike_neighbours,
    vectors_from_rows,
)
from fitting.errors import InvalidCalibration
from fitting.shift_field import ShiftField
from tests.unit.shift_calibration.conftest import HEIGHT_NM, TRUTHS, WIDTH_NM

MakeBeads = Callable[..., Any]
BOX = (0.0, 0.0, WIDTH_NM, HEIGHT_NM)
P = ("Ag", "Ar", "x0", "y0", "sigma", "background_g", "background_r", "dx", "dy")
GROUP = np.dtype([(name, "<f4") for name in P])
DTYPE = np.dtype([("tIndex", "<i4"), ("fitResults", GROUP), ("fitError", GROUP), ("resultCode", "<i4")])


def grid() -> tuple[Any, Any]:
    x, y = np.meshgrid(np.linspace(3000, 37_000, 9), np.linspace(3000, 27_000, 7))
    return x.ravel(), y.ravel()


def pulls(vectors: ShiftVectors, model: ModelName, truth: str) -> Any:
    fit = fit_shift_field(vectors, model, box_nm=BOX)
    x, y = grid()
    off = np.stack(fit.field.at(x, y)) - np.stack(TRUTHS[truth](x, y))
    return off / np.stack(fit.error_at(x, y))


@pytest.mark.statistical
@pytest.mark.parametrize("model", ["affine", "cubic"])
def test_a_known_field_comes_back_within_its_errors_in_spite_of_wrong_vectors(
    make_beads: MakeBeads, model: ModelName
) -> None:
    found = np.stack([pulls(make_beads(seed=seed, truth=model)[0], model, model) for seed in range(5)])

    # the field at 63 places has as many independent values as the model has coefficients, each in x and y of 5 fields
    independent = 5 * 2 * {"affine": 3, "cubic": 10}[model]
    assert abs(np.sqrt((found**2).mean()) - 1) < 4 / np.sqrt(2 * independent)
    assert abs(found.mean()) < 4 / np.sqrt(independent)


@pytest.mark.statistical
def test_a_smoothing_spline_follows_what_a_cubic_cannot(make_beads: MakeBeads) -> None:
    vectors, _ = make_beads(800, truth="spline")
    fits = {model: fit_shift_field(vectors, model, box_nm=BOX) for model in MODELS}
    x, y = grid()

    def rms(fit: Any) -> float:
        off = np.stack(fit.field.at(x, y)) - np.stack(TRUTHS["spline"](x, y))
        return float(np.sqrt((off**2).mean()))

    pull = np.stack(fits["spline"].field.at(x, y)) - np.stack(TRUTHS["spline"](x, y))
    pull /= np.stack(fits["spline"].error_at(x, y))
    assert rms(fits["spline"]) < 2.0 < rms(fits["cubic"])
    assert 0.5 < np.sqrt((pull**2).mean()) < 1.5
    assert any("spline would do better" in note for note in fits["cubic"].notes)
    assert not any("would do better" in note for note in fits["spline"].notes)
    assert set(fits["affine"].cross_validated_nm) == set(MODELS)


def test_a_spline_field_is_what_its_file_says(make_beads: MakeBeads) -> None:
    fit = fit_shift_field(make_beads(truth="spline")[0], "spline")
    again = ShiftField.from_dict(fit.field.to_dict())

    assert fit.field.to_dict()["kind"] == "spline"
    kept = fit.beads.select(fit.kept)
    np.testing.assert_array_equal(again.at(kept.x_nm, kept.y_nm), fit.field.at(kept.x_nm, kept.y_nm))


def test_far_beyond_the_beads_a_spline_goes_on_as_a_plane(make_beads: MakeBeads) -> None:
    field = fit_shift_field(make_beads(truth="affine", wrong=0.0)[0], "spline").field
    far = np.linspace(60_000, 90_000, 4)

    dx, _ = field.at(far, np.full(4, 15_000.0))

    np.testing.assert_allclose(np.diff(dx, 2), 0, atol=1e-6)
    assert abs(dx[0] - TRUTHS["affine"](far, np.full(4, 15_000.0))[0][0]) < 20


def test_wrong_vectors_are_told_by_their_neighbours_and_others_are_not(make_beads: MakeBeads) -> None:
    vectors, bad = make_beads(400, wrong=0.1)

    unlike = unlike_neighbours(vectors)

    assert unlike[bad].mean() > 0.98
    # the limit of four robust standard deviations of a median's difference, and the edge, where neighbours are to one side
    assert unlike[~bad].mean() < 0.03


def test_few_wrong_vectors_left_in_have_little_say(make_beads: MakeBeads) -> None:
    vectors, bad = make_beads(200, wrong=0.05, truth="affine")
    few = np.flatnonzero(bad)[0]
    with_it, without = (
        fit_shift_field(vectors.select(np.delete(np.arange(200), drop)), "affine").field.at(*grid())
        for drop in ([], [few])
    )

    assert np.abs(np.stack(with_it) - np.stack(without)).max() < 1.0


def test_a_field_that_beads_do_not_cover_is_told_of(make_beads: MakeBeads) -> None:
    half = fit_shift_field(make_beads(right_nm=WIDTH_NM / 2)[0], "cubic", box_nm=BOX)
    whole = fit_shift_field(make_beads(600)[0], "cubic", box_nm=BOX)

    assert any("8 of 16 parts" in note for note in half.notes)
    assert any("extrapolated" in note for note in half.notes)
    assert not any("extrapolated" in note or "parts of the field" in note for note in whole.notes)
    assert half.is_extrapolated([35_000, 10_000], [15_000, 15_000]).tolist() == [True, False]
    assert any("not given" in note for note in fit_shift_field(make_beads()[0]).notes)


def test_errors_that_are_too_small_are_told_of(make_beads: MakeBeads) -> None:
    vectors, _ = make_beads(wrong=0.0)
    boasting = ShiftVectors(
        *(vectors.x_nm, vectors.y_nm, vectors.dx_nm, vectors.dy_nm),
        *(vectors.dx_error_nm / 10, vectors.dy_error_nm / 10),
    )

    honest, modest = (fit_shift_field(one, "cubic", box_nm=BOX) for one in (boasting, vectors))

    assert honest.factor == pytest.approx(10 * modest.factor, rel=0.2)
    assert any("as much as the errors" in note for note in honest.notes)
    assert not any("as much as the errors" in note for note in modest.notes)
    np.testing.assert_allclose(honest.error_at(*grid()), modest.error_at(*grid()), rtol=0.25)


def test_fits_of_one_bead_become_one_vector(make_beads: MakeBeads) -> None:
    beads, _ = make_beads(40, wrong=0.0)
    rng = np.random.default_rng(1)
    frames = [
        ShiftVectors(
            *(column + rng.normal(0, 3, 40) for column in list(vars(beads).values())[:4]),
            np.full(40, 3.0),
            np.full(40, 3.0),
        )
        for _ in range(25)
    ]
    all_frames = ShiftVectors(*(np.concatenate([vars(f)[name] for f in frames]) for name in vars(beads)))

    merged = one_for_each_bead(all_frames)

    assert len(merged) == 40
    order = np.argsort(merged.x_nm), np.argsort(beads.x_nm)
    off = merged.dx_nm[order[0]] - beads.dx_nm[order[1]]
    assert abs(np.sqrt(np.mean((off / merged.dx_error_nm[order[0]]) ** 2)) - 1) < 4 / np.sqrt(2 * 40)


def test_beads_of_a_moving_stage_stay_apart() -> None:
    x = np.arange(0, 4000, 50.0)
    moving = ShiftVectors(x, np.zeros(80), x / 100, x / 100, np.ones(80), np.ones(80))

    assert len(one_for_each_bead(moving)) == 80


def rows_of(vectors: ShiftVectors) -> Any:
    rows = np.zeros(len(vectors), DTYPE)
    rows["resultCode"] = 1
    for name, column in (("x0", "x_nm"), ("y0", "y_nm"), ("dx", "dx_nm"), ("dy", "dy_nm")):
        rows["fitResults"][name] = getattr(vectors, column)
    rows["fitError"]["dx"], rows["fitError"]["dy"] = vectors.dx_error_nm, vectors.dy_error_nm
    return rows


def test_rows_of_the_fit_make_the_same_field(make_beads: MakeBeads) -> None:
    vectors, _ = make_beads()

    from_rows, direct = shifts_from_rows(rows_of(vectors), "cubic"), fit_shift_field(vectors, "cubic")

    np.testing.assert_allclose(from_rows.field.at(*grid()), direct.field.at(*grid()), atol=0.05)


def test_rows_that_failed_are_passed_over(make_beads: MakeBeads) -> None:
    rows = rows_of(make_beads(10)[0])
    rows["resultCode"][0] = 6
    rows["fitError"]["dx"][1] = np.nan
    rows["fitResults"]["dy"][2] = np.inf
    rows["fitError"]["dy"][3] = -5000

    assert len(vectors_from_rows(rows)) == 6


def test_rows_of_another_fit_are_refused() -> None:
    from fitting.localisations import LAT_GAUSS_DTYPE

    with pytest.raises(InvalidCalibration, match="SplitterShiftEstFR"):
        vectors_from_rows(np.zeros(3, LAT_GAUSS_DTYPE))


def test_too_few_beads_and_beads_on_a_line_are_refused(make_beads: MakeBeads) -> None:
    with pytest.raises(InvalidCalibration, match="20 beads or more, and there are 12"):
        fit_shift_field(make_beads(12)[0], "cubic")
    x = np.linspace(0, 30_000, 30)
    line = ShiftVectors(x, np.zeros(30), x, x, np.ones(30), np.ones(30))
    with pytest.raises(InvalidCalibration, match="line"):
        fit_shift_field(line, "affine")
    with pytest.raises(InvalidCalibration, match="no model"):
        fit_shift_field(make_beads()[0], "quintic")  # type: ignore[arg-type]


def test_numbers_that_make_no_sense_are_refused() -> None:
    ones = np.ones(3)
    for columns in (
        (ones, ones, ones, ones, ones, -ones),
        (ones, ones, ones, ones, ones, ones[:2]),
        (ones * np.nan, ones, ones, ones, ones, ones),
    ):
        with pytest.raises(InvalidCalibration):
            ShiftVectors(*columns)
