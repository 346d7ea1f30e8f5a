r"""How do our fits agree with PYME's of the same series, and with the truth?

    python benchmarks/agreement.py --series sim_200f.tif --pyme pyme_cluster_200f.h5r --truth sim_truth_first_200_frames.csv \
        [--metadata sim_200f.json] [--page docs/agreement.md] [--picture docs/pictures/agreement.png]
    python benchmarks/agreement.py --quick

The frames that PYME localised (10 to 196) are localised by `wls` and by `mle` with PYME's settings: threshold 1, no background, 11 × 11 px, debounce 3.
Without files (--quick) a simulated series takes their place, and our `wls` that of PYME. Needs tifffile and h5py, and matplotlib for the picture. Prints
one JSON line; with --page also the page of docs/.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from agreement_page import draw, write_page
from workload import Workload, series

from fitting import localise
from fitting.scoring import columns_of, match, score

Rows = npt.NDArray[np.void]
Truth = dict[str, npt.NDArray[Any]]

_SETTINGS = {"threshold": 1.0, "background": None, "roi_half_size": 5, "debounce_radius": 3.0}
_PAIR_NM = 250.0
_ALONE_NM = 1500.0


def main() -> None:
    arguments = _arguments()
    frames, metadata, truth, pyme = _simulated() if arguments.quick else _from_files(arguments)
    first, last = int(pyme["tIndex"].min()), int(pyme["tIndex"].max())
    settings = _SETTINGS | {"start_at": first, "stop_at": last + 1}
    tables = {
        "PYME": pyme,
        "wls": localise(frames, settings | {"estimator": "wls"}, metadata),
        "mle": localise(frames, settings | {"estimator": "mle"}, metadata),
    }
    result = {
        "benchmark": "agreement",
        "frames": [first, last],
        "truth": {
            name: _against_truth(rows, truth, (first, last + 1), metadata) for name, rows in tables.items()
        },
        "pyme": {name: _against_pyme(tables[name], pyme) for name in ("wls", "mle")},
    }
    print(json.dumps(result))
    if arguments.page:
        write_page(result, arguments.page)
    if arguments.picture:
        draw(tables, {name: _differences(tables[name], pyme) for name in ("wls", "mle")}, arguments.picture)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=Path, help="the raw series, a TIFF file")
    parser.add_argument("--metadata", type=Path, help="its metadata; by default the .json beside it")
    parser.add_argument("--pyme", type=Path, help="PYME's .h5r of it")
    parser.add_argument("--truth", type=Path, help="CSV with the columns frame, x_nm, y_nm")
    parser.add_argument("--page", type=Path, help="where to write the page")
    parser.add_argument("--picture", type=Path, help="where to draw the picture")
    parser.add_argument("--quick", action="store_true", help="simulate; only show that the script works")
    arguments = parser.parse_args()
    if not arguments.quick and None in (arguments.series, arguments.pyme, arguments.truth):
        parser.error("--series, --pyme and --truth are needed, or --quick")
    return arguments


def _simulated() -> tuple[Any, dict[str, object], Truth, Rows]:
    work = Workload(frames=20)
    frames, truth = series(work)
    settings = _SETTINGS | {"start_at": 5, "estimator": "wls", "psf_sigma_nm": 130.0}
    return frames, work.metadata, truth, localise(frames, settings, work.metadata)


def _from_files(arguments: argparse.Namespace) -> tuple[Any, dict[str, object], Truth, Rows]:
    import h5py
    import tifffile

    frames = np.asarray(tifffile.imread(arguments.series))
    beside = arguments.metadata or arguments.series.with_suffix(".json")
    metadata = json.loads(beside.read_text(encoding="utf-8"))
    table = np.genfromtxt(arguments.truth, delimiter=",", names=True)
    with h5py.File(arguments.pyme) as file:
        pyme = file["FitResults"][:]
    return frames, metadata, {name: table[name] for name in ("frame", "x_nm", "y_nm")}, pyme


def _photons(rows: Rows, metadata: dict[str, Any]) -> Any:
    """As PYME counts them: 2π A s² with the width in px, times electrons per ADU."""
    found = rows["fitResults"]
    width_px = found["sigma"].astype(float) / (1000 * metadata["voxelsize.x"])
    return 2 * np.pi * found["A"] * width_px**2 * metadata["Camera.ElectronsPerCount"]


def _pairs(rows: Rows, others: Truth) -> tuple[Any, Any]:
    columns = columns_of(rows, converged=False)
    xy, other_xy = (np.column_stack([table["x_nm"], table["y_nm"]]) for table in (columns, others))
    return match(columns["frame"], xy, others["frame"], other_xy, _PAIR_NM)


def _against_truth(
    rows: Rows, truth: Truth, frames: tuple[int, int], metadata: dict[str, Any]
) -> dict[str, float]:
    scored = score(columns_of(rows), truth, isolation_nm=_ALONE_NM, frames=frames)
    filtered = score(columns_of(rows[rows["nchi2"] < 2]), truth, isolation_nm=_ALONE_NM, frames=frames)
    matched = rows[_pairs(rows, truth)[0]]
    figures = {
        "rows": len(rows),
        "recall": scored.recall,
        "rmse_nm": scored.accuracy.rmse_nm / np.sqrt(2),
        "filtered_rmse_nm": filtered.accuracy.rmse_nm / np.sqrt(2),
        "filtered_recall": filtered.recall,
        "isolated_rmse_nm": scored.isolated.rmse_nm / np.sqrt(2),
        "isolated_rmse_over_errors": scored.isolated.rmse_over_crlb,
        "photons": np.median(_photons(matched, metadata)),
        "sigma_nm": np.median(matched["fitResults"]["sigma"]),
        "background_adu": np.median(matched["fitResults"]["background"]),
        "error_nm": np.median(matched["fitError"]["x0"]),
        "nchi2": np.median(matched["nchi2"]),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def _differences(rows: Rows, pyme: Rows) -> npt.NDArray[np.float64]:
    """(ours - PYME's) over PYME's error, x and y, of the rows that both have."""
    i, j = _pairs(rows, columns_of(pyme, converged=False))
    return np.column_stack([_difference(rows[i], pyme[j], name) for name in ("x0", "y0")])


def _difference(ours: Rows, pyme: Rows, name: str) -> Any:
    return (ours["fitResults"][name].astype(float) - pyme["fitResults"][name]) / pyme["fitError"][name]


def _against_pyme(rows: Rows, pyme: Rows) -> dict[str, float | None]:
    i, j = _pairs(rows, columns_of(pyme, converged=False))
    ours, theirs = rows[i], pyme[j]
    same = np.ones(len(i), bool)
    for axis in ("x", "y"):
        same &= ours["slicesUsed"][axis]["start"] == theirs["slicesUsed"][axis]["start"]
    off = np.abs(_differences(rows, pyme)).max(axis=1)
    figures: dict[str, float] = {
        "matched": len(i),
        "only_ours": len(rows) - len(i),
        "only_pymes": len(pyme) - len(i),
        "same_roi": same.mean(),
        "difference_same_roi": np.median(off[same]),
        "within_a_tenth_same_roi": (off[same] < 0.1).mean(),
        "difference_other_roi": np.median(off[~same]) if not same.all() else np.nan,
    }
    for name in ("A", "sigma", "background"):
        figures[f"{name}_difference_same_roi"] = np.median(_difference(ours[same], theirs[same], name))
    for name in ("x0", "sigma"):
        figures[f"{name}_error_ratio"] = np.median(ours["fitError"][name] / theirs["fitError"][name])
    return {name: round(float(value), 4) if np.isfinite(value) else None for name, value in figures.items()}


if __name__ == "__main__":
    main()
