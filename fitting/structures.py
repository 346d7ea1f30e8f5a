"""Where simulated molecules sit: things worth looking at once they are localised.

Every function takes the number of molecules, the size of the field (height, width) and a pixel's size, all lengths
in nm, and gives (k, 2) positions ``x, y`` [nm] whose origin is the corner of the field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.float64]
Field = tuple[float, float]
Structure = Literal["uniform", "filaments", "rings", "grid"]

_FILAMENT_STEP_NM = 20.0
_FILAMENT_RADIUS_NM = 12.0
_FILAMENT_SPACING_NM = 2800.0  # one filament for so much of the field's side
_BEND_NM = 8000.0  # typical radius of curvature
_BEND_MEMORY_NM = 4000.0  # length over which the curvature changes
_RING_RADIUS_NM = 54.0  # the nuclear pore's outer ring
_RING_CORNERS = 8
_RING_JITTER_NM = 3.0
_MOLECULES_PER_RING = 16


def place(structure: Structure, count: int, field_nm: Field, rng: np.random.Generator) -> Positions:
    """Put molecules on a structure.

    Parameters
    ----------
    structure : {"uniform", "filaments", "rings", "grid"}
        What to build.
    count : int
        Number of molecules.
    field_nm : (float, float)
        Height and width of the field [nm].
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    positions : (count, 2) array
        ``x`` [nm], ``y`` [nm] from the corner of the field, inside the field but for a few on its rim.
    """
    if count == 0:
        return np.empty((0, 2))
    return _BUILDERS[structure](count, field_nm, rng)


def _uniform(count: int, field_nm: Field, rng: np.random.Generator) -> Positions:
    height, width = field_nm
    return rng.random((count, 2)) * (width, height)


def _grid(count: int, field_nm: Field, rng: np.random.Generator) -> Positions:
    """A regular grid, each molecule moved within a tenth of the pitch so that all sub-pixel phases occur."""
    cells, pitch = _cells(count, field_nm)
    return (cells + 0.5 + rng.uniform(-0.05, 0.05, cells.shape)) * pitch


def _rings(count: int, field_nm: Field, rng: np.random.Generator) -> Positions:
    centres = _ring_centres(max(1, count // _MOLECULES_PER_RING), field_nm, rng)
    turn = rng.uniform(0, 2 * np.pi, len(centres))
    ring = rng.integers(len(centres), size=count)
    angle = turn[ring] + rng.integers(_RING_CORNERS, size=count) * (2 * np.pi / _RING_CORNERS)
    corners = _RING_RADIUS_NM * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    positions: Positions = centres[ring] + corners + rng.normal(0, _RING_JITTER_NM, (count, 2))
    return positions


def _ring_centres(count: int, field_nm: Field, rng: np.random.Generator) -> Positions:
    cells, pitch = _cells(count, field_nm)
    room = np.maximum(0.0, 0.5 - 1.5 * _RING_RADIUS_NM / pitch)  # neighbours keep a ring's radius apart
    return (cells + 0.5 + rng.uniform(-1, 1, cells.shape) * room) * pitch


def _cells(count: int, field_nm: Field) -> tuple[Positions, Positions]:
    """Split the field into at least `count` nearly square cells; give the first `count`, spread evenly, and the pitch."""
    height, width = field_nm
    columns = max(1, round(np.sqrt(count * width / height)))
    rows = -(-count // columns)
    cell = np.arange(count) * (rows * columns) // count
    return np.stack([cell % columns, cell // columns], axis=1).astype(float), np.array(
        [width / columns, height / rows]
    )


def _filaments(count: int, field_nm: Field, rng: np.random.Generator) -> Positions:
    """Smooth curves through the field, hollow like microtubules."""
    path, heading = _curves(field_nm, rng)
    height, width = field_nm
    inside = np.flatnonzero(((path >= 0) & (path <= (width, height))).all(axis=1))
    chosen = rng.choice(inside, count)
    along = rng.uniform(0, _FILAMENT_STEP_NM, count)
    across = _FILAMENT_RADIUS_NM * np.sin(rng.uniform(0, 2 * np.pi, count))
    cos, sin = np.cos(heading[chosen]), np.sin(heading[chosen])
    positions: Positions = path[chosen] + np.stack(
        [along * cos - across * sin, along * sin + across * cos], axis=1
    )
    return positions


def _curves(field_nm: Field, rng: np.random.Generator) -> tuple[Positions, Positions]:
    """Points and headings along curves of slowly changing curvature that start somewhere in the field."""
    height, width = field_nm
    curves = max(2, round(max(field_nm) / _FILAMENT_SPACING_NM))
    steps = int(1.5 * np.hypot(height, width) / _FILAMENT_STEP_NM) + 2
    starts = rng.random((curves, 2)) * (width, height)
    first_heading = rng.uniform(0, 2 * np.pi, curves)
    paths, headings = [], []
    for way in (0.0, np.pi):  # both ways from the start, so that a curve crosses the whole field
        heading = first_heading[:, np.newaxis] + way + _bends(curves, steps, rng)
        stride = _FILAMENT_STEP_NM * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        paths.append(starts[:, np.newaxis] + np.cumsum(stride, axis=1))
        headings.append(heading)
    return np.concatenate(paths).reshape(-1, 2), np.concatenate(headings).ravel()


def _bends(curves: int, steps: int, rng: np.random.Generator) -> Positions:
    """Heading relative to the start: the integral of a curvature that forgets itself over `_BEND_MEMORY_NM`."""
    memory = np.exp(-_FILAMENT_STEP_NM / _BEND_MEMORY_NM)
    kicks = rng.normal(0, np.sqrt(1 - memory**2) / _BEND_NM, (steps, curves))
    curvature = np.empty((steps, curves))
    curvature[0] = rng.normal(0, 1 / _BEND_NM, curves)
    for step in range(1, steps):
        curvature[step] = memory * curvature[step - 1] + kicks[step]
    return (np.cumsum(curvature, axis=0) * _FILAMENT_STEP_NM).T


_BUILDERS: dict[Structure, Callable[[int, Field, np.random.Generator], Positions]] = {
    "uniform": _uniform,
    "filaments": _filaments,
    "rings": _rings,
    "grid": _grid,
}
