"""What pictures, histograms and drift need of localisations, column by column and small: some forty bytes each instead of two hundred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from cluster.results.quantities import Calibration, errors_of, quantities, worth_showing

__all__ = ["MEASURES", "Columns", "Measure", "columns_of"]

Rows = npt.NDArray[np.void]
Floats = npt.NDArray[np.float32]
Chosen = npt.NDArray[np.bool_] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measure:
    """A quantity by which localisations are counted and chosen: its name here, for people, and its unit."""

    name: str
    title: str
    unit: str


MEASURES: Final = (
    Measure("photons", "photons", ""),
    Measure("sigma_nm", "σ of the PSF", "nm"),
    Measure("precision_nm", "precision", "nm"),
    Measure("background", "background", "photons/px"),
    Measure("z_nm", "z", "nm"),
    Measure("frame", "localisations per frame", ""),
)


@dataclass(frozen=True)
class Columns:
    """Localisations that are worth showing, as columns of equal length; None where their fit knows no such thing, NaN where a row does not.

    `hidden` counts the rows that were left out: fits that did not converge, or whose error is over 100 nm.
    """

    frame: npt.NDArray[np.int32]
    x_nm: Floats
    y_nm: Floats
    error_x_nm: Floats
    error_y_nm: Floats
    photons: Floats | None = None
    sigma_nm: Floats | None = None
    background: Floats | None = None
    z_nm: Floats | None = None
    hidden: int = 0

    @classmethod
    def of(cls, rows: Rows, calibration: Calibration | None = None) -> Self:
        """Take the columns of rows; without a calibration only what a picture needs."""
        shown = _chosen(rows, worth_showing(rows))
        fits = shown["fitResults"]
        names = fits.dtype.names or ()
        known = quantities(shown, calibration) if calibration is not None else None
        return cls(
            frame=shown["tIndex"].astype(np.int32),
            x_nm=fits["x0"].astype(np.float32),
            y_nm=fits["y0"].astype(np.float32),
            error_x_nm=errors_of(shown, "x0").astype(np.float32),
            error_y_nm=errors_of(shown, "y0").astype(np.float32),
            photons=None if known is None else known.photons.astype(np.float32),
            sigma_nm=None if known is None else _narrow(known.sigma_nm),
            background=None if known is None else _narrow(known.background),
            z_nm=fits["z0"].astype(np.float32) if "z0" in names else None,
            hidden=len(rows) - len(shown),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put parts of one result, at least one, behind each other."""
        together: dict[str, Any] = {"hidden": sum(part.hidden for part in parts)}
        for name in _NAMES:
            columns = [getattr(part, name) for part in parts]
            together[name] = None if columns[0] is None else np.concatenate(columns)
        return cls(**together)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def nbytes(self) -> int:
        """Return how much memory they take."""
        return sum(column.nbytes for column in self.present.values())

    @property
    def precision_nm(self) -> Floats:
        """Return the root mean square of the two errors."""
        squares = np.square(self.error_x_nm) + np.square(self.error_y_nm)
        return np.sqrt(squares / np.float32(2))

    def measure(self, name: str) -> npt.NDArray[Any] | None:
        """Return one of `MEASURES`, None if the fit does not know it."""
        found: npt.NDArray[Any] | None = getattr(self, name)
        return found

    def select(self, chosen: Chosen) -> Self:
        """Keep some, by a mask or by their numbers; the others are not counted as hidden."""
        numbers = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        if chosen.dtype == np.bool_ and len(numbers) == len(self):
            return self
        return self._with({name: column.take(numbers) for name, column in self.present.items()})

    def for_picture(self) -> Self:
        """Let go of what no picture needs, so that choosing rows costs less."""
        return replace(self, photons=None, sigma_nm=None, background=None)

    def every(self, step: int) -> Self:
        """Keep one of so many."""
        return self._with({name: column[::step] for name, column in self.present.items()})

    def moved(self, dx_nm: npt.NDArray[Any], dy_nm: npt.NDArray[Any]) -> Self:
        """Take a drift off the positions."""
        return replace(
            self,
            x_nm=(self.x_nm - dx_nm).astype(np.float32, copy=False),
            y_nm=(self.y_nm - dy_nm).astype(np.float32, copy=False),
        )

    def _with(self, columns: dict[str, Any]) -> Self:
        return replace(self, **columns)

    @property
    def present(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the columns that there are, by name."""
        return {name: column for name in _NAMES if (column := getattr(self, name)) is not None}


_NAMES: Final = tuple(field.name for field in fields(Columns) if field.name != "hidden")


def _chosen(rows: Rows, mask: npt.NDArray[np.bool_]) -> Rows:
    """Return some of the rows, as whole pieces of memory: numpy copies a table field by field, which takes several times as long."""
    if mask.all():
        return rows
    pieces = np.ascontiguousarray(rows).view(f"V{rows.dtype.itemsize}")
    return pieces[mask].view(rows.dtype)


def _narrow(column: npt.NDArray[np.float64] | None) -> Floats | None:
    return None if column is None else column.astype(np.float32)


def columns_of(block: Rows | Columns) -> Columns:
    """Return a block as columns, which it may be already."""
    return block if isinstance(block, Columns) else Columns.of(block)
