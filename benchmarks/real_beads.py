"""How well does a PSF made from some beads tell the z of other beads, that a stage moved by known steps?

    python benchmarks/real_beads.py --data DIR [--picture FILE.png] [--quick]

DIR holds the folder smlm2016_beads_as_sage (the astigmatic bead stack of the localisation challenge of 2016: 6 beads, 151 planes of 10 nm; public, not part of
this project). A PSF is made from four beads and the other two are localised in every plane, three times, so that each of the six is localised once by a PSF that has
not seen it; once with splines, once with Gaussians whose widths depend on z. Where DIR also has pyme_psf_tifs (PYME's PSF stacks), molecules are simulated from each
and fitted with it. The picture needs matplotlib. Without --data, or with --quick, a small simulated stack stands in.

Prints one JSON line: for each model, over planes within 500 nm of the middle, `bias_nm` (root mean square over z of the mean of all
beads), `spread_nm` (of single beads around that mean), `bound_nm` (standard error by the Cramér–Rao bound), the slope of z against the stage, lateral
standard deviations, and `nchi2` (1 if the model is right). The offset between a bead's z and the PSF's zero is taken out as a median.
"""

from __future__ import annotations

import argparse
import json
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from scipy.special import erf
from turns import machine

from fitting import fit_rois
from fitting.calibrated import MeasuredPsf
from fitting.calibration.calibrate_psf import PsfCalibration, calibrate_psf
from fitting.linked import Link, LinkedEstimates, estimate_linked
from fitting.rois import pack
from fitting.spline import spline_psf

Array = np.ndarray[Any, Any]

FOLDER, FILE = "smlm2016_beads_as_sage", "Beads-AS-Exp.tif"
PSFS = "pyme_psf_tifs"
PAIRS = ((0, 1), (2, 3), (4, 5))
FOCUS_NM = 500.0
REACH = 19  # px around a bead that its PSF is made from
HALF_SIZE = (
    6  # of the ROI; in larger ones the flanks of the PSF, which are not Gaussian, mislead the Gaussian model
)
FAR = 6.0  # errors
MODELS = ("spline", "astigmatic")
INKS = ("#0b5394", "#c55a11", "#6aa84f", "#674ea7", "#a61c00", "#45818e")


class Beads(NamedTuple):
    """A bead stack [ADU], the beads' places (y, x), and what is known of microscope and camera."""

    stack: Array
    places: tuple[tuple[int, int], ...]
    step_nm: float
    pixel_nm: float
    offset_adu: float
    photons_per_adu: float
    variance_e2: float
    noise_factor: float


def main() -> None:
    options = parse()
    quick = options.quick or options.data is None
    beads = simulated() if quick else challenge(options.data / FOLDER / FILE)
    found = localise_all(beads)
    line: dict[str, Any] = {"benchmark": "real_beads", "stack": "simulated" if quick else FOLDER}
    line |= {model: summary(beads, found[model]) for model in MODELS}
    stacks = [] if quick else sorted((options.data / PSFS).glob("*.tif"))
    line["psf_stacks"] = {path.stem: refitted(path) for path in stacks}
    if options.picture:
        draw(beads, found, options.picture)
    print(json.dumps(line | {"machine": machine()}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of public data sets")
    parser.add_argument("--picture", type=Path, help="where to draw z against the stage")
    parser.add_argument("--quick", action="store_true", help="a small simulated stack")
    return parser.parse_args()


def challenge(path: Path) -> Beads:
    """The challenge's stack; its camera: 45 electrons per ADU, EM gain 300, 74 electrons of read noise."""
    stack = tifffile.imread(path).astype(np.float32)
    places = ((19, 25), (27, 93), (61, 122), (70, 43), (110, 91), (118, 29))
    return Beads(stack, places, 10.0, 100.0, 100.0, 45 / 300, (74.4 / 300) ** 2, np.sqrt(2))


def simulated() -> Beads:
    """Six beads of astigmatic Gaussian shape in 41 planes of 40 nm."""
    rng = np.random.default_rng(3)
    z = (np.arange(41) - 20) * 40.0
    stack = np.full((41, 150, 150), 20.0)
    places = tuple((y, x) for y in (30, 75, 120) for x in (40, 110))
    for y, x in places:
        dy, dx = rng.uniform(-0.4, 0.4, 2)
        along_x, along_y = (
            shares(150, at, 1.3 * np.sqrt(1 + ((z + to) / 400) ** 2))
            for at, to in ((x + dx, -200), (y + dy, 200))
        )
        stack += 20_000 * along_y[:, :, np.newaxis] * along_x[:, np.newaxis]
    return Beads(rng.poisson(stack).astype(np.float32), places, 40.0, 100.0, 0.0, 1.0, 0.0, 1.0)


def shares(length: int, centre: float, sigma: Array) -> Array:
    edges = (np.arange(length + 1) - 0.5 - centre) / (np.sqrt(2) * sigma[:, np.newaxis])
    return np.diff(0.5 * erf(edges))


def localise_all(beads: Beads) -> dict[str, list[Array]]:
    """The rows of every bead's fits by model, one for each plane, in the order of the beads."""
    found: dict[str, list[Array]] = {model: [] for model in MODELS}
    for pair in PAIRS:
        others = [cut(beads, k, REACH) for k in range(len(beads.places)) if k not in pair]
        options = {"pixel_nm": beads.pixel_nm, "step_nm": beads.step_nm, "half_size": REACH - 4}
        calibration = calibrate_psf(others, options)
        for k in pair:
            rois = (cut(beads, k, HALF_SIZE) - beads.offset_adu) * beads.photons_per_adu
            for model in MODELS:
                found[model].append(
                    fit_rois(rois, model=model, variance=beads.variance_e2, **told(model, calibration, beads))
                )
    return found


def told(model: str, calibration: PsfCalibration, beads: Beads) -> dict[str, Any]:
    """What a model has to know."""
    if model == "spline":
        return {"psf": calibration.psf}
    return {"curves": calibration.curves, "pixel_nm": beads.pixel_nm}


def cut(beads: Beads, number: int, reach: int) -> Array:
    y, x = beads.places[number]
    return beads.stack[:, y - reach : y + reach + 1, x - reach : x + reach + 1]


def stage_nm(beads: Beads) -> Array:
    return (np.arange(len(beads.stack)) - (len(beads.stack) - 1) / 2) * beads.step_nm


def residuals(beads: Beads, rows: Array, name: str) -> Array:
    """What a bead's fits differ from the stage (z) or from their middle (x, y) [nm]; NaN for a plane whose fit did not converge."""
    stage = stage_nm(beads)
    value = rows[name] - stage if name == "z_nm" else rows[name] * beads.pixel_nm
    value = np.where(rows["status"] == 1, value, np.nan)
    return value - np.nanmedian(value[abs(stage) <= FOCUS_NM])


def summary(beads: Beads, tables: list[Array]) -> dict[str, float]:
    stage = stage_nm(beads)
    near = abs(stage) <= FOCUS_NM
    z = np.stack([residuals(beads, rows, "z_nm")[near] for rows in tables])
    mean = average(z)
    seen = np.isfinite(mean)
    lateral = {
        name: np.stack([residuals(beads, rows, name)[near] for rows in tables]) for name in ("x_px", "y_px")
    }
    rows = np.stack([rows[near] for rows in tables])
    good = rows["status"] == 1
    pixels = (2 * HALF_SIZE + 1) ** 2 - 5
    answer = {
        "converged": good.mean(),
        "bias_nm": np.sqrt(np.nanmean(mean**2)),
        "largest_bias_nm": np.nanmax(abs(mean)),
        "spread_nm": np.sqrt(np.nanmean((z - mean) ** 2) * len(tables) / (len(tables) - 1)),
        "bound_nm": beads.noise_factor * np.median(rows["z_nm_err"][good]),
        "slope": 1 + np.polyfit(stage[near][seen], mean[seen], 1)[0],
        "x_sd_nm": np.nanstd(lateral["x_px"]),
        "y_sd_nm": np.nanstd(lateral["y_px"]),
        "x_bound_nm": beads.noise_factor * beads.pixel_nm * np.median(rows["x_px_err"][good]),
        "photons": np.median(rows["photons"][good]),
        "nchi2": np.median(-2 * rows["log_likelihood"][good]) / pixels / beads.noise_factor**2,
    }
    return {name: round(float(value), 3) for name, value in answer.items()}


def average(values: Array) -> Array:
    """Mean over beads of each plane, without NaN; NaN for a plane that has nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result: Array = np.nanmean(values, axis=0)
    return result


def refitted(
    path: Path, photons: float = 2000.0, background: float = 10.0, count: int = 2000
) -> dict[str, float]:
    """Simulate molecules within 400 nm of a PSF stack's middle, and fit them with it.

    Spread over the bound, as the median of absolute errors has it; the share of molecules that are farther than six errors from their z (a PSF that looks
    alike above and below the focus takes some for their mirror images); and the share of which a fit that starts at the truth finds a higher likelihood.
    """
    psf = read_psf(path)
    rng = np.random.default_rng(1)
    reach = min(400.0, (len(psf.volume) / 2 - 3) * psf.step_nm)
    plane = np.rint(psf.focus_plane + rng.uniform(-reach, reach, count) / psf.step_nm).astype(int)
    middle = psf.volume.shape[1] // 2
    share = psf.volume / psf.volume[round(psf.focus_plane)].sum()
    around = slice(middle - HALF_SIZE, middle + HALF_SIZE + 1)
    images = rng.poisson(np.maximum(photons * share[plane, around, around] + background, 0))
    truth = np.empty((count, 5))
    truth[:, :2] = (psf.volume.shape[1] - 1) / 2 - middle  # half a pixel, if their number is even
    truth[:, 2] = (plane - psf.focus_plane) * psf.step_nm
    truth[:, 3:] = photons, background
    found, best = fit(psf, images), fit(psf, images, truth)
    good = found.quality[:, 3] == 1
    pull = (found.theta - truth)[good] / np.sqrt(np.diagonal(found.covariance[good], axis1=1, axis2=2))
    answer = {"planes": len(psf.volume), "step_nm": psf.step_nm, "converged": good.mean()}
    answer |= {f"sd_over_crlb_{name}": 1.4826 * np.median(abs(pull[:, k])) for k, name in enumerate("xyz")}
    answer["far_in_z"] = (abs(pull[:, 2]) > FAR).mean()
    answer["missed"] = (found.quality[:, 0] > best.quality[:, 0] + 0.1).mean()
    answer["z_crlb_nm"] = np.sqrt(np.median(found.covariance[good, 2, 2]))
    return {name: round(float(value), 4) for name, value in answer.items()}


def fit(psf: MeasuredPsf, images: Array, start: Array | None = None) -> LinkedEstimates:
    """Fit a PSF stack to ROIs, from a start if one is given."""
    number, side = images.shape[:2]
    data, extra = np.empty((2, 1, -(-number // 16) * 16 * side * side), np.float32)
    none = np.zeros((1, 1, 1), np.float32)
    pack(images.astype(np.float32), none, none, False, 0, number, data[0], extra[0])
    splines, shifts = spline_psf(psf, pixel_nm=psf.pixel_nm), np.zeros((number, 1, 2))
    return estimate_linked(splines, Link(), data, extra, number, side, shifts, start)


def read_psf(path: Path) -> MeasuredPsf:
    """A PSF stack as PYME writes it: voxel sizes [µm] stand in the description, that of z among its own annotations."""
    with tifffile.TiffFile(path) as file:
        volume = file.asarray().astype(np.float32).squeeze()
        description = ET.fromstring(file.pages[0].description)
    voxel = next(element for element in description.iter() if element.tag.endswith("voxelsize"))
    x_um, z_um = (
        next(float(size.get("value", "nan")) for size in voxel if size.tag.endswith(axis)) for axis in "xz"
    )
    return MeasuredPsf(volume, 1000 * x_um, 1000 * z_um, (len(volume) - 1) / 2)


def draw(beads: Beads, found: dict[str, list[Array]], path: Path) -> None:
    """Residuals of z against the stage for both models, and those of x and y."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    stage = stage_nm(beads)
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
    for ax, (title, model, name) in zip(
        axes,
        (
            ("z, measured PSF", "spline", "z_nm"),
            ("z, Gaussian of widths by z", "astigmatic", "z_nm"),
            ("x, measured PSF", "spline", "x_px"),
            ("y, measured PSF", "spline", "y_px"),
        ),
        strict=True,
    ):
        for k, rows in enumerate(found[model]):
            ax.plot(
                stage, residuals(beads, rows, name), ".", color=INKS[k], markersize=3, label=f"bead {k + 1}"
            )
        bound = beads.noise_factor * average(np.stack([rows[f"{name}_err"] for rows in found[model]]))
        bound = bound * (1 if name == "z_nm" else beads.pixel_nm)
        bound[bound > 60] = np.nan  # single fits at the ends of what the curves cover
        ax.fill_between(stage, -bound, bound, color="0.85", zorder=0, label="± standard error (bound)")
        ax.set(title=title, xlabel="stage [nm]", ylim=(-60, 60))
    axes[0].set_ylabel("fit minus stage [nm]")
    axes[0].legend(fontsize=7, ncols=2, loc="upper center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
