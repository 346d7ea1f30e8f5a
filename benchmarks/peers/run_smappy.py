"""SMAPpy, as a runner: its free-width Gaussian fit of ROIs, and what `smappy-fit` does, with the frames in memory."""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports below, whose time is measured

from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from runner import Task, serve  # noqa: E402
from smappy.api import peak_cutoff  # noqa: E402
from smappy.detect import DoGFilter, PeakFinder  # noqa: E402
from smappy.metadata import CameraMetadata  # noqa: E402
from smappy.pipeline import FitSettings, fit_stack  # noqa: E402
from smappy.psf import GaussianPSF  # noqa: E402

_CHUNK = 200  # as smappy-fit reads by default


def fit(rois: Any, options: dict[str, Any]) -> Task:
    """Fit ROIs; CRLB and log-likelihood included."""
    model = GaussianPSF(sigma=options["sigma_px"])
    return Task(lambda: model.fit(rois, n_threads=1), lambda found: found.theta[:, :2], len(rois))


def pipeline(frames: Any, options: dict[str, Any]) -> Task:
    """Detection and fit of frames in memory."""
    camera = CameraMetadata(**options["camera"])
    finder = PeakFinder(DoGFilter(options["sigma_px"]), peak_cutoff(options["cutoff"], "dynamic"))
    model, settings = GaussianPSF(sigma=options["sigma_px"]), FitSettings(roisize=options["roi"], n_threads=1)
    pixel_nm = 1000 * options["camera"]["pixelsize_um"]

    def blocks() -> Iterator[tuple[int, Any]]:
        for first in range(0, len(frames), _CHUNK):
            yield first, frames[first : first + _CHUNK]

    def rows(found: Any) -> Any:
        return np.stack([found["frame"], found["x_nm"] / pixel_nm, found["y_nm"] / pixel_nm], axis=1)

    return Task(lambda: fit_stack(blocks(), camera, finder, model, settings)[0], rows, len(frames))


if __name__ == "__main__":
    serve(STARTED, ("smappy-smlm", "numpy"), {"fit": fit, "pipeline": pipeline})
