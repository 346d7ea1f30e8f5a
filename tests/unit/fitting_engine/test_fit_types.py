"""Every fit, from frames to rows: it finds the molecules, where they are, and says how well it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fitting import analyse, fits
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.errors import InvalidSettings
from fitting.localisations import LAT_GAUSS_DTYPE
from fitting.shift_field import ShiftField

Array = np.ndarray[Any, Any]
PIXEL_NM = 100.0
Z = np.arange(-800, 801, 50.0)
CURVES = SigmaCurves.from_defocus(Z, (130, 250, 400, 0, 0), (130, -250, 400, 0, 0))
FIELD = ShiftField(
    (4000.0, 2000.0), 4000.0, np.array([[230.0, 20.0], [40.0, 5.0]]), np.array([[-160.0, 30.0], [-25.0, 8.0]])
)
HEIGHT, WIDTH = 44, 78  # of a channel
PLAIN = {"background": None, "threshold": 2.0, "debounce_radius": 6.0}


def widths_px(z: float) -> tuple[float, float]:
    """Of CURVES, by their formula."""
    return tuple(1.3 * np.sqrt(1 + ((z - c) / 400) ** 2) for c in (250.0, -250.0))  # type: ignore[return-value]


@pytest.fixture
def psf(spot: Callable[..., Array]) -> MeasuredPsf:
    from scipy.special import erf

    def shares(sigma: float) -> Array:
        return np.diff(0.5 * erf((np.arange(26) - 12.5) / (np.sqrt(2) * sigma)))

    planes = [np.outer(shares(y), shares(x)) for x, y in (widths_px(z) for z in Z)]
    return MeasuredPsf(np.array(planes, np.float32), PIXEL_NM, 50.0, 16.0)


@dataclass
class Sample:
    """Molecules on a loose grid, anew in every frame, in one channel or in two."""

    spot: Callable[..., Array]
    photons: tuple[float, ...] = (2500.0,)
    flip: bool = True
    shifted: bool = True
    by_z: bool = True
    axial_shift_nm: float = 0.0
    shares: tuple[float, ...] = ()
    frames: int = 12
    seed: int = 1
    truth: list[tuple[float, ...]] = field(default_factory=list)

    def make(self) -> tuple[Array, Array]:
        """Raw frames, and of each molecule frame, x, y, z [nm], species."""
        rng = np.random.default_rng(self.seed)
        two = len(self.photons) == 2 or bool(self.shares)
        expected = np.full((self.frames, HEIGHT * (2 if two else 1), WIDTH), 8.0)
        for t, image in enumerate(expected):
            for x, y in [(cx, cy) for cx in (13, 39, 64) for cy in (13, 31)]:
                x, y = x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)
                z = rng.uniform(-350, 350) if self.by_z else 0.0
                species = int(rng.integers(len(self.shares))) if self.shares else 0
                photons = self._photons(species)
                self._draw(image[:HEIGHT], x, y, z, photons[0])
                if two:
                    self._draw_second(image[HEIGHT:], x, y, z, photons[1])
                self.truth.append((t, x * PIXEL_NM, y * PIXEL_NM, z, species))
        electrons = rng.poisson(expected) + rng.normal(0, 1.6, expected.shape)
        return np.clip(np.round(100 + electrons / 0.5), 0, 65535).astype(np.uint16), np.array(self.truth)

    def _photons(self, species: int) -> tuple[float, ...]:
        if not self.shares:
            return self.photons
        return 3500 * self.shares[species], 3500 * (1 - self.shares[species])

    def _draw_second(self, image: Array, x: float, y: float, z: float, photons: float) -> None:
        dx, dy = FIELD.at(x * PIXEL_NM, y * PIXEL_NM) if self.shifted else (0.0, 0.0)
        light = np.zeros_like(image)
        self._draw(
            light, x - float(dx) / PIXEL_NM, y - float(dy) / PIXEL_NM, z + self.axial_shift_nm, photons
        )
        image += light[::-1] if self.flip else light

    def _draw(self, image: Array, x: float, y: float, z: float, photons: float) -> None:
        sx, sy = widths_px(z) if self.by_z else (1.3, 1.3)
        across = self.spot(x, 0, 1.0, sx, 1, image.shape[1])
        down = self.spot(0, y, 1.0, sy, image.shape[0], 1)
        image += photons * np.outer(down / down.sum(), across / across.sum())


@pytest.fixture
def sample(spot: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    return lambda **given: Sample(spot, **given).make()


def matched(rows: Array, truth: Array) -> Array:
    """The molecule nearest to each row."""
    at = rows["fitResults"]
    far = (truth[:, 0] != rows["tIndex"][:, None]) * 1e9
    distance = np.hypot(truth[:, 1] - at["x0"][:, None], truth[:, 2] - at["y0"][:, None]) + far
    assert distance.min(axis=1, initial=np.inf).max() < 3 * PIXEL_NM
    nearest = distance.argmin(axis=1)
    assert len(set(nearest.tolist())) == len(nearest), "a molecule was found twice"
    return truth[nearest]


def pulls(rows: Array, name: str, true: Array) -> Array:
    converged = rows["resultCode"] == 1
    return ((rows["fitResults"][name] - true) / rows["fitError"][name])[converged]


def assert_right(rows: Array, truth: Array, *names: str) -> None:
    """All molecules found once, positions within their errors: mean and spread of the pulls as chance would have them."""
    assert len(rows) == len(truth)
    true = matched(rows, truth)
    assert (rows["resultCode"] == 1).mean() > 0.95
    for name in names:
        pull = pulls(rows, name, true[:, {"x0": 1, "y0": 2, "z0": 3}[name]])
        assert abs(pull.mean()) < 4 / np.sqrt(len(pull)), name
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * len(pull)), name


def test_a_centroid_finds_molecules_to_a_fraction_of_a_pixel(
    sample: Any, metadata: dict[str, object]
) -> None:
    frames, truth = sample(by_z=False)

    rows = analyse(frames, {"fit": "centroid", **PLAIN}, metadata).rows

    true = matched(rows, truth)
    assert len(rows) == len(truth)
    assert np.abs(rows["fitResults"]["x0"] - true[:, 1]).max() < 0.4 * PIXEL_NM
    sides = [np.median(rows["fitResults"][name]) for name in ("sigxl", "sigxr", "sigyu", "sigyd")]
    assert sides == pytest.approx(
        [85] * 4, abs=10
    )  # of a Gaussian of 130 nm, what exceeds a third of its peak
    assert "fitError" not in rows.dtype.names


def test_an_astigmatic_fit_gives_both_widths(sample: Any, metadata: dict[str, object]) -> None:
    frames, truth = sample()

    rows = analyse(frames, {"fit": "astigmatic", **PLAIN}, metadata).rows

    assert_right(rows, truth, "x0", "y0")
    wanted = np.array([widths_px(z) for z in matched(rows, truth)[:, 3]]) * PIXEL_NM
    for k, name in enumerate(("sigmax", "sigmay")):
        pull = (rows["fitResults"][name] - wanted[:, k]) / rows["fitError"][name]
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * len(pull))
    assert np.isnan(rows["fitError"]["bx"]).all()


@pytest.mark.parametrize("z", ["direct", "lookup"])
def test_an_astigmatic_fit_with_curves_gives_z(sample: Any, metadata: dict[str, object], z: str) -> None:
    frames, truth = sample(photons=(5000.0,))

    rows = analyse(
        frames, {"fit": "astigmatic", "sigma_curves": CURVES, "options": {"z": z}, **PLAIN}, metadata
    ).rows

    assert_right(rows, truth, "x0", "y0", "z0")
    assert np.median(rows["fitError"]["z0"]) < 20


def test_the_gpu_columns_hold_photo_electrons(sample: Any, metadata: dict[str, object]) -> None:
    frames, truth = sample(by_z=False, photons=(3000.0,))

    rows = analyse(frames, {"fit": "AstigGaussGPUFitFR", **PLAIN}, metadata).rows

    assert_right(rows, truth, "x0", "y0")
    assert np.median(rows["fitResults"]["A"]) == pytest.approx(3000, rel=0.02)
    assert np.median(rows["fitResults"]["background"]) == pytest.approx(8, abs=0.5)


def test_pyme_computes_the_photons_of_an_astigmatic_peak(sample: Any, metadata: dict[str, object]) -> None:
    frames, _ = sample()

    fitted = analyse(frames, {"fit": "astigmatic", **PLAIN}, metadata).rows["fitResults"]

    photons = 2 * np.pi * fitted["A"] * fitted["sigmax"] * fitted["sigmay"] / PIXEL_NM**2 * 0.5
    assert np.median(photons) == pytest.approx(2500, rel=0.02)


@pytest.mark.parametrize("interpolator", [None, "linear"])
def test_a_measured_psf_gives_z_and_the_whole_signal(
    sample: Any, metadata: dict[str, object], psf: MeasuredPsf, interpolator: str | None
) -> None:
    frames, truth = sample(photons=(2000.0,))

    rows = analyse(
        frames, {"fit": "spline", "psf": psf, "interpolator": interpolator, **PLAIN}, metadata
    ).rows

    assert np.median(rows["fitResults"]["A"] * 0.5) == pytest.approx(2000, rel=0.03)
    assert_right(rows, truth, "x0", "y0", "z0")


def test_a_refractive_index_factor_scales_z(
    sample: Any, metadata: dict[str, object], psf: MeasuredPsf
) -> None:
    frames, _ = sample(photons=(5000.0,), frames=4)
    analysis = {"fit": "spline", "psf": psf, **PLAIN}

    plain = analyse(frames, analysis, metadata).rows["fitResults"]
    scaled = analyse(frames, analysis | {"options": {"refractive_index_factor": 0.8}}, metadata).rows[
        "fitResults"
    ]

    assert scaled["z0"] == pytest.approx(0.8 * plain["z0"], abs=3)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("photons", [(2000.0, 1200.0), (2500.0, 0.0), (0.0, 2500.0)])
def test_a_molecule_seen_in_any_channel_is_found_once_where_channel_0_has_it(
    sample: Any, metadata: dict[str, object], flip: bool, photons: tuple[float, float]
) -> None:
    frames, truth = sample(photons=photons, flip=flip, by_z=False)
    analysis = {"fit": "two-colour", "shifts": FIELD, "flip": flip, **PLAIN}

    rows = analyse(frames, analysis, metadata).rows

    assert_right(rows, truth, "x0", "y0")
    fitted = rows["fitResults"]
    for channel, name in enumerate(("Ag", "Ar")):
        found = 2 * np.pi * fitted[name] * (fitted["sigma"] / PIXEL_NM) ** 2 * 0.5
        assert np.median(found) == pytest.approx(photons[channel], rel=0.03, abs=30)


def test_the_shift_fit_measures_the_field(sample: Any, metadata: dict[str, object]) -> None:
    frames, truth = sample(photons=(4000.0, 3000.0), by_z=False)

    rows = analyse(frames, {"fit": "SplitterShiftEstFR", "debounce_radius": 6.0}, metadata).rows

    assert len(rows) == len(truth)
    true = matched(rows, truth)
    for name, wanted in zip(("dx", "dy"), FIELD.at(true[:, 1], true[:, 2]), strict=True):
        pull = pulls(rows, name, wanted)
        assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * len(pull))


@pytest.mark.parametrize("flip", [True, False])
def test_a_spot_at_the_centre_of_a_pixel_is_a_whole_number_of_pixels_from_the_first(
    spot: Callable[..., Array], metadata: dict[str, object], flip: bool
) -> None:
    electrons = np.full((64, 48), 10.0)
    electrons[:32] += spot(17, 11, 40_000, 1.3, 32, 48)
    lower = spot(17, 11, 40_000, 1.3, 32, 48)
    electrons[32:] += lower[::-1] if flip else lower
    frame = np.round(100 + electrons / 0.5).astype(np.uint16)[np.newaxis]

    for fit in ("two-colour", "SplitterShiftEstFR"):
        found = analyse(frame, {"fit": fit, "flip": flip, **PLAIN}, metadata).rows["fitResults"]
        assert found["x0"] == pytest.approx([1700], abs=0.1)
        assert found["y0"] == pytest.approx([1100], abs=0.1)
        if fit == "SplitterShiftEstFR":
            assert (found["dx"], found["dy"]) == (pytest.approx([0], abs=0.1), pytest.approx([0], abs=0.1))


def test_a_bent_field_is_looked_up_where_the_molecule_is(
    spot: Callable[..., Array], metadata: dict[str, object]
) -> None:
    """Without noise nothing but the field's table and the place where it is read can move a molecule."""
    bent = ShiftField(
        (2000.0, 2000.0),
        2000.0,
        np.array([[200.0, 0, 30], [25, 0, 0], [20, 0, 0]]),
        np.array([[-90.0, 20, 25], [30, 5, 0]]),
    )
    rng = np.random.default_rng(8)
    places = rng.uniform(12, 28, (20, 2))
    frames = np.full((20, 80, 40), 110.0)
    for image, (x, y) in zip(frames, places, strict=True):
        dx, dy = bent.at(PIXEL_NM * x, PIXEL_NM * y)
        image[:40] += 2 * spot(x, y, 20_000, 1.3, 40, 40)
        image[40:] += 2 * spot(x - float(dx) / PIXEL_NM, y - float(dy) / PIXEL_NM, 20_000, 1.3, 40, 40)[::-1]

    rows = analyse(frames.astype(np.float32), {"fit": "two-colour", "shifts": bent, **PLAIN}, metadata).rows

    assert len(rows) == 20
    off = np.stack([rows["fitResults"][name] for name in ("x0", "y0")], axis=1) - PIXEL_NM * places
    assert np.abs(off).max() < 0.6


def test_the_part_of_the_chip_that_was_read_out_moves_channels_and_field_along(
    sample: Any, metadata: dict[str, object]
) -> None:
    """A smaller camera ROI shows the same molecules; the field counts from the chip's first pixel, positions from the frame's."""
    frames, truth = sample(photons=(3000.0, 2000.0), by_z=False, frames=6)
    cut = frames[:, 2 : 2 * HEIGHT - 3, 4:]
    chip = {
        "Camera.SensorWidth": WIDTH,
        "Camera.SensorHeight": 2 * HEIGHT,
        "Camera.ROIOriginX": 4,
        "Camera.ROIOriginY": 2,
    }
    moved = truth - [0, 4 * PIXEL_NM, 2 * PIXEL_NM, 0, 0]

    rows = analyse(cut, {"fit": "two-colour", "shifts": FIELD.to_dict(), **PLAIN}, metadata | chip).rows

    assert_right(rows, moved, "x0", "y0")


def test_colour_is_assigned_by_likelihood_and_its_fraction_has_an_error(
    sample: Any, metadata: dict[str, object]
) -> None:
    shares = (0.25, 0.45, 0.8)
    frames, truth = sample(shares=shares, by_z=False, frames=20)
    analysis = {"fit": "two-colour", "shifts": FIELD, "options": {"species": shares}, **PLAIN}

    rows = analyse(frames, analysis, metadata).rows

    species = matched(rows, truth)[:, 4].astype(int)
    assert (rows["species"] == species).all()
    assert rows["speciesMargin"].min() > 5
    pull = (rows["gFraction"] - np.array(shares)[species]) / rows["gFractionError"]
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * len(pull))


def test_a_measured_psf_in_two_channels_with_a_field(
    sample: Any, metadata: dict[str, object], psf: MeasuredPsf
) -> None:
    frames, truth = sample(photons=(2500.0, 3500.0))

    analysis = {"fit": "SplitterFitInterpNR", "psf": psf, "shifts": FIELD, **PLAIN}
    rows = analyse(frames, analysis, metadata).rows

    assert_right(rows, truth, "x0", "y0", "z0")
    true = matched(rows, truth)
    nearest = [FIELD.at(np.round(true[:, k] / PIXEL_NM) * PIXEL_NM, true[:, 2])[0] for k in (1,)]
    assert rows["fitResults"]["dx"] == pytest.approx(nearest[0], abs=15)
    assert np.isnan(rows["fitError"]["dx"]).all()


def test_a_biplane_takes_the_ratio_that_explains_it(
    sample: Any, metadata: dict[str, object], psf: MeasuredPsf
) -> None:
    frames, truth = sample(photons=(4200.0, 1800.0), axial_shift_nm=-270.0)
    options = {"axial_shift_nm": -270, "ratios": [0.5, 0.7, 0.9]}

    rows = analyse(
        frames, {"fit": "biplane", "psf": psf, "shifts": FIELD, "options": options, **PLAIN}, metadata
    ).rows

    assert_right(rows, truth, "x0", "y0", "z0")
    assert rows["ratio"] == pytest.approx(0.7)


def test_three_channels_share_one_place(spot: Callable[..., Array], metadata: dict[str, object]) -> None:
    rng = np.random.default_rng(4)
    expected = np.full((10, 30, 90), 6.0)
    places = rng.uniform(12, 17, (10, 2))
    for image, (x, y) in zip(expected, places, strict=True):
        for k, photons in enumerate((800.0, 1600.0, 400.0)):
            image += spot(x + 30 * k, y, photons, 1.3, 30, 90)
    frames = np.round(100 + rng.poisson(expected) / 0.5).astype(np.uint16)

    rows = analyse(frames, {"fit": "linked", "options": {"views": 3}, **PLAIN}, metadata).rows

    assert len(rows) == 10
    assert rows["fitResults"]["x0"] == pytest.approx(places[:, 0] * PIXEL_NM, abs=25)
    signals = [np.median(rows["fitResults"][f"A{k}"]) for k in range(3)]
    assert np.array(signals) / signals[1] == pytest.approx([0.5, 1, 0.25], abs=0.06)


def test_planes_with_a_measured_psf_share_one_place_and_one_signal(
    sample: Any, metadata: dict[str, object], psf: MeasuredPsf
) -> None:
    frames, truth = sample(photons=(4200.0, 1800.0), axial_shift_nm=-270.0)
    channels = [[0, 0, WIDTH, HEIGHT], [0, HEIGHT, WIDTH, HEIGHT]]
    options = {"channels": channels, "flips": [False, True], "ratios": [7, 3], "axial_shifts_nm": [0, -270]}
    with pytest.raises(InvalidSettings) as caught:
        analyse(frames, {"fit": "linked-3d", "psf": psf, "options": options}, metadata)
    assert caught.value.field == "options.ratios"

    options |= {"ratios": [0.7, 0.3]}
    rows = analyse(
        frames, {"fit": "linked-3d", "psf": psf, "shifts": FIELD, "options": options, **PLAIN}, metadata
    ).rows

    assert_right(rows, truth, "x0", "y0", "z0")
    assert np.median(rows["fitResults"]["A"] * 0.5) == pytest.approx(6000, rel=0.02)


@pytest.mark.parametrize(
    "analysis",
    [
        {"fit": "astigmatic", "sigma_curves": CURVES},
        {"fit": "centroid"},
        {"fit": "two-colour", "shifts": FIELD, "options": {"species": [0.3, 0.7]}},
        {"fit": "biplane", "psf": "measured", "options": {"ratios": [0.5, 0.7]}},
    ],
    ids=lambda analysis: analysis["fit"],
)
def test_any_split_into_tasks_gives_the_same_bytes(
    sample: Any, metadata: dict[str, object], psf: MeasuredPsf, analysis: dict[str, Any]
) -> None:
    frames, _ = sample(photons=(1500.0, 900.0), frames=30)
    settings = {**analysis, "background": "-7:0"} | ({"psf": psf} if "psf" in analysis else {})
    whole = analyse(frames, settings, metadata).rows
    assert len(whole) > 50

    resolved, parts = fits.resolve(settings, metadata), []
    for start, stop in pairwise([0, 1, 9, 10, 23, 30]):
        a, b = fits.context_range(resolved, metadata, (0, 30), start, stop)
        parts.append(
            analyse(
                frames[start:stop], settings, metadata, first_frame=start, series=(0, 30), context=(a, frames[a:b])
            ).rows
        )  # fmt: skip

    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_fiducials_of_any_fit_are_round_gaussians_and_count_once(
    spot: Callable[..., Array], metadata: dict[str, object]
) -> None:
    half = 20 + 40 * spot(24, 13, 9000, 1.4, 40, 60)
    expected = np.repeat(np.concatenate([half, half[::-1]])[np.newaxis], 12, axis=0)
    frames = np.round(100 + np.random.default_rng(3).poisson(expected) / 0.5).clip(0, 65535).astype(np.uint16)
    analysis = {"fit": "two-colour", "track_fiducials": True, "fiducial_roi_half_size": 6, **PLAIN}

    markers = analyse(frames, analysis, metadata).fiducials

    assert markers.dtype == LAT_GAUSS_DTYPE
    assert (markers["tIndex"] == np.arange(12)).all()
    assert markers["fitResults"]["x0"] == pytest.approx(2400, abs=5)
    assert markers["fitResults"]["y0"] == pytest.approx(1300, abs=5)


def test_no_molecules_are_no_rows_of_the_right_kind(metadata: dict[str, object], psf: MeasuredPsf) -> None:
    empty = np.full((3, 40, 40), 120, np.uint16)

    for name, fit in fits.FITS.items():
        analysis = {"fit": name} | ({"psf": psf} if "psf" in fit.needs else {})
        rows = analyse(empty, analysis, metadata).rows
        assert len(rows) == 0
        assert rows.dtype == fits.row_dtype(fits.resolve(analysis, metadata))


@pytest.mark.parametrize(
    ("analysis", "field"),
    [
        ({"fit": "spline", "psf": "psf.tif"}, "psf"),
        ({"fit": "two-colour", "channel0_roi": [0, 0, 20, 20], "channel1_roi": [0, 70, 20, 20]}, "channel1_roi"),
        ({"fit": "linked", "options": {"channels": [[0, 0, 9, 9], [9, 0, 9, 9]], "flips": [True, False]}}, "options.flips"),
    ],
)  # fmt: skip
def test_what_only_shows_with_the_frames_is_refused_by_name(
    metadata: dict[str, object], analysis: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        analyse(np.full((1, 40, 40), 100, np.uint16), analysis, metadata)
    assert caught.value.field == field
