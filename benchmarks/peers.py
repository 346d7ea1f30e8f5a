"""How fast and how good are we, beside Picasso, SMAPpy and PYME, on one core of this machine?

    python benchmarks/peers.py [--picasso PYTHON] [--smappy BIN_DIR] [--pyme PYTHON]
                               [--frames N] [--repeat 5] [--quick] [--out FILE.jsonl] [--page FILE.md]

Each peer needs an environment of its own (benchmarks/README.md says how to make them); a peer that is not given is left
out. Everything runs in one thread on one core, the programs take turns, and each figure is the median of all turns.
Imports and the first run of everything, which compiles, are reported apart. One JSON line answers one question.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peers_page import write_page
from turns import Contender, Runner, machine, pin, take_turns
from workload import ELECTRONS_PER_ADU, OFFSET_ADU, PIXEL_NM, Workload, crlb_px, rois, series

from fitting import scoring

SIDES = (7, 11)
ROIS = 20_000
PYME_FIRST = 30  # it fits the frames from here on; the ones before are their background
PYME_FRAMES = 90  # at some 20 frames a second
STRAY_PX = 2.5  # a fit farther from the truth than this failed
ISOLATION_NM = 1500.0
RADIUS_NM = 250.0

OURS = "ours"
CAMERA_PICASSO = {
    "Baseline": OFFSET_ADU,
    "Sensitivity": ELECTRONS_PER_ADU,
    "Gain": 1,
    "Pixelsize": PIXEL_NM,
}
CAMERA_SMAPPY = {
    "conversion": ELECTRONS_PER_ADU,
    "offset": OFFSET_ADU,
    "pixelsize_um": PIXEL_NM / 1000,
    "em_on": False,
    "read_noise_e": 0.0,
}


@dataclass(frozen=True)
class Stage:
    """What the measurements share: a folder for the data, the runners by name, and how much to do."""

    folder: Path
    runners: dict[str, Runner]
    frames: int
    rois: int
    repeat: int

    def save(self, name: str, array: npt.NDArray[Any]) -> Path:
        """Write data where the runners can read it."""
        path = self.folder / f"{name}.npy"
        np.save(path, array)
        return path


def main() -> None:
    options = parse()
    core = pin(options.core)
    reports: list[dict[str, Any]] = []
    with contextlib.ExitStack() as open_until_end:
        folder = Path(open_until_end.enter_context(tempfile.TemporaryDirectory()))
        runners = start(options, open_until_end)
        common = {
            **machine(),
            "pinned_to_core": core,
            "repeat": options.repeat,
            "versions": {name: runner.versions for name, runner in runners.items()},
            "left_out": [name for name in ("picasso", "smappy", "pyme") if name not in runners],
        }
        stage = Stage(folder, runners, options.frames, options.rois, options.repeat)
        for report in measured(stage):
            reports.append({**report, **common})
            say(reports[-1], options.out)
    if options.page:
        write_page(options.page, reports, command(options))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picasso", metavar="PYTHON", help="interpreter that has picassosr")
    parser.add_argument("--smappy", metavar="BIN_DIR", help="folder of the interpreter that has smappy-smlm")
    parser.add_argument("--pyme", metavar="PYTHON", help="interpreter that has python-microscopy")
    parser.add_argument(
        "--frames", type=int, default=500, help="of the whole pipeline (PYME gets the first 120)"
    )
    parser.add_argument("--rois", type=int, default=ROIS, help="of the fit alone")
    parser.add_argument("--repeat", type=int, default=5, help="turns; figures are their medians")
    parser.add_argument("--core", type=int, help="the core to use; by default the last")
    parser.add_argument("--quick", action="store_true", help="a tiny size, to see that everything runs")
    parser.add_argument("--out", type=Path, help="also append the JSON lines to this file")
    parser.add_argument("--page", type=Path, help="also write the tables as Markdown")
    options = parser.parse_args()
    if options.quick:
        options.frames, options.rois, options.repeat = 60, 1000, 2
    if options.frames < 2 * PYME_FIRST:
        parser.error(f"--frames must be at least {2 * PYME_FIRST}")
    return options


def start(options: argparse.Namespace, open_until_end: contextlib.ExitStack) -> dict[str, Runner]:
    """Start ours and every peer that was given."""
    pythons = {
        OURS: sys.executable,
        "picasso": options.picasso,
        "smappy": options.smappy and str(Path(options.smappy) / Path(sys.executable).name),
        "pyme": options.pyme,
    }
    runners = {}
    for name, python in pythons.items():
        if python:
            runners[name] = Runner(f"run_{name}.py", python)
            open_until_end.callback(runners[name].close)
    return runners


def measured(stage: Stage) -> Iterator[dict[str, Any]]:
    """Answer one question after the other."""
    of_ours = {}
    for side in SIDES:
        report = fit_only(stage, side)
        of_ours[side] = report["contenders"][OURS]
        yield report
    small, large = (of_ours[side]["rois_per_cpu_s"] for side in SIDES)
    yield {
        "question": f"How much slower are {SIDES[1]} px ROIs than {SIDES[0]} px ones, fit alone, ours?",
        "name": "roi_size",
        "ours_11_over_7": round(of_ours[SIDES[1]]["rois_per_s"] / of_ours[SIDES[0]]["rois_per_s"], 3),
        "ours_11_over_7_cpu": round(large / small, 3),
    }
    yield pipeline(stage)
    yield {
        "question": "How long until each program is imported?",
        "name": "imports",
        "import_s": {name: round(runner.import_s, 2) for name, runner in stage.runners.items()},
    }


def fit_only(stage: Stage, side: int) -> dict[str, Any]:
    work = Workload()
    images, truth = rois(work, stage.rois, side)
    path = stage.save(f"rois_{side}", images)
    tasks: dict[str, tuple[str, dict[str, Any]]] = {
        OURS: (OURS, {"estimator": "mle", "sigma_px": work.sigma_px}),
        "Picasso gaussmle-spherical": ("picasso", {"spherical": True, "eps": 1e-3}),
        "Picasso gaussmle": ("picasso", {"spherical": False, "eps": 1e-3}),
        "SMAPpy": ("smappy", {"sigma_px": work.sigma_px}),
    }
    contenders = [
        Contender(f"{name} {side}", stage.runners[runner], "fit", path, options)
        for name, (runner, options) in tasks.items()
        if runner in stage.runners
    ]
    take_turns(contenders, stage.repeat)
    bound_nm = crlb_px(work, side) * PIXEL_NM
    return {
        "question": f"How many {side} × {side} px ROIs does each fit in a second by maximum likelihood, fit alone?",
        "name": f"fit_only_{side}",
        "crlb_nm": round(bound_nm, 3),
        **compared(
            contenders, "rois", lambda contender: spread(contender.rows(), truth, bound_nm), f" {side}"
        ),
    }


def spread(found: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], bound_nm: float) -> dict[str, Any]:
    """Return how far fits are from the truth, those that failed left out and counted."""
    off = found - truth
    good = np.isfinite(off).all(axis=1) & (np.hypot(*off.T) < STRAY_PX)
    rmse_nm = math.sqrt((off[good] ** 2).mean()) * PIXEL_NM
    return {
        "rmse_nm": round(rmse_nm, 3),
        "rmse_over_crlb": round(rmse_nm / bound_nm, 3),
        "failed": int((~good).sum()),
    }


def pipeline(stage: Stage) -> dict[str, Any]:
    work = Workload(frames=stage.frames)
    frames, truth = series(work)
    data = {OURS: stage.save("frames", frames)}
    data["pyme"] = stage.save("frames_pyme", frames[: PYME_FIRST + PYME_FRAMES])
    contenders = [
        Contender(name, stage.runners[runner], "pipeline", data.get(runner, data[OURS]), options)
        for name, (runner, options) in pipelines(work).items()
        if runner in stage.runners
    ]
    take_turns(contenders, stage.repeat)
    return {
        "question": "How many frames does each localise in a second, and how well?",
        "name": "pipeline",
        "workload": {**vars(work), "emitters": work.emitters},
        **compared(contenders, "frames", lambda contender: scored(contender, truth)),
    }


def pipelines(work: Workload) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return every way to localise the workload: the runner, and what it is told."""
    given = {"metadata": work.metadata}
    ours = {"roi_half_size": 3, "psf_sigma_nm": work.sigma_px * PIXEL_NM}
    picasso = {"box": 7, "min_net_gradient": 1000, "camera": CAMERA_PICASSO}
    smappy = {"roi": 7, "sigma_px": work.sigma_px, "cutoff": 2.5, "camera": CAMERA_SMAPPY}
    pyme = {
        "Analysis.FitModule": "LatGaussFitFR",
        "Analysis.DetectionThreshold": 1.0,
        "Analysis.DebounceRadius": 5,
        "Analysis.BGRange": [-PYME_FIRST, 0],
        "Analysis.PSFSigmaGuess": work.sigma_px * PIXEL_NM,
    }
    mean = {"background": f"-{PYME_FIRST}:0", "background_percentile": None}
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        OURS: (OURS, {**given, "analysis": {**ours, **mean}}),
        "ours, percentile (the default)": (
            OURS,
            {**given, "analysis": {**ours, "background": mean["background"]}},
        ),
        "ours, no background": (OURS, {**given, "analysis": {**ours, "background": "0:0"}}),
        "Picasso gaussmle-spherical": ("picasso", {**picasso, "method": "gaussmle-spherical", "eps": 1e-3}),
        "Picasso gausslq-spherical": ("picasso", {**picasso, "method": "gausslq-spherical", "eps": None}),
        "SMAPpy": ("smappy", smappy),
    }
    for half_size in (3, 5):
        side = 2 * half_size + 1
        told = {**given, "first_frame": PYME_FIRST, "analysis": {**pyme, "Analysis.ROISize": half_size}}
        ways[f"PYME LatGaussFitFR {side}×{side}"] = ("pyme", told)
    return ways


def scored(contender: Contender, truth: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Return the figures of accuracy over the frames that the contender analysed; errors are per axis."""
    rows = contender.rows()
    found = {"frame": rows[:, 0], "x_nm": rows[:, 1] * PIXEL_NM, "y_nm": rows[:, 2] * PIXEL_NM}
    first = int(contender.prepared["first"])
    result = scoring.score(
        found,
        truth,
        radius_nm=RADIUS_NM,
        isolation_nm=ISOLATION_NM,
        frames=(first, first + contender.amount),
    )
    return {
        "recall": round(result.recall, 4),
        "precision": round(result.precision, 4),
        "rmse_nm": round(result.accuracy.rmse_nm / math.sqrt(2), 2),
        "rmse_isolated_nm": round(result.isolated.rmse_nm / math.sqrt(2), 2),
        "bias_nm": [round(result.accuracy.bias_x_nm, 2), round(result.accuracy.bias_y_nm, 2)],
    }


def compared(
    contenders: list[Contender],
    unit: str,
    accuracy: Callable[[Contender], dict[str, Any]],
    suffix: str = "",
) -> dict[str, Any]:
    """Return every contender's figures, and how many times faster the first is."""
    ours = contenders[0]
    return {
        "contenders": {
            contender.name.removesuffix(suffix): {**contender.timing(unit), **accuracy(contender)}
            for contender in contenders
        },
        "times_faster": {
            contender.name.removesuffix(suffix): {
                "wall": round(ours.rate / contender.rate, 2),
                "cpu": round(ours.rate_cpu / contender.rate_cpu, 2),
            }
            for contender in contenders[1:]
        },
    }


def say(report: dict[str, Any], out: Path | None) -> None:
    line = json.dumps(report, ensure_ascii=False)
    print(line, flush=True)
    if out:
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def command(options: argparse.Namespace) -> str:
    """Return the command that measures the same; where each peer lives is nobody else's business."""
    words = ["python benchmarks/peers.py", f"--frames {options.frames}", f"--repeat {options.repeat}"]
    words += [f"--rois {options.rois}"] if options.rois != ROIS else []
    places = {"picasso": "PYTHON", "smappy": "BIN_DIR", "pyme": "PYTHON"}
    words += [f"--{name} {place}" for name, place in places.items() if getattr(options, name)]
    return " ".join(words)


if __name__ == "__main__":
    main()
