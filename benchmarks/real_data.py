"""How many molecules are found, and how far from the truth, in series that others made?

    python benchmarks/real_data.py --data DIR [--only NAME] [--workers N] [--set KEY=VALUE]

DIR holds the folders named in SERIES below (public data sets; not part of this project). Each series is localised by
`clusterofone localise`, matched with its truth within 250 nm, and reported as one JSON line. Without --data, or with
--quick, a small simulated series stands in, so that the script itself is exercised.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster.results.h5r import read
from fitting import scoring

DAOSTORM = {
    "voxelsize.x": 0.16,
    "voxelsize.y": 0.16,
    "Camera.ADOffset": 100,
    "Camera.ElectronsPerCount": 1,
    "Camera.ReadNoise": 1,
}
NM_100 = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100,
    "Camera.ElectronsPerCount": 1,
    "Camera.ReadNoise": 1,
}


@dataclass(frozen=True)
class Series:
    """A series, what its file does not say, and how its truth table is to be read."""

    path: str
    truth: str
    columns: tuple[str, str, str]  # frame, x, y
    metadata: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    first_frame: int = 1
    scale_nm: float = 1.0
    shift_nm: float = 0.0

    @property
    def name(self) -> str:
        """Return what the series is called in the report."""
        return Path(self.path).stem


SERIES = [
    Series(
        "pyme_h5r/sim_200f.tif",
        "pyme_h5r/sim_truth_first_200_frames.csv",
        ("frame", "x_nm", "y_nm"),
        first_frame=0,
    ),
    Series(
        "storm_analysis_sim/test.dax",
        "storm_analysis_sim/test_olist.csv",
        ("frame_1based", "x_px_0based_center", "y_px_0based_center"),
        DAOSTORM,
        {"psf_sigma_nm": 150, "background": "0:0"},
        scale_nm=160,
    ),
    Series(
        "storm_analysis_sim/test_300x200.dax",
        "storm_analysis_sim/test_300x200_olist.csv",
        ("frame_1based", "x_px_0based_center", "y_px_0based_center"),
        DAOSTORM,
        {"psf_sigma_nm": 150, "background": "0:0"},
        scale_nm=160,
    ),
    Series(
        "storm_analysis_sim/test_low_snr.dax",
        "storm_analysis_sim/test_low_snr_list.csv",
        ("frame_1based", "x_px_0based_center", "y_px_0based_center"),
        DAOSTORM,
        {"psf_sigma_nm": 150, "background": "0:0"},
        scale_nm=160,
    ),
    Series(
        "deepstorm_bundled_tubes_hd/testStack_SimulatedMicrotubules.tif",
        "deepstorm_bundled_tubes_hd/testStack_ground_truth.csv",
        ("frame", "xnano", "ynano"),
        NM_100,
        {"background": "0:0", "debounce_radius": 2},
        shift_nm=-50,
    ),
    Series(
        "deepstorm_bundled_tubes_hd/ArtificialDataset_demo1.tif",
        "deepstorm_bundled_tubes_hd/ArtificialDataset_demo1_positions.csv",
        ("frame", "x [nm]", "y [nm]"),
        NM_100,
        {"background": "0:0", "debounce_radius": 2},
        shift_nm=-50,
    ),
]


def main() -> None:
    options = parse()
    if options.data is None or options.quick:
        simulated(options.workers)
        return
    for series in SERIES:
        if options.only in {None, series.name}:
            print(json.dumps(measure(options.data, series, options.workers, options.set)), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the public data sets")
    parser.add_argument("--only", help="one series, by its stem")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, over the series' own"
    )
    parser.add_argument("--quick", action="store_true", help="a small simulated series only")
    return parser.parse_args()


def measure(data: Path, series: Series, workers: int, settings: list[str]) -> dict[str, Any]:
    """Localise one series and score it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.h5r"
        given = [f"--meta={key}={value}" for key, value in series.metadata.items()]
        given += [f"--set={key}={json.dumps(value)}" for key, value in series.settings.items()]
        job = localise(data / series.path, out, workers, [*given, *(f"--set={text}" for text in settings)])
        rows = read(out).rows
    return {"series": series.name, **scored(rows, truth_of(data, series), job)}


def localise(path: Path, out: Path, workers: int, arguments: list[str]) -> dict[str, Any]:
    """Run the command as a user would; return its job."""
    command = [
        sys.executable,
        "-m",
        "clusterofone",
        "localise",
        str(path),
        "-o",
        str(out),
        "-n",
        str(workers),
        "--json",
        *arguments,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if not ran.stdout:
        raise SystemExit(f"{path}: {ran.stderr}")
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def truth_of(data: Path, series: Series) -> dict[str, Any]:
    """Return a truth table as columns frame (from 0), x_nm, y_nm (pixel centres at whole pixels)."""
    with (data / series.truth).open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    frame, x, y = (np.array([float(row[column]) for row in table]) for column in series.columns)
    scale, shift = series.scale_nm, series.shift_nm
    return {
        "frame": (frame - series.first_frame).astype(int),
        "x_nm": x * scale + shift,
        "y_nm": y * scale + shift,
    }


def scored(rows: Any, truth: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one series."""
    result = scoring.score(scoring.columns_of(rows), truth, radius_nm=250.0)
    return {
        "state": job["state"],
        "frames": job["frames"]["total"],
        "truth": result.n_truth,
        "found": result.n_found,
        "recall": round(result.recall, 4),
        "precision": round(result.precision, 4),
        "jaccard": round(result.jaccard, 4),
        "rmse_nm_per_axis": round(result.accuracy.rmse_nm / 2**0.5, 2),
        "rmse_isolated_nm_per_axis": round(result.isolated.rmse_nm / 2**0.5, 2),
        "rmse_over_crlb_isolated": round(result.isolated.rmse_over_crlb, 3),
        "bias_nm": [round(result.accuracy.bias_x_nm, 2), round(result.accuracy.bias_y_nm, 2)],
    }


def simulated(workers: int) -> None:
    """Score a small simulated series the same way."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.tif"
        command = [
            sys.executable,
            "-m",
            "clusterofone",
            "simulate",
            str(path),
            "--frames",
            "200",
            "--size",
            "96",
            "--emitters",
            "6",
        ]
        subprocess.run(command, check=True, capture_output=True)
        job = localise(path, Path(folder) / "out.h5r", workers, [])
        series = Series("simulated.tif", "simulated.truth.csv", ("frame", "x_nm", "y_nm"), first_frame=0)
        print(
            json.dumps(
                {
                    "series": "simulated",
                    **scored(read(Path(folder) / "out.h5r").rows, truth_of(Path(folder), series), job),
                }
            )
        )


if __name__ == "__main__":
    main()
