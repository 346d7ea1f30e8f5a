"""Frames in, localisations out: the one pure function that a cluster distributes.

What comes out for a frame depends on that frame, on the frames of its background window, on the settings and
the metadata, and on nothing else: not on which frames were handed over together, nor in what order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting import fits
from fitting.background import Background, RunningSum, StillLevel, mean_level, percentile_level
from fitting.bandpass import make_workspace
from fitting.batch import Batch, Calibrations
from fitting.camera import Camera
from fitting.candidates import sharpest_neighbour
from fitting.channels import LEAST_RADIUS_PX, Geometry, arrange, whole_frame
from fitting.errors import InvalidSettings
from fitting.fiducials import find_fiducials
from fitting.filters import make_filters
from fitting.fit_types import Fit
from fitting.frames import Range, Stack, check_frames, make_stack
from fitting.geometry import chip_origin, rectangles
from fitting.localisations import CANDIDATE_DTYPE, LAT_GAUSS_DTYPE, FrameStatus
from fitting.rois import RoiBuffer
from fitting.scan import Peaks, Plan, Sink, put_found, scan

Rows = npt.NDArray[np.void]
_PIXELS_OF_ROIS = 400_000  # in one buffer: 3.2 MB, which stay in the cache
_FEWEST_ROIS, _MOST_ROIS = 2048, 8192  # in it: each pays its part of what is done once a buffer
_SMALLEST_RADIUS = 0.5  # [px]: two peaks of the signal-to-noise image may share one of the signal


@dataclass(frozen=True)
class Analysis:
    """What became of some frames.

    Attributes
    ----------
    rows : structured array
        Localisations, by frame, then y, then x.
    fiducials : structured array
        The same for fiducial markers; empty unless they are tracked.
    candidates : structured array of CANDIDATE_DTYPE
        What detection found, fitted or not.
    frame_status : (n,) uint8 array
        A FrameStatus for each frame handed over.
    """

    rows: Rows
    fiducials: Rows
    candidates: Rows
    frame_status: npt.NDArray[np.uint8]


def localise(
    frames: npt.NDArray[Any],
    analysis: Mapping[str, object],
    metadata: Mapping[str, object],
    *,
    first_frame: int = 0,
    series: Range | None = None,
    context: tuple[int, npt.NDArray[Any]] | None = None,
) -> Rows:
    """Localise the molecules of some frames; the rows of `analyse`, whose documentation holds."""
    return analyse(frames, analysis, metadata, first_frame=first_frame, series=series, context=context).rows


def analyse(
    frames: npt.NDArray[Any],
    analysis: Mapping[str, object],
    metadata: Mapping[str, object],
    *,
    first_frame: int = 0,
    series: Range | None = None,
    context: tuple[int, npt.NDArray[Any]] | None = None,
    missing: Iterable[int] = (),
) -> Analysis:
    """Detect and fit the molecules of some frames of a series.

    Parameters
    ----------
    frames : (n, h, w) array
        Raw frames [ADU]; uint8, uint16 or float32, NaN for a pixel without value. Other types are converted.
    analysis : mapping
        Settings, complete or not; maps are arrays here, and calibrations objects (`fitting.calibrated`, `fitting.shift_field`).
    metadata : mapping
        Metadata of the series, by PYME's keys.
    first_frame : int
        Absolute number of the first of `frames`.
    series : (int, int), optional
        First frame of the whole series and frame after its last; by default what is handed over is the series.
    context : (int, (m, h, w) array), optional
        Number of the first context frame, and the frames; with `frames` they must cover `fits.context_range`.
    missing : iterable of int
        Absolute numbers of frames that do not exist, whose place in the arrays is empty.

    Returns
    -------
    Analysis

    Raises
    ------
    InvalidSettings, InvalidMetadata
        If settings or metadata are incomplete or make no sense.
    InvalidFrames
        If the arrays are no frames or do not cover the context.
    """
    localiser, chosen, status = prepare(frames, analysis, metadata, first_frame, series, context, missing)
    rows, candidates = localiser.run(chosen)
    return Analysis(rows, localiser.fiducials(chosen), candidates, status)


def prepare(
    frames: npt.NDArray[Any],
    analysis: Mapping[str, object],
    metadata: Mapping[str, object],
    first_frame: int = 0,
    series: Range | None = None,
    context: tuple[int, npt.NDArray[Any]] | None = None,
    missing: Iterable[int] = (),
) -> tuple[Localiser, npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Make ready for `analyse`, whose parameters these are; gives also the frames to localise, as positions in the stack, and the status of all."""
    check_frames(frames, "frames")
    settings = fits.resolve(analysis, metadata)
    camera = Camera.from_metadata(metadata, settings, frames.shape[1:])
    task = (first_frame, first_frame + len(frames))
    series = series or _handed_over(task, context)
    fit = fits.find(str(settings["fit"]))
    part = _box(settings["roi"], frames.shape[1:])
    box = part if fit.channels == 1 else None  # the other channels of a part lie outside of it
    needed = fits.context_range(settings, metadata, series, *task)
    stack = make_stack(frames, first_frame, context, needed, missing, box)
    status = _frame_status(stack, task, fits.analysed_range(settings, metadata, series[1]))
    if box is not None:
        camera = camera.part(*box)
    origin = (box[1], box[0]) if box else (0, 0)
    windows = _windows(stack, settings, metadata, series)
    chosen = np.flatnonzero(status == FrameStatus.LOCALISED) + task[0] - stack.first
    channels, calibrations = _channels(fit, settings, metadata, stack.pixels.shape[1:], camera, part)
    localiser = Localiser(stack, windows, settings, camera, origin, (fit, channels, calibrations))
    return localiser, chosen, status


def _channels(
    fit: Fit,
    settings: Mapping[str, Any],
    metadata: Mapping[str, object],
    shape: tuple[int, int],
    camera: Camera,
    part: tuple[int, int, int, int] | None,
) -> tuple[Geometry, Calibrations]:
    """Where the channels lie, and what was measured beforehand."""
    if fit.channels == 1:
        return whole_frame(shape), Calibrations.from_settings(settings, 1)
    places = rectangles(fit, settings, metadata, shape)
    calibrations = Calibrations.from_settings(settings, len(places))
    pixel_nm = camera.voxel_x_nm, camera.voxel_y_nm
    return arrange(places, calibrations.shifts, shape, chip_origin(metadata), pixel_nm, part), calibrations


def _handed_over(task: Range, context: tuple[int, npt.NDArray[Any]] | None) -> Range:
    if context is None:
        return task
    return min(task[0], context[0]), max(task[1], context[0] + len(context[1]))


def _box(roi: object, shape: tuple[int, int]) -> tuple[int, int, int, int] | None:
    if not isinstance(roi, list):
        return None
    x0, y0, x1, y1 = roi
    if x1 > shape[1] or y1 > shape[0]:
        raise InvalidSettings(
            "roi", f"[{x0}, {y0}, {x1}, {y1}] goes beyond the frame, {shape[1]} × {shape[0]} px"
        )
    return x0, y0, x1, y1


def _frame_status(stack: Stack, task: Range, analysed: Range) -> npt.NDArray[np.uint8]:
    status = np.full(task[1] - task[0], FrameStatus.SKIPPED, np.uint8)
    number = np.arange(*task)
    of_task = slice(task[0] - stack.first, task[1] - stack.first)
    inside = (number >= analysed[0]) & (number < analysed[1])
    status[inside & (stack.present[of_task] != 0)] = FrameStatus.LOCALISED
    status[stack.missing[of_task]] = FrameStatus.FAILED
    return status


def _windows(
    stack: Stack, settings: Mapping[str, object], metadata: Mapping[str, object], series: Range
) -> npt.NDArray[np.int64]:
    """Background frames of every frame of the stack, as positions in it."""
    numbers = range(stack.first, stack.first + len(stack.pixels))
    windows = np.array(fits.windows_for(numbers, settings, metadata, series), np.int64).reshape(-1, 2)
    windows[windows[:, 1] > windows[:, 0]] -= stack.first
    return windows


class Localiser:
    """The buffers of one analysis, and the way through them."""

    def __init__(
        self,
        stack: Stack,
        windows: npt.NDArray[np.int64],
        settings: Mapping[str, Any],
        camera: Camera,
        origin: tuple[int, int],
        kind: tuple[Fit, Geometry, Calibrations],
    ) -> None:
        self._stack, self._windows, self._settings, self._camera, self._origin = (
            stack,
            windows,
            settings,
            camera,
            origin,
        )
        fit, self._channels, self._calibrations = kind
        self._run_fit, self._dtype = fit.load(), fit.layout(settings)
        least_radius = _SMALLEST_RADIUS if len(self._channels.bounds) == 1 else LEAST_RADIUS_PX
        weighted = settings["estimator"] == "wls"
        self._shape = height, width = stack.pixels.shape[1:]
        self._width_px = settings["psf_sigma_nm"] / camera.voxel_x_nm
        self._law = camera.pixel_law(settings["lowpass_sigma"], stack.full_adu, self._shape)
        self._filters = make_filters(height, width, settings["lowpass_sigma"], settings["highpass_sigma"])
        self._work = make_workspace(width, self._filters)
        self._plan = Plan(
            least_snr=np.float32(settings["threshold"]),
            radius=np.float32(max(settings["debounce_radius"], least_radius)),
            least_neighbour=np.float32(sharpest_neighbour(self._width_px)),
            side=2 * settings["roi_half_size"] + 1,
            subtract=settings["subtract_background"],
            weighted=weighted,
            neighbours=fit.neighbours and not weighted,
            channels=self._channels,
        )
        most = height * width // 4 + height + width + 1
        self._peaks = Peaks(
            np.empty((most, 2), np.int32), np.empty((most, 4), np.float32), np.empty(most, np.uint8)
        )
        self._rows: list[Rows] = []
        self._candidates: list[Rows] = []
        self._make_room(min(max(_PIXELS_OF_ROIS // self._plan.side**2, _FEWEST_ROIS), _MOST_ROIS))

    def run(self, chosen: npt.NDArray[np.int64]) -> tuple[Rows, Rows]:
        """Rows and candidates of the chosen frames, positions in the stack."""
        self.detect(chosen)
        self._fit()
        return joined(self._rows, self._dtype), joined(self._candidates, CANDIDATE_DTYPE)

    def detect(self, chosen: npt.NDArray[np.int64]) -> None:
        """Fill the buffer with the ROIs of the chosen frames; those in it are fitted only where there is no more room."""
        advance = self._scan_running if self._uses_sums() else self._scan_levels
        for first, last in _runs(chosen):
            while first < last:
                reached = advance(first, last)
                if reached < last and not self._sink.count.any():
                    self._make_room(2 * self._rois.capacity)
                elif reached < last:
                    self._fit()
                first = reached

    def fiducials(self, chosen: npt.NDArray[np.int64]) -> Rows:
        """Fiducial markers in the chosen frames; none unless they are tracked."""
        if not self._settings["track_fiducials"]:
            return np.zeros(0, LAT_GAUSS_DTYPE)
        return find_fiducials(
            self._stack, chosen, self._settings, self._camera, self._origin, self._channels.bounds[0]
        )

    def compile_what_becomes_of_peaks(self, places: Sequence[tuple[int, int]]) -> None:
        """Compile what follows peaks at y, x of the first frame: the end of `scan`, to which whoever compiles that comes last, and the fit."""
        law, plan, peaks, count = self._law, self._plan, self._peaks, len(places)
        frame, per_frame = self._stack.pixels[0], np.float32(0.0)
        level = self._sum.level if self._uses_sums() else np.empty(self._shape, np.float32)
        peaks.place[:count] = places
        peaks.values[:count] = [(y, x, 1.0, 1.0) for y, x in places]
        put_found(frame, level, per_frame, law, plan, peaks, count, self._sink, 0)
        self._fit()

    def compile_background(self) -> None:
        """Compile what makes the background of a few frames, where that is not `scan` itself."""
        if not self._uses_sums():
            self._make_level(self._windows[0], np.empty(self._shape, np.float32))

    def _uses_sums(self) -> bool:
        return self._stack.is_integer and self._settings["background_percentile"] is None

    def _scan_running(self, first: int, last: int) -> int:
        return self._scan(first, last, self._sum)

    def _scan_levels(self, first: int, last: int) -> int:
        """Frames that share a background together."""
        still = StillLevel(np.empty(self._shape, np.float32), np.zeros(3, np.int64))
        while first < last:
            still.state[2] = self._make_level(self._windows[first], still.level) > 0
            stop = first + 1
            while stop < last and (self._windows[stop] == self._windows[first]).all():
                stop += 1
            reached = self._scan(first, stop, still)
            if reached < stop:
                return reached
            first = stop
        return last

    def _make_level(self, window: npt.NDArray[np.int64], level: npt.NDArray[np.float32]) -> int:
        pixels, present, (start, stop) = self._stack.pixels, self._stack.present, window
        if start == stop:
            return 0
        fraction = self._settings["background_percentile"]
        used: int = (
            mean_level(pixels, present, start, stop, level)
            if fraction is None
            else percentile_level(pixels, present, start, stop, fraction, level)
        )
        return used

    def _scan(self, first: int, last: int, background: Background) -> int:
        reached: int = scan(
            self._stack.pixels, self._stack.present, self._windows, first, last, background,
            self._law, self._filters, self._work, self._plan, self._peaks, self._sink,
        )  # fmt: skip
        return reached

    def _make_room(self, capacity: int) -> None:
        self._rois = rois = RoiBuffer.with_room(capacity, self._plan.side, len(self._channels.bounds))
        capacity *= 4
        self._sink = Sink(
            rois.data, rois.extra, rois.place, rois.level, rois.middles, rois.shifts,
            np.empty(capacity, np.int32), np.empty((capacity, 3), np.float32), np.empty(capacity, np.uint8), np.zeros(2, np.int64),
        )  # fmt: skip
        self._sum = RunningSum(np.zeros(self._shape, np.int32), np.zeros(3, np.int64))

    def _fit(self) -> None:
        number, candidates = self._sink.count
        batch = Batch(
            self._rois, int(number), self._settings, self._camera, self._calibrations, self._dtype, self._shape, self._origin,
            self._stack.first, self._channels,
        )  # fmt: skip
        rows = self._run_fit(batch)
        if rows.dtype != self._dtype:
            raise InvalidSettings(
                "fit", f"{self._settings['fit']} gave rows of another layout than it declares"
            )
        self._rows.append(in_order(rows))  # whole frames, still in the cache
        table = np.zeros(candidates, CANDIDATE_DTYPE)
        table["frame"] = self._sink.frame[:candidates] + self._stack.first
        table["y_px"] = self._sink.values[:candidates, 0] + self._origin[0]
        table["x_px"] = self._sink.values[:candidates, 1] + self._origin[1]
        table["snr"] = self._sink.values[:candidates, 2]
        table["fitted"] = self._sink.fitted[:candidates]
        self._candidates.append(table)
        self._sink.count[:] = 0


def joined(tables: list[Rows], dtype: np.dtype[np.void]) -> Rows:
    """Tables of one layout as one; rows are copied whole, not field by field."""
    bare = f"V{dtype.itemsize}"
    whole = np.concatenate([np.zeros(0, bare), *(np.ascontiguousarray(rows).view(bare) for rows in tables)])
    return whole.view(dtype)


def in_order(rows: Rows) -> Rows:
    """Rows by frame, then y, then x; they come nearly so, and a stable sort of one key each is quick then."""
    y = np.ascontiguousarray(rows["fitResults"]["y0"], np.float32).view(np.int32)
    rising = np.where(y < 0, ~(y & 0x7FFFFFFF), y)  # floats as integers of the same order
    key = rows["tIndex"].astype(np.int64) << 32 | (rising.astype(np.int64) + 2**31)
    order = np.argsort(key, kind="stable")
    if (np.diff(key[order]) == 0).any():
        where = rows["fitResults"]
        order = np.lexsort((where["x0"], where["y0"], rows["tIndex"]))
    return rows.take(order)  # an index would copy field by field, which takes twenty times as long


def _runs(chosen: npt.NDArray[np.int64]) -> list[Range]:
    """Stretches of numbers that follow each other."""
    if not len(chosen):
        return []
    breaks = np.flatnonzero(np.diff(chosen) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(chosen, breaks)]


class _CallableModule(ModuleType):
    """`fitting.localise` is this module once it has been imported, and a function to whoever only imported `fitting`."""

    __call__ = staticmethod(localise)


sys.modules[__name__].__class__ = _CallableModule
