"""How many molecules of dense frames are found, by fits of one molecule each and by fits of several together?

    python benchmarks/multi_emitter.py [--plot FILE] [--molecules N] [--quick]

Frames of 64 × 64 px of 100 nm, sigma 1.3 px, molecules at random places at 0.1 to 8 per µm²: all of 1000 photons on 20 photons/px, all of 1000 on 10, and of
1000 on average with an exponential spread on 10. The same frames go through LatGaussFitFR, with its debounce radius and with one of 2 px, and
through GaussMultifitSR, by turns. Localisations that converged are matched one to one with the truth within 250 nm; the outermost 4 px hold no
molecules. Prints one JSON line: for each density recall, precision, Jaccard index, RMSE of an axis [nm], RMSE over reported error of all matched molecules and of
those with no other within 1 µm, and processor time for each molecule [µs]. With --plot (needs matplotlib) a picture too.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from turns import machine
from workload import PIXEL_NM, Workload, _share

from fitting import analyse
from fitting.scoring import columns_of, score

FloatArray = npt.NDArray[np.float64]

DENSITIES = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 8.0)  # molecules per µm² and frame
SIZE_PX, BORDER_PX = 64, 4
KINDS = {
    "1000 photons, background 20": (20.0, 0.0),
    "1000 photons, background 10": (10.0, 0.0),
    "exponential, mean 1000, background 10": (10.0, 1.0),
}
FITS: dict[str, dict[str, Any]] = {
    "LatGaussFitFR": {"fit": "LatGaussFitFR"},
    "LatGaussFitFR, debounce 2 px": {"fit": "LatGaussFitFR", "debounce_radius": 2.0},
    "GaussMultifitSR": {"fit": "GaussMultifitSR"},
}
INKS = ("0.6", "#c55a11", "#0b5394")


def main() -> None:
    options = parse()
    densities = (0.5, 4.0) if options.quick else DENSITIES
    molecules = 100 if options.quick else options.molecules
    results = {
        kind: [measure(density, molecules, *values) for density in densities]
        for kind, values in KINDS.items()
    }
    print(
        json.dumps({"benchmark": "multi_emitter", "results": results, **machine()}, ensure_ascii=False),
        flush=True,
    )
    if options.plot:
        draw(results, options.plot)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    parser.add_argument("--molecules", type=int, default=2000, help="molecules for each density, at least")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


def measure(density: float, molecules: int, background: float, spread: float) -> dict[str, Any]:
    """All fits on the frames of one density."""
    each = density * ((SIZE_PX - 2 * BORDER_PX) * PIXEL_NM / 1000) ** 2
    frames, truth = simulate(each, math.ceil(molecules / each), background, spread)
    work = Workload()
    settings = {"background": None, "psf_sigma_nm": work.sigma_px * PIXEL_NM}
    line: dict[str, Any] = {
        "per_um2": density,
        "molecules": len(truth["frame"]),
        "frames": len(frames),
        "fits": {},
    }
    for name, chosen in FITS.items():
        analyse(frames[:8], settings | chosen, work.metadata)  # compiles
        start = time.process_time()
        rows = analyse(frames, settings | chosen, work.metadata).rows
        spent = time.process_time() - start
        result = score(columns_of(rows), truth)
        line["fits"][name] = {
            "jaccard": round(result.jaccard, 4),
            "recall": round(result.recall, 4),
            "precision": round(result.precision, 4),
            "rmse_nm_per_axis": round(result.accuracy.rmse_nm / math.sqrt(2), 2),
            "rmse_over_error": round(result.accuracy.rmse_over_crlb, 3),
            "rmse_over_error_isolated": round(result.isolated.rmse_over_crlb, 3),
            "converged": round(float((rows["resultCode"] == 1).mean()) if len(rows) else 1.0, 4),
            "us_per_molecule": round(1e6 * spent / len(truth["frame"]), 1),
        }
    return line


def simulate(
    each: float, number: int, background: float, spread: float
) -> tuple[npt.NDArray[np.uint16], dict[str, Any]]:
    """Frames with a Poisson number of molecules each, and the truth."""
    work = Workload()
    rng = np.random.default_rng((work.seed, round(1000 * each), round(background), round(10 * spread)))
    frames = np.empty((number, SIZE_PX, SIZE_PX), np.uint16)
    places, which = [], []
    for t, image in enumerate(frames):
        xy = rng.uniform(BORDER_PX - 0.5, SIZE_PX - BORDER_PX - 0.5, (rng.poisson(each), 2))
        photons = rng.gamma(spread**-2, work.photons * spread**2, len(xy)) if spread else work.photons
        along_x, along_y = (_share(np.arange(SIZE_PX) - xy[:, [axis]], work.sigma_px) for axis in (0, 1))
        expected = background + (along_y * np.reshape(photons, (-1, 1))).T @ along_x
        image[:] = np.rint(100 + rng.poisson(expected) / 0.5)
        places.append(xy)
        which.append(np.full(len(xy), t))
    xy = np.concatenate(places) * PIXEL_NM
    return frames, {"frame": np.concatenate(which), "x_nm": xy[:, 0], "y_nm": xy[:, 1]}


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """The Jaccard index against density, a panel for each kind of molecules."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(results), figsize=(10.5, 3.6), layout="constrained", sharey=True)
    for axes, (kind, lines) in zip(panels, results.items(), strict=True):
        for name, ink in zip(FITS, INKS, strict=True):
            axes.plot(
                [line["per_um2"] for line in lines],
                [line["fits"][name]["jaccard"] for line in lines],
                "o-",
                color=ink,
                markersize=4,
                linewidth=1.4,
                label=name,
            )
        axes.set(xscale="log", xlabel="molecules per µm² and frame", ylim=(0, 1))
        axes.set_title(kind, fontsize=9)
        axes.set_xticks([0.1, 0.5, 1, 2, 4, 8], ["0.1", "0.5", "1", "2", "4", "8"])
        axes.minorticks_off()
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Jaccard index (250 nm)")
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
