"""PYME, as a runner: its fit task, frame after frame, on frames in memory and without its cluster."""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports below, whose time is measured

import itertools  # noqa: E402
import sys  # noqa: E402
import types  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from PYME.IO.MetaDataHandler import NestedClassMDHandler  # noqa: E402
from PYME.localization import remFitBuf  # noqa: E402
from runner import Task, serve  # noqa: E402

_MODULE = "FramesInMemory"


def pipeline(frames: Any, options: dict[str, Any]) -> Task:
    """Background, detection and fit of the frames from `first_frame` on; those before serve as background."""
    _serve_frames(np.ascontiguousarray(frames.transpose(0, 2, 1)))  # PYME's first axis is x
    metadata = NestedClassMDHandler()
    for key, value in {**options["metadata"], **options["analysis"]}.items():
        metadata[key] = value
    metadata["Camera.ROIWidth"], metadata["Camera.ROIHeight"] = frames.shape[2], frames.shape[1]
    first, pixel_nm = options["first_frame"], 1000 * options["metadata"]["voxelsize.x"]
    names = itertools.count()

    def run() -> Any:
        name = f"series {next(names)}"  # a new name makes PYME start with empty buffers
        tasks = (
            remFitBuf.fitTask(name, number, metadata, dataSourceModule=_MODULE)
            for number in range(first, len(frames))
        )
        return np.concatenate([task().results for task in tasks])

    def rows(found: Any) -> Any:
        where = found["fitResults"]
        return np.stack([found["tIndex"], where["x0"] / pixel_nm, where["y0"] / pixel_nm], axis=1)

    return Task(run, rows, len(frames) - first, first)


def _serve_frames(frames: Any) -> None:
    """Put a data source that reads from memory where PYME looks for data sources."""

    class DataSource:
        def __init__(self, *_: object) -> None:
            pass

        def getSlice(self, number: int) -> Any:  # noqa: N802
            return frames[number]

        def getSliceShape(self) -> tuple[int, ...]:  # noqa: N802
            return tuple(frames.shape[1:])

        def getNumSlices(self) -> int:  # noqa: N802
            return len(frames)

    module: Any = types.ModuleType(_MODULE)
    module.DataSource = DataSource
    sys.modules[f"PYME.IO.DataSources.{_MODULE}"] = module


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # one for each frame otherwise, and printing takes time
    serve(STARTED, ("python-microscopy", "numpy", "scipy"), {"pipeline": pipeline})
