"""Picasso, as a runner: its Gaussian fit of ROIs, and identify + fit of a movie in memory, each in one thread."""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports below, whose time is measured

from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from picasso import localize  # noqa: E402
from runner import Task, serve  # noqa: E402


def fit(rois: Any, options: dict[str, Any]) -> Task:
    """Fit ROIs; without the CRLB, which Picasso computes afterwards."""

    def run() -> Any:
        return localize.fit_spots_gauss(
            rois, mle=True, spherical=options["spherical"], tolerance=options["eps"], return_stats=True
        )

    return Task(run, lambda found: found[0][:, 1:3], len(rois))


def pipeline(movie: Any, options: dict[str, Any]) -> Task:
    """Identify and fit, CRLB included."""
    movie = movie.view(np.memmap)  # the one kind of array that Picasso takes for a movie; still in memory

    def run() -> Any:
        identified, _ = localize.identify(
            movie, options["min_net_gradient"], options["box"], threaded=False, return_info=True
        )
        found, _ = localize.fit(
            movie,
            camera_info=options["camera"],
            identifications=identified,
            box=options["box"],
            fitting_method=options["method"],
            eps=options["eps"],
            multiprocess=False,
        )
        return found

    return Task(run, lambda found: np.stack([found["frame"], found["x"], found["y"]], axis=1), len(movie))


if __name__ == "__main__":
    serve(STARTED, ("picassosr", "numpy", "numba"), {"fit": fit, "pipeline": pipeline})
