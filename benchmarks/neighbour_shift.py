"""How far does an unfitted neighbour pull a fit, and what is left when both are fitted together?

    python benchmarks/neighbour_shift.py [--pairs N] [--table] [--film FRAMES] [--quick]

Pairs of molecules of 1000 photons each on 20 background photons/px, sigma 1.3 px, at random places and in random directions. *Alone*: a ROI around the
truth, fitted by `fit_rois`. *Together*: what `analyse` makes of the same frames. For each distance the mean shift towards the
neighbour [nm], the root mean square error along an axis [nm], and for `analyse` the share of pairs of which both molecules become
rows. Prints one JSON line; with --table the table of docs/theory.md too.

With --film also, over the whole workload of `workload.py`: error and recall of all rows and of those that fit well, each molecule alone and all together, and
the share of an analysis' processor time that goes into fitting together. Prints a line and a table of it too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from workload import PIXEL_NM, Workload, _expected_frame, series

from fitting import analyse, fit_rois
from fitting.neighbours import fit_with_neighbours
from fitting.scoring import columns_of, match, score

FloatArray = npt.NDArray[np.float64]
Pairs = tuple[npt.NDArray[np.uint16], FloatArray]

_DISTANCES_PX = (3.0, 3.5, 4.5, 5.0, 6.0, 7.0, 8.0, 10.0)
_SIZE_PX, _PITCH_PX = 252, 42
_PER_FRAME = (_SIZE_PX // _PITCH_PX) ** 2
_SIDES = (7, 11)
_PAIR_RADIUS_NM = 250.0
_TURNS = 3
_TOGETHER = fit_with_neighbours.__name__


def main() -> None:
    arguments = _arguments()
    number = _PER_FRAME if arguments.quick else arguments.pairs
    work = Workload(size_px=_SIZE_PX)
    lines = []
    for distance in _DISTANCES_PX:
        frames, truth = _simulate(work, distance, -(-number // _PER_FRAME))
        line: dict[str, Any] = {"distance_px": distance, "pairs": len(truth) * _PER_FRAME}
        for side in _SIDES:
            line[f"{side}x{side}"] = _alone(work, frames, truth, side) | _together(work, frames, truth, side)
        lines.append(line)
    result: dict[str, Any] = {"benchmark": "neighbour_shift", "results": lines}
    if arguments.film:
        result["film"] = _film(min(arguments.film, 20) if arguments.quick else arguments.film)
    print(json.dumps(result))
    if arguments.table:
        print(_table(lines))
        if arguments.film:
            print(_film_table(result["film"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=2000, help="pairs for each distance")
    parser.add_argument("--film", type=int, default=0, metavar="FRAMES", help="frames of the workload")
    parser.add_argument("--table", action="store_true", help="print the table too")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


def _simulate(work: Workload, distance_px: float, frames: int) -> Pairs:
    """Frames, and truth [frame, pair, molecule, x or y] in px."""
    rng = np.random.default_rng((work.seed, round(10 * distance_px)))
    y, x = np.mgrid[_PITCH_PX // 2 : _SIZE_PX : _PITCH_PX, _PITCH_PX // 2 : _SIZE_PX : _PITCH_PX]
    middle = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-0.5, 0.5, (frames, _PER_FRAME, 2))
    angle = rng.uniform(0, 2 * np.pi, (frames, _PER_FRAME))
    half = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * distance_px / 2
    truth = np.stack([middle - half, middle + half], axis=2)
    expected = [_expected_frame(work, places.reshape(-1, 2)) for places in truth]
    readings = np.rint(100 + rng.poisson(np.array(expected)) / 0.5).astype(np.uint16)
    return readings, truth


def _alone(work: Workload, frames: Any, truth: FloatArray, side: int) -> dict[str, float]:
    places = truth.reshape(-1, 2)
    middle = np.rint(places).astype(int)
    reach = np.arange(side) - side // 2
    frame = np.repeat(np.arange(len(frames)), 2 * _PER_FRAME)
    rois = frames[
        frame[:, None, None], middle[:, 1, None, None] + reach[:, None], middle[:, 0, None, None] + reach
    ]
    found = fit_rois((rois - 100.0) * 0.5, sigma_px=work.sigma_px)
    good = found["status"] == 1
    where = np.column_stack([found["x_px"], found["y_px"]]) + middle - side // 2
    near = good & (np.linalg.norm(where - places, axis=1) * PIXEL_NM < _PAIR_RADIUS_NM)
    return _figures("alone", (where - places)[near], _towards(truth)[near], near)


def _together(work: Workload, frames: Any, truth: FloatArray, side: int) -> dict[str, float]:
    settings = {"background": None, "roi_half_size": side // 2, "psf_sigma_nm": work.sigma_px * PIXEL_NM}
    found = columns_of(analyse(frames, settings, work.metadata).rows)
    where = np.column_stack([found["x_nm"], found["y_nm"]])
    frame = np.repeat(np.arange(len(frames)), 2 * _PER_FRAME)
    i, j = match(found["frame"], where, frame, truth.reshape(-1, 2) * PIXEL_NM, _PAIR_RADIUS_NM)
    off = where[i] / PIXEL_NM - truth.reshape(-1, 2)[j]
    matched = np.zeros(len(frame), bool)
    matched[j] = True
    return _figures("together", off, _towards(truth)[j], matched)


def _towards(truth: FloatArray) -> FloatArray:
    """Unit vector from each molecule to its neighbour."""
    apart = truth[:, :, ::-1] - truth
    result: FloatArray = (apart / np.linalg.norm(apart, axis=-1, keepdims=True)).reshape(-1, 2)
    return result


def _figures(name: str, off: FloatArray, towards: FloatArray, matched: npt.NDArray[Any]) -> dict[str, float]:
    return {
        f"{name}_shift_nm": round(float((off * towards).sum(axis=1).mean()) * PIXEL_NM, 2),
        f"{name}_rmse_nm": round(float(np.sqrt((off**2).mean())) * PIXEL_NM, 2),
        f"{name}_found": round(float(matched.mean()), 3),
    }


def _film(frames: int) -> dict[str, dict[str, float]]:
    """Error, recall and time on the workload, for each side of a ROI, alone and together."""
    work = Workload(frames=frames)
    images, truth = series(work)
    result = {}
    for side in _SIDES:
        settings = {
            "background": None,
            "roi_half_size": side // 2,
            "psf_sigma_nm": work.sigma_px * PIXEL_NM,
        }
        for kind, share in (("alone", False), ("together", True)):
            analyse(images[:5], settings, work.metadata)  # loads all that calls it
            with _Together(fitted=share) as together:
                shares = []
                for _ in range(_TURNS):
                    together.seconds, start = 0.0, time.process_time()
                    rows = analyse(images, settings, work.metadata).rows
                    shares.append(together.seconds / (time.process_time() - start))
            line: dict[str, float] = {}
            for name, chosen in (("all", rows), ("good", rows[rows["nchi2"] < 2])):
                scored = score(columns_of(chosen), truth)
                line[f"{name}_rmse_nm"] = round(scored.accuracy.rmse_nm / float(np.sqrt(2)), 2)
                line[f"{name}_recall"] = round(scored.recall, 4)
            result[f"{side}x{side} {kind}"] = line | {"share_of_the_time": round(median(shares), 4)}
    return result


class _Together:
    """Times the fit of close molecules together within `analyse`, or leaves it out."""

    def __init__(self, fitted: bool) -> None:
        self._fitted, self.seconds = fitted, 0.0
        self._callers = [
            module
            for name, module in sys.modules.items()
            if name.startswith("fitting.") and vars(module).get(_TOGETHER) is fit_with_neighbours
        ]

    def __enter__(self) -> Self:
        for module in self._callers:
            setattr(module, _TOGETHER, self._fit)
        return self

    def __exit__(self, *_: object) -> None:
        for module in self._callers:
            setattr(module, _TOGETHER, fit_with_neighbours)

    def _fit(self, *arguments: Any) -> None:
        if self._fitted:
            start = time.process_time()
            fit_with_neighbours(*arguments)
            self.seconds += time.process_time() - start


def _film_table(film: dict[str, dict[str, float]]) -> str:
    head = "| | all rows | recall | rows with `nchi2` < 2 | recall | share of the time |\n|---|---|---|---|---|---|"
    rows = [
        f"| {name} | {line['all_rmse_nm']:.2f} nm | {line['all_recall']:.3f} | {line['good_rmse_nm']:.2f} nm | {line['good_recall']:.3f} |"
        f" {100 * line['share_of_the_time']:.0f} % |"
        for name, line in film.items()
    ]
    return "\n".join([head, *rows])


def _table(lines: list[dict[str, Any]]) -> str:
    head = "| px apart | " + " | ".join(
        f"{side} × {side} {kind}" for side in _SIDES for kind in ("alone", "together")
    )
    rows = [
        f"| {line['distance_px']:g} | "
        + " | ".join(
            f"{cell[f'{kind}_shift_nm']:+.1f} ({cell[f'{kind}_rmse_nm']:.1f})"
            for cell in (line[f"{side}x{side}"] for side in _SIDES)
            for kind in ("alone", "together")
        )
        + " |"
        for line in lines
    ]
    return "\n".join([head + " |", "|---" * (1 + 2 * len(_SIDES)) + "|", *rows])


if __name__ == "__main__":
    main()
