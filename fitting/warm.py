"""Compile every kernel once, so that workers that start together find them in the cache."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite.binding import get_host_cpu_name  # type: ignore[import-untyped]

from fitting import fits
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.kernel import folder_of_kernels
from fitting.localise import analyse, prepare

_METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ElectronsPerCount": 1.0,
    "Camera.ADOffset": 100.0,
    "Camera.ReadNoise": 1.0,
}


_CHOOSING = (
    "fit",
    "estimator",
    "track_fiducials",
    "background_percentile",
    "interpolator",
)  # the settings that decide which kernels run
_SPOTS = ((16, 13), (16, 19), (47, 13), (47, 19))  # y, x [px]
_LONGEST_S = 60.0  # that a process waits for the other's share, rather than compile it too
_VARIATIONS: tuple[dict[str, object], ...] = (
    {},
    {"estimator": "wls"},
    {"track_fiducials": True},
    {"background_percentile": None},
    {"fit": "AstigGaussFitFR"},
    {"fit": "SplitterFitFNR"},
    {"fit": "GaussMultifitSR"},
)


def warm_up(settings: Mapping[str, object] | None = None, dtype: str = "uint16") -> None:
    """Compile the kernels, or load them compiled.

    What has never been compiled here is compiled by two processes at once, where there are two cores.

    Parameters
    ----------
    settings : mapping, optional
        The analysis to be ready for; without it the kernels of the fits that need no calibration, for every type of frames.
    dtype : str
        The type of its frames.
    """
    if settings is None:
        for kind in ("uint16", "float32"):
            for variation in _VARIATIONS:
                _compile(variation, kind)
    else:
        _compile(settings, dtype)


def _compile(settings: Mapping[str, object], dtype: str) -> None:
    chosen = {name: settings[name] for name in _CHOOSING if name in settings}
    chosen["sigma_curves"] = settings.get("sigma_curves") is not None or None
    asked = [json.dumps(chosen, default=float), dtype]
    mark, deciding = _mark(asked), _deciding(settings)
    with _fewer_collections(), nullcontext() if mark.exists() else _another_process(asked) as second:
        _detect(deciding, dtype)
        if second is not None:
            with suppress(subprocess.TimeoutExpired):
                second.wait(_LONGEST_S)
        _run(deciding, _two_spots(), dtype)
    with suppress(OSError):
        mark.touch()


def _detect(deciding: Mapping[str, object], dtype: str) -> None:
    """Compile detection, which takes longest, without what makes its background."""
    localiser, chosen, _ = prepare(_of_type(_two_spots(), dtype), {**deciding, "background": None}, _METADATA)
    localiser.detect(chosen)


def _mark(asked: list[str]) -> Path:
    """The file that says that all of these kernels lie compiled beside it, for this processor."""
    made_for = get_host_cpu_name(), sys.version, numba.__version__, asked
    digest = hashlib.sha256(repr(made_for).encode()).hexdigest()[:16]
    return folder_of_kernels(numba.config.CACHE_DIR) / f"compiled-{digest}"


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Have the garbage collector look less often: numba makes many objects and few cycles, and a tenth of the time went into looking."""
    usual = gc.get_threshold()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def _another_process(asked: list[str]) -> Iterator[subprocess.Popen[bytes] | None]:
    """Have a second process compile what does not wait for the rest, where there is a second core; at the end it ends.

    Numba holds a lock while it compiles, so that a thread would not do. Each takes what the other has put into the cache; where
    the process cannot be started or fails, everything is compiled here.
    """
    if _cores() < 2:
        yield None
        return
    command = [sys.executable, "-P", "-m", "fitting.warm", *asked]
    no_window = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        second = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, creationflags=no_window
        )  # fmt: skip
    except OSError:
        yield None
        return
    with second:  # closes its input, which ends it, and waits for that
        yield second


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _compile_share(settings: Mapping[str, object], dtype: str) -> None:
    """Compile what the second process compiles: what becomes of peaks, the fit, the background."""
    deciding = _deciding(settings)
    with _fewer_collections():
        localiser, _, _ = prepare(_of_type(_two_spots(), dtype), deciding, _METADATA)
        localiser.compile_what_becomes_of_peaks(_SPOTS[:2])
        localiser.compile_background()


def kernels_of(settings: Mapping[str, object], dtype: str) -> tuple[object, ...]:
    """Return what tells whether two analyses need the same kernels."""
    by_percentile = settings.get("background_percentile") is not None
    fiducials = bool(settings.get("track_fiducials"))
    fit = settings.get("fit") or "LatGaussFitFR"
    linear = settings.get("interpolator") == "linear"
    by_z = settings.get("sigma_curves") is not None
    return dtype == "float32", fit, settings.get("estimator"), by_percentile, fiducials, linear, by_z


def _stand_ins(settings: Mapping[str, object]) -> dict[str, object]:
    """Calibrations of the kinds that an analysis names, small and made up: here they only decide which kernels run."""
    made: dict[str, object] = {}
    fit = fits.find(str(settings.get("fit") or "LatGaussFitFR"))
    z = np.linspace(-500, 500, 21)
    if settings.get("sigma_curves") is not None:
        made["sigma_curves"] = SigmaCurves.from_defocus(z, (130, 250, 400, 0, 0), (130, -250, 400, 0, 0))
    if "psf" in fit.needs:
        made["psf"] = _psf(z, max(fit.channels, 1))
        made["roi_half_size"] = 4
    return made


def _psf(z: np.ndarray[Any, np.dtype[np.float64]], channels: int) -> MeasuredPsf:
    y, x = np.mgrid[-10:11, -10:11]
    widths = [(1.3 * np.sqrt(1 + ((height - c) / 400) ** 2) for c in (250, -250)) for height in z]
    planes = [np.exp(-(x**2) / (2 * a**2) - y**2 / (2 * b**2)) / (2 * np.pi * a * b) for a, b in widths]
    volume = np.concatenate([np.array(planes)] * channels, axis=2).astype(np.float32)
    return MeasuredPsf(volume, 100.0, float(z[1] - z[0]), (len(z) - 1) / 2, channels)


def _deciding(settings: Mapping[str, object]) -> dict[str, object]:
    return {name: settings[name] for name in _CHOOSING if name in settings} | _stand_ins(settings)


def _run(settings: Mapping[str, object], frames: np.ndarray[Any, Any], dtype: str) -> None:
    analyse(_of_type(frames, dtype), settings, _METADATA)


def _of_type(frames: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    return frames.astype("float32" if dtype == "float32" else "uint16")


def _two_spots() -> np.ndarray[Any, Any]:
    """Make a few small frames with two bright spots side by side, above each other the same for a second channel."""
    y, x = np.mgrid[:64, :32]
    spot = 100 + sum(2000 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 3.4) for cy, cx in _SPOTS)
    return np.stack([spot, np.full_like(spot, 101), np.full_like(spot, 101)])


def _end_with_who_asked() -> None:
    """End when nobody holds the other end of the input any more, whatever became of who did."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_who_asked, daemon=True).start()
    _compile_share(json.loads(sys.argv[1]), sys.argv[2])
