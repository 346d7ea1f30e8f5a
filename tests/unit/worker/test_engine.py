"""What the engine hands to the fit and makes of its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.arrays import FrameRange
from cluster.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge, Unavailable
from cluster.protocol import JobSpec
from cluster.worker.engine import Engine, cpu_target, fit_names, keep_compiled_code
from cluster.worker.failures import failure_of, handed_back
from fitting.errors import InvalidFrames, InvalidMetadata, InvalidSettings
from fitting.localisations import CANDIDATE_DTYPE, LAT_GAUSS_DTYPE


@dataclass
class Analysed:
    rows: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(2, LAT_GAUSS_DTYPE))
    fiducials: np.ndarray[Any, Any] | None = None
    candidates: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(3, CANDIDATE_DTYPE))
    frame_status: np.ndarray[Any, Any] = field(default_factory=lambda: np.array([1, 3, 2, 3, 1], np.uint8))


class FakeAnalyse:
    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def __call__(self, frames: Any, analysis: Any, metadata: Any, **others: Any) -> Analysed:
        self.given = {"frames": frames, "analysis": analysis, "metadata": metadata, **others}
        return Analysed()


@pytest.fixture
def frames(make_frames: Callable[..., FrameRange]) -> FrameRange:
    return make_frames(90, 120, (103,))


def test_the_fit_gets_its_frames_its_context_and_what_is_missing(
    make_spec: Callable[..., JobSpec], frames: FrameRange
) -> None:
    analyse = FakeAnalyse()
    variance = np.ones((4, 5), np.float32)

    Engine(analyse, clock=lambda: 0.0).localise(make_spec(), 100, 105, frames, {"variance_map": variance})

    given = analyse.given
    assert given["frames"][:, 0, 0].tolist() == [100, 101, 102, 103, 104]
    assert (given["first_frame"], given["series"], given["missing"]) == (100, (0, 1000), (103,))
    assert given["context"][0] == 90
    assert given["context"][1] is frames.frames
    assert given["analysis"] == {
        "background": "-10:0",
        "background_percentile": None,
        "variance_map": variance,
    }


def test_a_result_says_why_frames_came_to_nothing(
    make_spec: Callable[..., JobSpec], frames: FrameRange
) -> None:
    result = Engine(FakeAnalyse(), clock=iter([1.0, 3.5]).__next__).localise(make_spec(), 100, 105, frames)

    assert (result.start, result.stop, result.seconds) == (100, 105, 2.5)
    assert result.reasons == {
        101: "the fit failed",
        102: "empty or not to be analysed",
        103: "cannot be read from the file",
    }


@pytest.mark.parametrize(("kind", "travels"), [("localise", False), ("preview", True)])
def test_candidates_travel_with_previews_only(
    make_spec: Callable[..., JobSpec], frames: FrameRange, kind: str, travels: bool
) -> None:
    result = Engine(FakeAnalyse(), clock=lambda: 0.0).localise(make_spec(kind=kind), 100, 105, frames)

    assert (result.candidates is not None) is travels


def test_compiled_code_goes_to_the_users_cache_where_the_package_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.worker.engine._writable", lambda folder: False)
    read_only: dict[str, str] = {}
    told: dict[str, str] = {"NUMBA_CACHE_DIR": "elsewhere", "NUMBA_NUM_THREADS": "4"}

    keep_compiled_code(tmp_path, read_only)
    keep_compiled_code(tmp_path, told)

    assert read_only == {"NUMBA_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    assert told == {"NUMBA_CACHE_DIR": "elsewhere", "NUMBA_NUM_THREADS": "4"}


def test_the_processor_is_named_with_its_features() -> None:
    assert cpu_target({"NUMBA_CPU_NAME": "generic"}).startswith("generic ")
    assert cpu_target({}) == cpu_target({})
    assert cpu_target({}) != cpu_target({"NUMBA_CPU_FEATURES": "-avx512f"})


def test_the_worker_knows_its_fits() -> None:
    assert "LatGaussFitFR" in fit_names()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidFrames("shape"), "invalid"),
        (InvalidSettings("threshold", "must be positive"), "invalid"),
        (InvalidMetadata(("voxelsize.x",), "missing"), "invalid"),
        (NotFound("no series"), "invalid"),
        (Conflict("the file changed"), "changed"),
        (Invalid("not a frame"), "invalid"),
        (TooLarge("frames"), "invalid"),
        (Forbidden("role"), "refused"),
        (Unavailable("nobody"), "refused"),
        (ValueError("shapes"), "error"),
        (MemoryError(), "error"),
    ],
)
def test_a_failure_is_called_what_it_is(error: Exception, kind: str) -> None:
    failure = failure_of(error, 3)

    assert (failure.kind, failure.attempt) == (kind, 3)
    assert (failure.traceback is not None) is (kind == "error")
    assert failure.message


def test_a_very_long_message_still_fits_into_the_report() -> None:
    failure = failure_of(ValueError("x" * 100_000), 1)

    assert len(failure.message) <= 4096
    assert failure.traceback is not None
    assert len(failure.traceback) <= 65536


def test_handing_back_blames_nobody() -> None:
    assert handed_back(2).kind == "handed_back"
