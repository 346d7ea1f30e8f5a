"""From simulated beads to a PSF, its widths and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fitting.calibrated import MeasuredPsf
from fitting.calibration.calibrate_psf import PsfCalibration, calibrate_psf
from fitting.calibration.measure_psf import without_bead
from fitting.calibration.psf_quality import crlb_against_z
from fitting.calibration.spot_widths import fit_spots
from fitting.errors import InvalidFrames

SIZES = {"pixel_nm": 100.0, "step_nm": 50.0}
NO_BLUR = {"blur_px": 0.0, "blur_nm": 0.0}
X_FORM, Y_FORM = (140.0, -200.0, 420.0, 0.0, 0.0), (145.0, 200.0, 400.0, 0.1, 0.05)


def _width(z: Any, form: tuple[float, ...]) -> Any:
    w, c, d, a, b = form
    u = (z - c) / d
    return w * np.sqrt(1 + u**2 + a * u**3 + b * u**4)


def _crossing_nm() -> float:
    z = np.linspace(-200, 200, 40_001)
    return float(z[np.argmin(np.abs(_width(z, X_FORM) - _width(z, Y_FORM)))])


@pytest.fixture
def beads(bead: Any) -> list[Any]:
    return [
        bead(30, 30, 0.3, -0.4, 20, 60_000), bead(30, 90, -0.2, 0.1, -35, 30_000),
        bead(90, 30, 0.45, 0.25, 60, 40_000), bead(90, 90, -0.1, -0.35, -45, 50_000),
    ]  # fmt: skip


@pytest.fixture
def made(scope: Any, beads: list[Any], field: Any) -> PsfCalibration:
    return calibrate_psf([field(scope, beads)], SIZES | NO_BLUR)


def _truth(scope: Any, psf: MeasuredPsf) -> Any:
    """The PSF at the heights of the planes of a measured one."""
    wide = type(scope)(planes=scope.planes + 20)
    first_nm = -psf.focus_plane * psf.step_nm + _crossing_nm()
    shift = wide.z_nm[0] - first_nm  # of the wide stack, so that its plane 0 is at first_nm
    whole = wide.psf(psf.volume.shape[1], dz_nm=wide.z_nm[10] - first_nm) if shift else wide.psf(31)
    part = whole[10 : 10 + len(psf.volume)]
    return part / part[round(psf.focus_plane)].sum()


def test_the_mean_of_beads_is_close_to_the_psf(scope: Any, made: PsfCalibration) -> None:
    truth = _truth(scope, made.psf)

    # four beads of 45,000 photons: 1 % of noise in the brightest pixel, of which there are some hundred
    assert np.abs(made.psf.volume - truth).max() < 0.04 * truth.max()
    bias = (made.psf.volume - truth)[:, 10:21, 10:21].mean() / truth[:, 10:21, 10:21].mean()
    assert abs(bias) < 0.005


def test_noise_free_beads_give_the_psf_itself(scope: Any, beads: list[Any], field: Any) -> None:
    made = calibrate_psf([field(scope, beads, seed=None)], SIZES | NO_BLUR)

    truth = _truth(scope, made.psf)
    assert np.abs(made.psf.volume - truth).max() < 2e-3 * truth.max()
    assert made.report.quality.difference < 0.002


def test_widths_follow_the_true_curves_within_their_errors(made: PsfCalibration) -> None:
    assert made.curves is not None
    z = np.asarray(made.curves.z_nm) + _crossing_nm()

    # a point is known to about 1 % (3 nm at the ends), a curve to a third of it; the focus to 3 nm
    inner = np.abs(z) < 550
    np.testing.assert_allclose(made.curves.sigma_x_nm[inner], _width(z, X_FORM)[inner], rtol=0.015)
    np.testing.assert_allclose(made.curves.sigma_y_nm[inner], _width(z, Y_FORM)[inner], rtol=0.015)


def test_points_scatter_about_the_curves_as_their_errors_say(scope: Any, bead: Any) -> None:
    rng = np.random.default_rng(2)
    truth = 4000 * np.repeat(scope.psf(17)[15:16], 400, axis=0) + 10

    spots = fit_spots(rng.poisson(truth) - 10.0, 4000, 10)

    assert spots.good.all()
    pulls = (spots.sigma_x_px - spots.sigma_x_px.mean()) / spots.sigma_x_err_px
    # standard deviation of 400 pulls: 1 ± 0.035, the sandwich's own spread aside
    assert pulls.std() == pytest.approx(1, abs=0.14)


def test_the_defocus_form_is_found_again(made: PsfCalibration) -> None:
    assert made.report.defocus is not None
    x, y = made.report.defocus["x"], made.report.defocus["y"]

    assert x["w"] == pytest.approx(140, abs=1.5)
    assert y["w"] == pytest.approx(145, abs=1.5)
    assert x["c"] == pytest.approx(-200 - _crossing_nm(), abs=10)
    assert y["c"] == pytest.approx(200 - _crossing_nm(), abs=10)
    assert x["d"] == pytest.approx(420, abs=15)


def test_a_round_psf_has_no_width_curves_and_its_focus_where_it_is_sharpest(
    scope: Any, bead: Any, field: Any
) -> None:
    round_scope = type(scope)(x=(130.0, 60.0, 400.0, 0.0, 0.0), y=(130.0, 60.0, 400.0, 0.0, 0.0))
    stack = field(round_scope, [bead(30, 30), bead(80, 80)])

    made = calibrate_psf([stack], SIZES)

    assert made.curves is None
    assert len(made.psf.volume) == 31
    assert made.psf.focus_plane * 50 == pytest.approx(15 * 50 + 60, abs=15)
    assert any(finding.text.startswith("No width curves") for finding in made.report.findings)


def _lone_ball(scope: Any, diameter_nm: float) -> Any:
    """A noise-free stack of one bead of a size."""
    stack = np.full((scope.planes, 60, 60), 100.0)
    stack[:, 12:49, 12:49] += 1e6 * scope.ball(37, diameter_nm)
    return stack


def test_taking_a_bead_out_narrows_by_the_variance_of_a_ball(scope: Any) -> None:
    stack = _lone_ball(scope, 200.0)
    ball = 200.0**2 / 20

    plain = calibrate_psf([stack], SIZES | NO_BLUR).psf
    pure = calibrate_psf([stack], SIZES | NO_BLUR | {"bead_diameter_nm": 200}).psf

    inner = slice(4, 25)
    wide = fit_spots(plain.volume[inner, 7:24, 7:24].astype(float), 2000, 20)
    narrow = fit_spots(pure.volume[inner, 7:24, 7:24].astype(float), 2000, 20)
    z = (np.arange(len(plain.volume)) - plain.focus_plane)[inner] * 50 + _crossing_nm()
    for name, form in (("sigma_x_px", X_FORM), ("sigma_y_px", Y_FORM)):
        truth = _width(z, form) ** 2
        left = getattr(narrow, name) ** 2 * 100**2 - truth
        before = getattr(wide, name) ** 2 * 100**2 - truth
        # d²/20 and, from the ball's depth, a tenth of it
        assert np.median(before) == pytest.approx(ball, rel=0.2)
        assert np.abs(np.median(left)) < 0.1 * ball
    assert pure.volume.sum() == pytest.approx(plain.volume.sum(), rel=2e-3)


def test_width_curves_are_those_of_a_point_where_the_bead_is_known(scope: Any) -> None:
    made = calibrate_psf([_lone_ball(scope, 200.0)], SIZES | {"bead_diameter_nm": 200})

    assert made.curves is not None
    z = np.asarray(made.curves.z_nm) + _crossing_nm()
    np.testing.assert_allclose(made.curves.sigma_x_nm, _width(z, X_FORM), rtol=0.015)


def test_a_ball_and_its_removal_are_inverse(scope: Any) -> None:
    volume = scope.psf(31)

    back = without_bead(volume, 1.0, (50.0, 100.0, 100.0), 1e-6)

    np.testing.assert_allclose(back, volume, atol=1e-4 * volume.max())


def test_two_channels_lie_side_by_side_with_one_z(scope: Any, bead: Any, field: Any) -> None:
    near = [bead(30, 30, 0.2, 0.1), bead(85, 62, -0.3, 0.2)]
    far = [  # mirrored top to bottom, 3.4 px to the right, focus 150 nm higher, half as bright
        bead(119 - one.y, one.x + 103, -one.dy_px, one.dx_px + 0.4, 150.0, one.photons / 2) for one in near
    ]
    stack = field(scope, near + far, (120, 200))

    made = calibrate_psf(
        [stack],
        SIZES | {"channel0": [0, 0, 100, 120], "channel1": [100, 0, 200, 120], "half_size": 12},
    )

    assert made.psf.channels == 2
    assert made.psf.volume.shape[1:] == (25, 50)
    one, other = np.split(made.psf.volume.astype(float), 2, axis=2)
    widths = [fit_spots(volume[:, 4:21, 4:21], 2000, 20) for volume in (one, other)]
    middle = round(made.psf.focus_plane)
    for spots in widths:
        assert (spots.x_px[middle], spots.y_px[middle]) == pytest.approx((0, 0), abs=0.03)
    crossing = [np.flatnonzero(np.diff(np.sign(s.sigma_x_px - s.sigma_y_px)))[0] for s in widths]
    assert crossing[1] - crossing[0] == 3


def test_beads_of_several_stacks_are_averaged_together(scope: Any, beads: list[Any], field: Any) -> None:
    stacks = [field(scope, beads[:2]), field(scope, beads[2:], seed=5)]

    made = calibrate_psf(stacks, SIZES)

    assert [bead.stack for bead in made.report.beads if not bead.dropped] == [0, 1, 1, 0]


def test_a_clump_among_beads_is_dropped_and_says_so(
    scope: Any, beads: list[Any], bead: Any, field: Any
) -> None:
    clump = [bead(60, 60, photons=30_000), bead(60, 64, photons=25_000)]

    made = calibrate_psf([field(scope, [*beads, *clump])], SIZES | {"isolation_px": 3, "half_size": 10})

    reasons = {b.places[0]: b.dropped for b in made.report.beads if b.dropped}
    assert any("unlike the others" in reason for reason in reasons.values())
    assert made.report.quality.beads_used == 4
    assert any("unlike the others" in finding.text for finding in made.report.findings)


def test_a_bead_out_of_depth_is_dropped_and_says_so(
    scope: Any, beads: list[Any], bead: Any, field: Any
) -> None:
    deep = bead(60, 60, dz_nm=900, photons=80_000)

    made = calibrate_psf([field(scope, [*beads, deep])], SIZES | {"half_size": 10})

    dropped = {b.places[0]: b.dropped for b in made.report.beads if b.dropped}
    assert list(dropped) == [(60, 60)]
    assert dropped[60, 60].startswith("out of depth: ")
    assert made.report.quality.beads_used == 4


def test_frames_of_a_plane_are_averaged_and_a_falling_stack_turned_round(
    scope: Any, beads: list[Any], field: Any
) -> None:
    stack = field(scope, beads)
    twice = np.repeat(stack, 2, axis=0)[::-1]

    plain = calibrate_psf([stack], SIZES)
    turned = calibrate_psf([twice], SIZES | {"frames_per_plane": 2, "reversed": True})

    np.testing.assert_allclose(turned.psf.volume, plain.psf.volume, atol=1e-6)


def test_bleaching_is_told_and_taken_out(scope: Any, beads: list[Any], field: Any) -> None:
    stack = field(scope, beads, keep=0.6)

    made = calibrate_psf([stack], SIZES)
    left = calibrate_psf([stack], SIZES | {"bleaching": False})

    assert made.report.quality.fading == pytest.approx(0.4, abs=0.06)
    totals = made.psf.volume.sum(axis=(1, 2))
    assert np.ptp(totals) < 0.04
    assert np.ptp(left.psf.volume.sum(axis=(1, 2))) > 0.3
    assert left.report.findings[0].level == "warning"


def test_light_that_spreads_beyond_the_cut_is_not_taken_for_bleaching(
    scope: Any, bead: Any, field: Any
) -> None:
    deep = type(scope)(x=(140.0, 600.0, 150.0, 0.0, 0.0), y=(140.0, 600.0, 150.0, 0.0, 0.0))
    stack = field(deep, [bead(30, 30, photons=400_000), bead(80, 80, photons=400_000)])

    made = calibrate_psf([stack], SIZES | {"half_size": 8, "width_half_size": 6})

    lost = made.psf.volume[0].sum() / made.psf.volume[27].sum()
    assert lost < 0.75  # the cut holds less of the first plane
    assert abs(made.report.quality.fading) < 0.1


def test_a_tilted_light_path_is_told_in_nanometres_per_micrometre(scope: Any, field: Any) -> None:
    stack = np.zeros((scope.planes, 80, 80))
    for k, z in enumerate(scope.z_nm):
        stack[k, 25:56, 25:56] = 5000 * scope.psf(31, dx_px=1.2 * z / 1000)[k]
    noise = np.random.default_rng(4).poisson(stack + 10)

    made = calibrate_psf([noise.astype(np.uint16)], SIZES | {"half_size": 12})

    assert made.report.quality.tilt_x == pytest.approx(120, abs=8)
    assert made.report.quality.tilt_y == pytest.approx(0, abs=8)
    assert any(f.level == "warning" and "tilted" in f.text for f in made.report.findings)


@pytest.mark.parametrize(("claimed_nm", "plausible"), [(50.0, True), (5.0, False), (600.0, False)])
def test_a_wrong_step_does_not_suit_the_width(
    scope: Any, beads: list[Any], field: Any, claimed_nm: float, plausible: bool
) -> None:
    made = calibrate_psf([field(scope, beads)], SIZES | {"step_nm": claimed_nm, "astigmatism": "yes"})

    warned = any("check the step" in f.text for f in made.report.findings if f.level == "warning")
    assert warned is not plausible
    praised = [f.text for f in made.report.findings if f.level == "good" and " nm" in f.text]
    assert bool(praised) is plausible, "no length is good where the step is in doubt"


def test_the_precision_foretold_is_that_of_a_gaussian_in_focus(scope: Any) -> None:
    sharp = type(scope)(
        step_nm=25.0, planes=41, x=(130.0, 0.0, 400.0, 0.0, 0.0), y=(130.0, 0.0, 400.0, 0.0, 0.0)
    )
    psf = MeasuredPsf(sharp.psf(31).astype(np.float32), 100.0, 25.0, 20.0)

    bound = crlb_against_z(psf, photons=1000, background_photons=0.1, half_size=12)

    # sigma²/N with sigma² of the pixel-integrated Gaussian and the pixel's variance, a little background
    expected = np.sqrt((130.0**2 + 100.0**2 / 12) / 1000)
    assert bound.x_nm[20] == pytest.approx(expected, rel=0.04)
    assert bound.y_nm[20] == pytest.approx(bound.x_nm[20], rel=1e-3)
    assert bound.z_nm[20] > 3 * bound.z_nm[30]  # in focus the width does not change with z


def test_a_report_is_plain_json(made: PsfCalibration) -> None:
    report = made.report.to_dict()

    assert json.loads(json.dumps(report, allow_nan=False))["quality"]["beads_used"] == 4


@pytest.mark.parametrize(
    ("stack", "text"),
    [
        (np.zeros((20, 20)), "of shape"),
        (np.zeros((3, 80, 80)), "too short"),
        (np.full((9, 80, 80), np.nan), "NaN"),
        (np.zeros((9, 80, 80), complex), "holds numbers"),
    ],
)
def test_what_is_no_stack_is_refused(stack: Any, text: str) -> None:
    with pytest.raises(InvalidFrames, match=text):
        calibrate_psf([stack], SIZES)


def test_stacks_of_different_depth_are_refused(scope: Any, beads: list[Any], field: Any) -> None:
    stack = field(scope, beads)

    with pytest.raises(InvalidFrames, match="31 and 25 planes"):
        calibrate_psf([stack, stack[:25]], SIZES)


def test_frames_that_do_not_fill_planes_are_refused(scope: Any, beads: list[Any], field: Any) -> None:
    with pytest.raises(InvalidFrames, match="31 frames are not a whole number of planes of 2"):
        calibrate_psf([field(scope, beads)], SIZES | {"frames_per_plane": 2})
