"""The worker's fitting: the only module of the cluster that loads `fitting`'s kernels, and only when asked to fit."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from filelock import FileLock

from cluster.arrays import FrameRange, TaskResult
from cluster.protocol import FitDeclaration, JobSpec, Versions
from fitting.localisations import FrameStatus

logger = logging.getLogger(__name__)


class Analysed(Protocol):
    """What `fitting.analyse` gives."""

    @property
    def rows(self) -> np.ndarray[Any, Any]: ...  # noqa: D102
    @property
    def fiducials(self) -> np.ndarray[Any, Any] | None: ...  # noqa: D102
    @property
    def candidates(self) -> np.ndarray[Any, Any]: ...  # noqa: D102
    @property
    def frame_status(self) -> np.ndarray[Any, Any]: ...  # noqa: D102


Analyse = Callable[..., Analysed]
Maps = Mapping[str, Any]
_MOST_DECLARED_BYTES: Final = 512 << 10  # of a registration's body, which may have a MiB
_USUAL: Final[Mapping[str, Any]] = {"estimator": "mle"}


@dataclass(frozen=True)
class Abilities:
    """What the scheduler must know of whoever does the fitting, to tell whether the numbers will be the same."""

    versions: Versions
    cpu: str
    fits: tuple[str, ...]
    declared: tuple[FitDeclaration, ...] = ()


class Fitting(Protocol):
    """What a worker does with frames, here or elsewhere."""

    def warm_up(self, cache: Path) -> None:
        """Make ready, with compiled code kept in `cache`."""
        ...

    def abilities(self) -> Abilities:
        """Return what the fitting is made of."""
        ...

    def localise(
        self, spec: JobSpec, start: int, stop: int, frames: FrameRange, maps: Maps | None = None
    ) -> TaskResult:
        """Localise frames [start, stop) of a job."""
        ...


class Engine:
    """Localises ranges of frames; `analyse` is `fitting.analyse`, or a test's own, which needs no warming up."""

    def __init__(
        self, analyse: Analyse | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._given = analyse
        self._clock = clock
        self._cache: Path | None = None
        self._ready_for: set[tuple[object, ...]] = set()

    def localise(
        self, spec: JobSpec, start: int, stop: int, frames: FrameRange, maps: Maps | None = None
    ) -> TaskResult:
        """Localise frames [start, stop) of a job; `frames` holds these and the context they need.

        Raises
        ------
        fitting.errors.FittingError
            If the settings, metadata or frames cannot be used; no other worker could either.
        """
        analyse = self._analyse(spec.analysis, spec.dtype)
        began = self._clock()
        analysed = analyse(
            frames.frames[start - frames.start : stop - frames.start],
            {**spec.analysis, **(maps or {})},
            spec.metadata,
            first_frame=start,
            series=(0, spec.frames),
            context=(frames.start, frames.frames),
            missing=frames.missing,
        )
        return TaskResult(
            start=start,
            stop=stop,
            rows=analysed.rows,
            frame_status=np.asarray(analysed.frame_status, np.uint8),
            fiducials=analysed.fiducials,
            candidates=analysed.candidates if spec.kind == "preview" else None,
            reasons=reasons(start, analysed.frame_status, frames.missing),
            seconds=self._clock() - began,
        )

    def warm_up(self, cache: Path) -> None:
        """Make the kernels of the usual analysis ready; those of another are made when a job first needs them."""
        keep_compiled_code(cache, os.environ)
        cache.mkdir(parents=True, exist_ok=True)
        self._cache = cache
        self._analyse(_USUAL, "uint16")

    def abilities(self) -> Abilities:
        """Return the versions, processor and fits of this process."""
        return Abilities(versions(), cpu_target(os.environ), tuple(fit_names()), tuple(fit_declarations()))

    def _analyse(self, settings: Mapping[str, Any], dtype: str) -> Analyse:
        if self._given is not None:
            return self._given
        from fitting import analyse
        from fitting.warm import kernels_of

        if self._cache is not None and (kernels := kernels_of(settings, dtype)) not in self._ready_for:
            self._compile(self._cache, settings, dtype)
            self._ready_for.add(kernels)
        return analyse

    def _compile(self, cache: Path, settings: Mapping[str, Any], dtype: str) -> None:
        """Compile kernels, or load them compiled: one worker at a time, so that the others find them done."""
        from fitting import warm_up

        began = self._clock()
        with FileLock(cache / "warm-up.lock"):
            warm_up(settings, dtype)
        logger.info("the fits are ready after %.1f s", self._clock() - began)


def reasons(start: int, status: np.ndarray[Any, Any], missing: tuple[int, ...]) -> dict[int, str]:
    """Say, by frame number, why frames came to nothing."""
    absent = set(missing)
    said: dict[int, str] = {}
    for index in np.flatnonzero(status == FrameStatus.FAILED):
        frame = start + int(index)
        said[frame] = "cannot be read from the file" if frame in absent else "the fit failed"
    for index in np.flatnonzero(status == FrameStatus.SKIPPED):
        said[start + int(index)] = "empty or not to be analysed"
    return said


def versions() -> Versions:
    """Return the versions that must be the same on every worker of a job, without loading what they name."""
    import platform

    return Versions(
        clusterofone=metadata.version("clusterofone"),
        numpy=metadata.version("numpy"),
        numba=metadata.version("numba"),
        python=platform.python_version(),
    )


def cpu_target(environ: Mapping[str, str]) -> str:
    """Return what the compiler compiles for: the processor's name, and a mark of its features."""
    from llvmlite import binding  # type: ignore[import-untyped]

    name = environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    features = environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if environ.get("NUMBA_CPU_NAME") else binding.get_host_cpu_features().flatten()
    mark = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{name} {mark}"


def fit_names() -> list[str]:
    """Return the fits that this worker can run, those of other packages with their version."""
    from fitting import fits

    return [fits.identity(name) for name in fits.known_fits()]


def fit_declarations() -> list[FitDeclaration]:
    """Return what the scheduler must know of the fits of other packages, which it may lack; as many as fit into a registration."""
    from fitting import fits

    declared, left = [], _MOST_DECLARED_BYTES
    for identity, facts in fits.declarations().items():
        try:
            left -= len(json.dumps(facts))
        except (TypeError, ValueError) as error:
            logger.warning("%s cannot be declared to the scheduler: %s", identity, error)
            continue
        if left < 0:
            logger.warning("%s is not declared to the scheduler: there are too many of them", identity)
            break
        declared.append(FitDeclaration(identity=identity, facts=facts))
    return declared[:64]


def keep_compiled_code(cache: Path, environ: Any) -> None:
    """Have compiled kernels kept in the user's cache where the package's own folder cannot be written.

    Must come before numba is loaded, which reads the environment once.
    """
    environ.setdefault("NUMBA_NUM_THREADS", "1")
    if "NUMBA_CACHE_DIR" not in environ and not _writable(
        Path(__file__).parents[2] / "fitting" / "__pycache__"
    ):
        environ["NUMBA_CACHE_DIR"] = str(cache / "numba")


def _writable(folder: Path) -> bool:
    probe = folder / f".write-{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
