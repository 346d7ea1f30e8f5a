"""The fit of a measured PSF against splines made by scipy in float64."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest
from scipy.interpolate import CubicSpline, make_interp_spline
from scipy.ndimage import map_coordinates

from fitting import fit_rois
from fitting.calibrated import MeasuredPsf
from fitting.errors import InvalidSettings
from fitting.lanes import LANES
from fitting.linked import Link, LinkedEstimates, estimate_linked, parameter_names
from fitting.localisations import ResultCode
from fitting.psf_kinds import Views, begin, equations, image, scratch
from fitting.rois import pack
from fitting.slots import make_slots
from fitting.spline import SplinePsf, spline_psf

Array = np.ndarray[Any, Any]

PIXEL_NM, STEP_NM = 100.0, 50.0
PLANES, WIDTH = 27, 25
FOCUS = 13.0
RNG = np.random.default_rng(4)


def _grid() -> tuple[Array, Array]:
    return (np.arange(PLANES) - FOCUS) * STEP_NM, np.arange(WIDTH) - (WIDTH - 1) / 2


def _astigmatic(turned: bool = False) -> Array:
    z, x = _grid()
    sx, sy = (1.3 * np.sqrt(1 + ((z - c) / 400) ** 2) for c in (200, -200))
    along_x, along_y = (np.exp(-(x**2) / 2 / s[:, None] ** 2) / s[:, None] for s in (sx, sy))
    volume: Array = along_y[:, :, None] * along_x[:, None, :]
    return volume.transpose(0, 2, 1) if turned else volume


def _double_helix() -> Array:
    z, x = _grid()
    angle = z / 650 * np.pi / 2
    volume = np.zeros((PLANES, WIDTH, WIDTH))
    for arm in (2.5, -2.5):
        u = x[None, None, :] - arm * np.cos(angle)[:, None, None]
        v = x[None, :, None] - arm * np.sin(angle)[:, None, None]
        volume += np.exp(-(u**2 + v**2) / 2 / 1.2**2)
    return volume


def _measured(volume: Array, channels: int = 1, focus: float = FOCUS) -> MeasuredPsf:
    return MeasuredPsf(volume.astype(np.float32), PIXEL_NM, STEP_NM, focus, channels)


class Plain:
    """The spline of a volume, 0 beyond it laterally, in float64."""

    def __init__(self, volume: Array, degree: int = 3) -> None:
        sampled = volume.astype(np.float32).astype(float)
        self.volume, self.degree = sampled / sampled[int(FOCUS)].sum(), degree

    def at(self, x: float, y: float, z_nm: float, side: int) -> tuple[Array, Array]:
        """The PSF (side, side), and its derivative by z [1/nm]."""
        pixels = np.arange(side) - (side - 1) / 2
        pad = 12
        at_y, at_x = np.meshgrid(pixels - y, pixels - x, indexing="ij")
        places = np.stack([at_y, at_x]) + (WIDTH - 1) / 2 + pad
        padded = np.pad(self.volume, ((0, 0), (pad, pad), (pad, pad)))
        planes = np.stack(
            [map_coordinates(plane, places, order=self.degree, mode="constant") for plane in padded]
        )
        z = _grid()[0]
        along_z = (
            CubicSpline(z, planes, bc_type="natural")
            if self.degree == 3
            else make_interp_spline(z, planes, k=1)
        )
        inside = np.clip(z_nm, z[0], z[-1])
        return along_z(inside), along_z(inside, 1) * (inside == z_nm)


def _buffers(images: Array, variance: Array | float = 0.0) -> tuple[Array, Array]:
    """(k, channels, side, side) photons → a buffer for each channel."""
    number, channels, side = images.shape[:3]
    data, extra = np.empty((2, channels, -(-number // LANES) * LANES * side**2), np.float32)
    noise = np.broadcast_to(np.asarray(variance, np.float32), (1, 1, 1)).copy()
    for c in range(channels):
        roi = np.ascontiguousarray(images[:, c], np.float32)
        pack(roi, noise, np.zeros((1, 1, 1), np.float32), False, 0, number, data[c], extra[c])
    return data, extra


def _fit(
    psf: SplinePsf,
    images: Array,
    link: Link | None = None,
    shifts: Array | None = None,
    start: Array | None = None,
) -> LinkedEstimates:
    images = images if images.ndim == 4 else images[:, np.newaxis]
    number, channels, side = images.shape[:3]
    data, extra = _buffers(images)
    shifts = np.zeros((number, channels, 2)) if shifts is None else shifts
    return estimate_linked(psf, link or Link(channels), data, extra, number, side, shifts, start)


@numba.njit
def _ask(psf: Any, slots: Any, views: Any, local: Any, gradient: Any, fisher: Any, share: Any) -> None:
    theta = np.zeros(slots.size * LANES, np.float32)
    work = np.empty(scratch(psf, views), np.float32)
    begin(psf, 0, views, 0, theta, slots, work)
    equations(psf, views, 0, 0, local, gradient, fisher, work)
    image(psf, views, 0, local, share, work)


def _asked(psf: SplinePsf, images: Array, local: Array) -> tuple[Array, Array, Array]:
    """What the kernel's operations say at sixteen `local` parameters (16, 5): gradient, Fisher matrix, image."""
    side = images.shape[1]
    data, extra = (buffer[0] for buffer in _buffers(images[:, np.newaxis]))
    views = Views(data, extra, data.size, side, 1, np.zeros(2 * LANES, np.float32), np.zeros(1, np.float32))
    slots = make_slots(1, len(parameter_names(psf, Link())), 1, None, True, False)
    gradient, fisher, share = (np.empty(n * LANES, np.float32) for n in (5, 25, side * side))
    _ask(psf.for_kernel(), slots, views, local.T.astype(np.float32).ravel(), gradient, fisher, share)
    lanes = (gradient.reshape(5, LANES), fisher.reshape(5, 5, LANES), share.reshape(side, side, LANES))
    return tuple(np.moveaxis(value, -1, 0) for value in lanes)  # type: ignore[return-value]


def _locals(side: int) -> Array:
    """Sixteen places, some far from the middle, some at the ends of z."""
    local = np.column_stack(
        [
            *RNG.uniform(-side / 2, side / 2, (2, LANES)), RNG.uniform(-600, 600, LANES), np.full(LANES, 900.0), np.full(LANES, 7.0)
        ]
    )  # fmt: skip
    local[:3, 2] = -650, 650, 649.9
    local[3, :3] = 0
    local[4, :2] = 40, -3
    local[5, :2] = 0, -18.5
    return local.astype(np.float32).astype(float)


@pytest.mark.parametrize("side", [7, 13, 14, 29])
def test_the_model_is_the_spline_through_the_samples(side: int) -> None:
    volume = _double_helix() + 0.02 * RNG.random((PLANES, WIDTH, WIDTH))
    plain = Plain(volume)
    local = _locals(side)

    share = _asked(spline_psf(_measured(volume), pixel_nm=PIXEL_NM), np.ones((LANES, side, side)), local)[2]

    for found, (x, y, z, _, _) in zip(share, local, strict=True):
        # the ring of coefficients beyond the edge ends at 4e-4 of what stands at the edge, here 0.02 of the peak
        assert abs(found - plain.at(x, y, z, side)[0]).max() < 1e-5 * plain.volume.max()


def _linear(volume: Array) -> SplinePsf:
    return spline_psf(_measured(volume), pixel_nm=PIXEL_NM, interpolator="linear")


def _near_the_middle() -> Array:
    place = RNG.uniform((-0.5, -0.5, -500), (0.5, 0.5, 500), (LANES, 3))
    local: Array = np.column_stack([place, np.full(LANES, 900.0), np.full(LANES, 7.0)]).astype(np.float32)
    return local.astype(float)


@pytest.mark.parametrize("volume", [_astigmatic(), _double_helix()], ids=["astigmatic", "double helix"])
def test_the_linear_model_is_nearer_to_the_spline_than_one_through_the_samples(volume: Array) -> None:
    cubic, chords = Plain(volume), Plain(volume, 1)
    local = _near_the_middle()

    share = _asked(_linear(volume), np.ones((LANES, 13, 13)), local)[2]

    wanted, other = (np.stack([p.at(*place[:3], 13)[0] for place in local]) for p in (cubic, chords))
    assert np.mean((share - wanted) ** 2) < 0.6 * np.mean((other - wanted) ** 2)
    assert abs(share.sum() / wanted.sum() - 1) < 1e-3


def test_slopes_of_the_linear_model_are_differences_over_a_sample() -> None:
    psf, ones = _linear(_double_helix()), np.ones((LANES, 13, 13))
    local = _near_the_middle()
    images = RNG.poisson(30.0, ones.shape).astype(float)

    gradient, fisher, share = _asked(psf, images, local)

    mu = 900 * share + 7
    for k, sample in enumerate((1.0, 1.0, STEP_NM)):
        ahead, behind = (_asked(psf, ones, local + side * np.eye(5)[k] * sample / 2)[2] for side in (1, -1))
        slope = (ahead - behind) / sample
        size = np.sqrt((slope**2 / mu).sum(axis=(1, 2)))
        assert (abs(np.sqrt(fisher[:, k, k]) / size - 1) < 1e-3).all()
        assert (abs(gradient[:, k] - (slope * (images / mu - 1)).sum(axis=(1, 2))) < 5e-3 * size).all()


def test_between_planes_away_from_the_ends_it_is_scipys_map_coordinates() -> None:
    volume = _astigmatic()
    found = _asked(
        spline_psf(_measured(volume), pixel_nm=PIXEL_NM), np.ones((LANES, 11, 11)), np.tile([0.3, -0.4, 73.0, 1, 0], (LANES, 1))
    )[2][0]  # fmt: skip

    pixels = np.arange(11) - 5 + (WIDTH - 1) / 2
    places = np.meshgrid([FOCUS + 73.0 / STEP_NM], pixels + 0.4, pixels - 0.3, indexing="ij")
    expected = map_coordinates(volume / volume[int(FOCUS)].sum(), places, order=3, mode="mirror")[0]

    assert abs(found - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize("side", [9, 17])
def test_gradient_and_fisher_matrix_are_those_of_the_likelihood(side: int) -> None:
    plain = Plain(_double_helix())
    local = _locals(side)
    local[:, :2] = RNG.uniform(-1.5, 1.5, (LANES, 2)).astype(np.float32)
    images = RNG.poisson(30.0, (LANES, side, side)).astype(float)
    images[:, 2, 3] = np.nan

    gradient, fisher, _ = _asked(spline_psf(_measured(_double_helix()), pixel_nm=PIXEL_NM), images, local)

    for k, (x, y, z, n, b) in enumerate(local):
        h, by_z = plain.at(x, y, z, side)
        step = 1e-4
        by_x, by_y = (
            (plain.at(x + i * step, y + j * step, z, side)[0] - plain.at(x - i * step, y - j * step, z, side)[0]) / (2 * step)
            for i, j in ((1, 0), (0, 1))
        )  # fmt: skip
        known = np.isfinite(images[k])
        derivatives = np.stack([by_x, by_y, by_z, h, np.ones_like(h)])[:, known]
        mu = n * h[known] + b
        expected = derivatives @ (images[k][known] / mu - 1)
        matrix = np.triu(derivatives / mu @ derivatives.T)
        size = np.sqrt(np.diag(matrix))
        if by_z.any():
            assert (abs(gradient[k] - expected) / size < 2e-3).all()
            assert (abs(np.triu(fisher[k]) - matrix) / np.outer(size, size) < 1e-4).all()
        else:
            assert gradient[k, 2] == 0


def test_the_focus_plane_of_each_channel_sums_to_one() -> None:
    both = np.concatenate([3 * _astigmatic(), 0.5 * _double_helix()], axis=2)
    psf = spline_psf(_measured(both, channels=2), pixel_nm=PIXEL_NM)

    for channel, volume in enumerate((_astigmatic(), _double_helix())):
        alone = spline_psf(_measured(volume), pixel_nm=PIXEL_NM)
        np.testing.assert_allclose(psf.coefficients[channel], alone.coefficients[0], rtol=0, atol=1e-7)
        local = np.tile([0.0, 0, 0, 1, 0], (LANES, 1))
        share = _asked(alone, np.ones((LANES, WIDTH, WIDTH)), local)[2][0]
        assert share.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("interpolator", ["cubic", "linear"])
@pytest.mark.parametrize("volume", [_astigmatic(), _double_helix()], ids=["astigmatic", "double helix"])
def test_a_molecule_without_noise_is_recovered_wherever_it_is(volume: Array, interpolator: str) -> None:
    psf = spline_psf(_measured(volume), pixel_nm=PIXEL_NM, interpolator=interpolator)
    number = 3 * LANES
    truth = np.column_stack(
        [*RNG.uniform(-0.6, 0.6, (2, number)), np.linspace(-500, 500, number), np.full(number, 2000.0), np.full(number, 5.0)]
    ).astype(np.float32)  # fmt: skip
    ones = np.ones((LANES, 13, 13))
    share = np.concatenate([_asked(psf, ones, places.astype(float))[2] for places in np.split(truth, 3)])
    images = 2000 * share + 5

    found = _fit(psf, images)

    assert (found.quality[:, 3] == ResultCode.CONVERGED).all()
    assert found.quality[:, 0].max() < 0.01
    errors = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert (abs(found.theta - truth) < 0.02 * errors).all()
    assert abs(found.theta[:, 2] - truth[:, 2]).max() < 0.2


@pytest.mark.parametrize(
    "link",
    [
        Link(2),
        Link(2, free_shift=True),
        Link(2, ratios=(0.7, 0.3)),
        Link(2, axial_shift_nm=(150.0, -120.0)),
        Link(2, free_background=False),
        Link(3, ratios=(0.5, 0.3, 0.2), axial_shift_nm=(0.0, 100.0, 200.0)),
    ],
    ids=["two channels", "free shift", "shares", "axial shift", "no background", "three planes"],
)
def test_channels_share_a_molecule(link: Link) -> None:
    volumes = [_astigmatic(), _double_helix(), _astigmatic(turned=True)][: link.channels]
    psf = spline_psf(_measured(np.concatenate(volumes, axis=2), link.channels), pixel_nm=PIXEL_NM)
    number = 20
    shifts = np.zeros((number, link.channels, 2))
    shifts[:, 1:] = RNG.uniform(-0.5, 0.5, (number, link.channels - 1, 2))
    truth, images = [], np.empty((number, link.channels, 13, 13))
    names = parameter_names(psf, link)
    for k in range(number):
        value = {
            "x": RNG.uniform(-0.5, 0.5),
            "y": RNG.uniform(-0.5, 0.5),
            "z": RNG.uniform(-350, 350),
            "N": 3000.0,
        }
        value |= {f"N{c}": 1500.0 + 500 * c for c in range(3)} | {f"b{c}": 4.0 + c for c in range(3)}
        value |= {"dx1": 0.2, "dy1": -0.3}
        for c, volume in enumerate(volumes):
            n = value[f"N{c}"] if link.ratios is None else value["N"] * link.ratios[c]
            free = np.array([value["dx1"], value["dy1"]]) if link.free_shift and c else np.zeros(2)
            x, y = np.array([value["x"], value["y"]]) + shifts[k, c] + free
            z = value["z"] + (link.axial_shift_nm[c] if link.axial_shift_nm else 0)
            images[k, c] = n * Plain(volume).at(x, y, z, 13)[0] + (
                value[f"b{c}"] if link.free_background else 0
            )
        truth.append([value[name] for name in names])

    found = _fit(psf, images, link, shifts)

    assert found.names == names
    assert (found.quality[:, 3] == ResultCode.CONVERGED).all()
    errors = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert (abs(found.theta - np.array(truth)) < 0.05 * errors).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_volume_of_other_channels_than_the_fit_is_refused(channels: int) -> None:
    both = np.concatenate([_astigmatic(), _double_helix()], axis=2)
    psf = spline_psf(_measured(both, channels=2), pixel_nm=PIXEL_NM)

    with pytest.raises(InvalidSettings, match=f"holds 2 channels side by side, but the fit has {channels}"):
        _fit(psf, np.ones((2, channels, 9, 9)))


def test_one_volume_serves_all_channels() -> None:
    plain, psf = Plain(_astigmatic()), spline_psf(_measured(_astigmatic()), pixel_nm=PIXEL_NM)
    images = np.stack(
        [[900 * plain.at(0.1, 0.2, z + dz, 11)[0] + 3 for dz in (0, 200)] for z in (-200, 0, 150)]
    )

    found = _fit(psf, images, Link(2, axial_shift_nm=(0.0, 200.0)))

    np.testing.assert_allclose(found.theta[:, 2], (-200, 0, 150), atol=0.5)


def _alike() -> Array:
    """A volume that looks nearly alike above and below the focus."""
    return 0.97 * (_astigmatic() + _astigmatic(turned=True)) / 2 + 0.03 * _astigmatic()


def _noisy(number: int, photons: float = 800.0, side: int = 11, volume: Array | None = None) -> Array:
    plain = Plain(_astigmatic() if volume is None else volume)
    places = np.column_stack([*RNG.uniform(-0.5, 0.5, (2, number)), RNG.uniform(-400, 400, number)])
    return RNG.poisson(np.stack([photons * plain.at(*place, side)[0] + 10 for place in places])).astype(float)


@pytest.mark.parametrize("volume", [_astigmatic(), _alike()], ids=["one start", "two starts"])
def test_a_fit_does_not_depend_on_its_neighbours_or_its_lane(volume: Array) -> None:
    psf = _measured(volume)
    rois = _noisy(70, photons=300.0, volume=volume)
    rois[3] = 0
    rois[40] = np.nan
    order = RNG.permutation(len(rois))

    whole = fit_rois(rois, model="spline", psf=psf)
    shuffled = fit_rois(rois[order], model="spline", psf=psf)
    alone = np.concatenate([fit_rois(roi[np.newaxis], model="spline", psf=psf) for roi in rois])

    assert whole[order].tobytes() == shuffled.tobytes()
    assert whole.tobytes() == alone.tobytes()


def test_errors_and_likelihood_are_those_of_the_model() -> None:
    plain = Plain(_astigmatic())
    rois = _noisy(12)

    found = fit_rois(rois, model="spline", psf=_measured(_astigmatic()))

    for roi, row in zip(rois, found, strict=True):
        x, y, z = float(row["x_px"]) - 5, float(row["y_px"]) - 5, float(row["z_nm"])
        h, by_z = plain.at(x, y, z, 11)
        by_x = (plain.at(x + 1e-4, y, z, 11)[0] - plain.at(x - 1e-4, y, z, 11)[0]) / 2e-4
        by_y = (plain.at(x, y + 1e-4, z, 11)[0] - plain.at(x, y - 1e-4, z, 11)[0]) / 2e-4
        n, b = float(row["photons"]), float(row["background"])
        mu, derivatives = n * h + b, np.stack([n * by_x, n * by_y, n * by_z, h, np.ones_like(h)])
        bound = np.sqrt(np.diag(np.linalg.inv(np.einsum("kyx,lyx->kl", derivatives, derivatives / mu))))
        errors = [row[f"{name}_err"] for name in ("x_px", "y_px", "z_nm", "photons", "background")]
        np.testing.assert_allclose(errors, bound, rtol=0.01)
        terms = np.where(roi > 0, roi * np.log(np.maximum(roi, 1) / mu), 0)
        assert row["log_likelihood"] == pytest.approx(-(mu - roi + terms).sum(), rel=1e-4)


@pytest.mark.parametrize("volume", [_astigmatic(), _double_helix()], ids=["astigmatic", "double helix"])
def test_no_better_maximum_is_missed(volume: Array) -> None:
    plain, psf = Plain(volume), spline_psf(_measured(volume), pixel_nm=PIXEL_NM)
    truth = np.column_stack(
        [
            *RNG.uniform(-0.5, 0.5, (2, 200)),
            RNG.uniform(-500, 500, 200),
            np.full(200, 400.0),
            np.full(200, 8.0),
        ]
    )
    images = RNG.poisson(np.stack([n * plain.at(x, y, z, 11)[0] + b for x, y, z, n, b in truth])).astype(
        float
    )

    found, best = _fit(psf, images), _fit(psf, images, start=truth)

    assert (found.quality[:, 0] > best.quality[:, 0] + 0.1).sum() <= 1


def test_a_volume_that_looks_alike_on_both_sides_is_tried_on_both() -> None:
    volume = _alike()
    plain, psf = Plain(volume), spline_psf(_measured(volume), pixel_nm=PIXEL_NM)
    truth = np.column_stack(
        [
            *RNG.uniform(-0.5, 0.5, (2, 64)),
            np.repeat([-300.0, 300.0], 32),
            np.full(64, 3000.0),
            np.full(64, 5.0),
        ]
    )
    images = np.stack([n * plain.at(x, y, z, 11)[0] + b for x, y, z, n, b in truth])
    wrong = truth.copy()
    wrong[:, 2] *= -1

    found, other = _fit(psf, images), _fit(psf, images, start=wrong)

    assert (
        np.sign(other.theta[:, 2]) == np.sign(wrong[:, 2])
    ).mean() > 0.9  # the other side holds a maximum too
    np.testing.assert_allclose(found.theta[:, 2], truth[:, 2], atol=5)


def test_a_molecule_beyond_the_volume_has_left_it() -> None:
    plain = Plain(_astigmatic())
    inner = spline_psf(
        MeasuredPsf(_astigmatic()[7:20].astype(np.float32), PIXEL_NM, STEP_NM, 6.0), pixel_nm=PIXEL_NM
    )
    images = np.stack([5000 * plain.at(0, 0, z, 11)[0] + 5 for z in (-500, 500, 0)])

    found = _fit(inner, images)

    assert found.quality[:, 3].tolist() == [ResultCode.LEFT_ROI, ResultCode.LEFT_ROI, ResultCode.CONVERGED]
    np.testing.assert_allclose(found.theta[:2, 2], (-300, 300))
    assert np.isnan(found.covariance[:2]).all()


def test_a_molecule_beyond_the_roi_has_left_it() -> None:
    images = 50_000 * Plain(_astigmatic()).at(6.5, 0, 0, 9)[0] + 5

    found = _fit(spline_psf(_measured(_astigmatic()), pixel_nm=PIXEL_NM), images[np.newaxis])

    assert found.quality[0, 3] == ResultCode.LEFT_ROI


def test_the_refractive_index_factor_scales_z() -> None:
    rois = _noisy(10)

    plain = fit_rois(rois, model="spline", psf=_measured(_astigmatic()))
    scaled = fit_rois(rois, model="spline", psf=_measured(_astigmatic()), refractive_index_factor=0.8)

    np.testing.assert_allclose(scaled["z_nm"], 0.8 * plain["z_nm"], atol=0.02 * plain["z_nm_err"].max())
    np.testing.assert_allclose(scaled["z_nm_err"], 0.8 * plain["z_nm_err"], rtol=0.02)


def test_z_is_counted_from_the_focus_plane() -> None:
    rois = _noisy(10)

    middle = fit_rois(rois, model="spline", psf=_measured(_astigmatic()))
    lower = fit_rois(rois, model="spline", psf=_measured(_astigmatic(), focus=11.0))

    np.testing.assert_allclose(lower["z_nm"], middle["z_nm"] + 2 * STEP_NM, atol=0.5)


def test_pixels_that_are_unknown_count_for_nothing() -> None:
    psf = _measured(_astigmatic())
    rois = _noisy(5)
    rois[:, 2, 6] = 1e5
    holes = rois.copy()
    holes[:, 2, 6] = np.nan
    variance = np.zeros_like(rois)
    variance[:, 2, 6] = np.inf

    found = fit_rois(holes, model="spline", psf=psf)

    assert found.tobytes() == fit_rois(rois, model="spline", psf=psf, variance=variance).tobytes()
    assert (found["status"] == ResultCode.CONVERGED).all()


@pytest.mark.parametrize(
    ("name", "roi"),
    [
        ("all zero", np.zeros((7, 7))),
        ("constant", np.full((7, 7), 12.0)),
        ("saturated", np.full((7, 7), 65535.0)),
        ("nothing but NaN", np.full((7, 7), np.nan)),
        ("one bright pixel", 5.0 + 900.0 * (np.arange(49).reshape(7, 7) == 24)),
        ("infinite", np.full((7, 7), np.inf)),
        ("huge", np.full((7, 7), 1e30)),
        ("bright", np.full((7, 7), 1e19)),
        ("negative", np.full((7, 7), -50.0)),
        ("three pixels", np.where(np.arange(49).reshape(7, 7) < 3, 5.0, np.nan)),
    ],
)
def test_a_degenerate_roi_gives_finite_values_and_a_status(name: str, roi: Array) -> None:
    found = fit_rois(roi[np.newaxis], model="spline", psf=_measured(_astigmatic()))[0]

    fields = ("x_px", "y_px", "z_nm", "photons", "background")
    assert all(np.isfinite(found[field]) for field in fields), name
    assert found["status"] in set(ResultCode)
    if found["status"] == ResultCode.CONVERGED:
        assert all(np.isfinite(found[f"{field}_err"]) for field in fields), name


def test_no_rois_give_no_rows() -> None:
    assert len(fit_rois(np.zeros((0, 7, 7)), model="spline", psf=_measured(_astigmatic()))) == 0


@pytest.mark.parametrize("pixel_nm", [97.0, (100.0, 108.0)])
def test_a_psf_of_another_pixel_size_is_refused_with_both_sizes(pixel_nm: Any) -> None:
    with pytest.raises(
        InvalidSettings, match=rf"pixels of 100 nm, the data have {np.atleast_1d(pixel_nm)[-1]:g} nm"
    ):
        spline_psf(_measured(_astigmatic()), pixel_nm=pixel_nm)


def test_a_pixel_size_within_two_percent_will_do() -> None:
    assert spline_psf(_measured(_astigmatic()), pixel_nm=(101.5, 98.5)).pitch_nm == STEP_NM


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"interpolator": "quintic"}, "there are cubic, linear"),
        ({"refractive_index_factor": 0.0}, "from 0.1 to 10"),
        ({"refractive_index_factor": float("nan")}, "from 0.1 to 10"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        spline_psf(_measured(_astigmatic()), pixel_nm=PIXEL_NM, **wrong)


def test_a_focus_outside_the_stack_or_in_the_dark_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="outside its 27 planes"):
        spline_psf(_measured(_astigmatic(), focus=40.0), pixel_nm=PIXEL_NM)
    with pytest.raises(InvalidSettings, match="dark at its focus"):
        spline_psf(_measured(-_astigmatic()), pixel_nm=PIXEL_NM)


def test_the_spline_model_needs_a_measured_psf_and_maximum_likelihood() -> None:
    with pytest.raises(InvalidSettings, match="needs a MeasuredPsf"):
        fit_rois(np.ones((1, 7, 7)), model="spline")
    with pytest.raises(InvalidSettings, match="must be mle"):
        fit_rois(np.ones((1, 7, 7)), model="spline", psf=_measured(_astigmatic()), estimator="wls")


def test_a_round_gaussian_loads_no_splines() -> None:
    code = (
        "import sys, numpy as np; from fitting import fit_rois; fit_rois(np.ones((3, 7, 7)));"
        "assert not {'fitting.spline', 'fitting.spline_kind'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_splines_are_made_without_numba() -> None:
    code = "import sys, fitting.spline; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
