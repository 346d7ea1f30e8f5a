"""A simulated series on disk: the TIFF, its metadata as a sidecar, its truth as a table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from fitting import simulate
from fitting.simulate import Simulation

_BLOCK_BYTES: Final = 16 << 20
_BIGTIFF_BYTES: Final = 3 << 30
_MAP_KEYS: Final = {
    "variance_map": "Camera.VarianceMapID",
    "dark_map": "Camera.DarkMapID",
    "flatfield_map": "Camera.FlatfieldMapID",
}


@dataclass(frozen=True)
class SeriesFiles:
    """Where the parts of a simulated series lie: OUT.tif, OUT.json, OUT.truth.csv, and the camera's maps if any."""

    series: Path

    @property
    def metadata(self) -> Path:
        """Return the sidecar."""
        return self.series.with_suffix(".json")

    @property
    def truth(self) -> Path:
        """Return the table of molecules."""
        return self.series.with_suffix(".truth.csv")

    def map(self, name: str) -> Path:
        """Return the file of a camera map."""
        return self.series.with_suffix(f".{name}.tif")

    def existing(self) -> list[Path]:
        """Return which of these exist."""
        return [path for path in (self.series, self.metadata, self.truth) if path.exists()]


def write(sim: Simulation, files: SeriesFiles, advance: Callable[[int], None]) -> None:
    """Write a simulated series; each file appears whole or not at all.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    temporary = files.series.with_name(f".{files.series.stem}.{os.getpid()}.tif")
    try:
        _write_tiff(sim, temporary, advance)
        _write_truth(simulate.truth(sim), files.truth)
        metadata = {**simulate.metadata(sim), **_write_maps(sim, files)}
        _write_text(files.metadata, json.dumps(metadata, indent=1) + "\n")
        temporary.replace(files.series)
    finally:
        temporary.unlink(missing_ok=True)


def read_truth(path: Path) -> dict[str, Any]:
    """Return a truth table as columns: frame, x_nm, y_nm, photons."""
    table = np.genfromtxt(path, delimiter=",", names=True)
    return {name: np.atleast_1d(table[name]) for name in table.dtype.names or ()}


def _write_tiff(sim: Simulation, path: Path, advance: Callable[[int], None]) -> None:
    frame_bytes = 2 * sim.height_px * sim.width_px
    with tifffile.TiffWriter(path, bigtiff=sim.frames * frame_bytes > _BIGTIFF_BYTES) as tiff:
        tiff.write(
            _frames(sim, max(1, _BLOCK_BYTES // frame_bytes), advance),
            shape=(sim.frames, sim.height_px, sim.width_px),
            dtype=np.uint16,
            photometric="minisblack",
            contiguous=True,
            metadata={"axes": "TYX"},
        )


def _frames(sim: Simulation, block: int, advance: Callable[[int], None]) -> Iterator[Any]:
    for start in range(0, sim.frames, block):
        frames = simulate.frames(sim, start, min(start + block, sim.frames))
        for frame in frames:
            yield frame
            advance(1)


def _write_maps(sim: Simulation, files: SeriesFiles) -> dict[str, str]:
    """Write the camera's maps beside the series; return the metadata that name them."""
    named = {}
    for name, values in simulate.sensor_maps(sim).items():
        tifffile.imwrite(files.map(name), values, photometric="minisblack")
        named[_MAP_KEYS[name]] = files.map(name).name
    return named


def _write_truth(truth: np.ndarray[Any, Any], path: Path) -> None:
    names = truth.dtype.names or ()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows([[_number(value) for value in row] for row in truth.tolist()])
    temporary.replace(path)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
