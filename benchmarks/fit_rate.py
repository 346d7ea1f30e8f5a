"""How many ROIs are fitted in a second, on one core, and how close to the bound?

    python benchmarks/fit_rate.py [--rois N] [--repeats N] [--quick]

Processor time, so that other work on the machine counts little. x, y, photons, background and sigma free; bounds and likelihood included. Prints one JSON line: for each estimator and ROI side
the median rate of `repeats` runs, and the RMSE over the Cramér–Rao bound.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median
from typing import Any

import numpy as np
from surroundings import surroundings
from workload import Workload, crlb_px, rois

from fitting import fit_rois


def main() -> None:
    arguments = _arguments()
    count, repeats = (2_000, 2) if arguments.quick else (arguments.rois, arguments.repeats)
    result: dict[str, Any] = {"benchmark": "fit_rate", "rois": count, "repeats": repeats}
    for estimator, side in (("mle", 7), ("mle", 11), ("wls", 7), ("wls", 11)):
        result[f"{estimator}_{side}x{side}"] = _measure(estimator, side, count, repeats)
    result["share_of_7x7_rate_at_11x11"] = round(
        result["mle_11x11"]["fits_per_s"] / result["mle_7x7"]["fits_per_s"], 3
    )
    print(json.dumps(result | surroundings()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rois", type=int, default=100_000, help="ROIs in one run")
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


def _measure(estimator: str, side: int, count: int, repeats: int) -> dict[str, float]:
    work = Workload()
    images, truth = rois(work, count, side)
    found = fit_rois(images, estimator=estimator, sigma_px=work.sigma_px)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        found = fit_rois(images, estimator=estimator, sigma_px=work.sigma_px)
        times.append(time.process_time() - start)
    good = found["status"] == 1
    error = np.column_stack([found["x_px"], found["y_px"]])[good] - truth[good]
    return {
        "fits_per_s": round(count / median(times)),
        "converged": round(float(good.mean()), 5),
        "iterations": round(float(found["iterations"].mean()), 2),
        "rmse_over_crlb": round(float(np.sqrt((error**2).mean()) / crlb_px(work, side)), 4),
    }


if __name__ == "__main__":
    main()
