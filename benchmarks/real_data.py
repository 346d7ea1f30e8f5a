"""Does every public series open, what is found in it, and how far is that from the truth or from what other programs found?

    python benchmarks/real_data.py --data DIR [--only TEXT] [--workers N] [--set KEY=VALUE]

DIR holds the folders named in `real_series.py` (public data sets; not part of this project). Each series is localised by
`clusterofone localise`, matched within 250 nm with its truth or with another program's table, and reported as one JSON line; PYME's
own results are drawn and exported. A series that does not open, a job that does not end `done`, or the same pixels with other rows end
the script with status 1. Without --data, or with --quick, a small simulated series stands in, so that the script itself is exercised.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from real_series import RESULTS, SERIES, Positions, Series, camera_maps, of_csv

from cluster.results.h5r import Reader, read
from fitting import scoring

RADIUS_NM = 250.0
COMMAND = [sys.executable, "-m", "clusterofone"]


def main() -> None:
    options = parse()
    if options.data is None or options.quick:
        simulated(options.workers)
        return
    faults = 0
    rows_of: dict[str, bytes] = {}
    for series in SERIES:
        if options.only in series.path:
            faults += report(series.path, lambda series=series: measure(options, series, rows_of))
    for path in RESULTS:
        if options.only in path:
            faults += report(path, lambda path=path: read_back(options.data / path))
    raise SystemExit(1 if faults else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the public data sets")
    parser.add_argument("--only", default="", metavar="TEXT", help="series whose path holds this")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, over the series' own"
    )
    parser.add_argument("--quick", action="store_true", help="a small simulated series only")
    return parser.parse_args()


class Fault(Exception):
    """What should not have happened, in words."""


def report(path: str, measured: Any) -> int:
    """Print the line of one file; return how many faults it has."""
    try:
        print(json.dumps({"file": path, **measured()}), flush=True)
    except Fault as fault:
        print(json.dumps({"file": path, "fault": str(fault)}), flush=True)
        return 1
    return 0


def measure(options: argparse.Namespace, series: Series, rows_of: dict[str, bytes]) -> dict[str, Any]:
    """Localise one series and hold it against what is known of it."""
    with tempfile.TemporaryDirectory() as folder:
        job, rows = localised(options, series, Path(folder), {})
        rows_of[series.path] = rows.tobytes()
        if series.same_as in rows_of and rows_of[series.same_as] != rows.tobytes():
            raise Fault(f"other rows than those of {series.same_as}, which has the same pixels")
        found: dict[str, Any] = {"frames": job["frames"]["total"], "found": len(rows)}
        if series.same_as in rows_of:
            found["same_rows_as"] = series.same_as
        if series.molecules is not None:
            found["found_by_its_own_program"] = series.molecules
        if series.maps is not None:
            maps = camera_maps(options.data, Path(folder), series.maps)
            found["found_with_camera_maps"] = len(localised(options, series, Path(folder), maps)[1])
        if series.known is not None:
            found |= scored(rows, series.known.read(options.data), series.known)
        return found


def localised(
    options: argparse.Namespace, series: Series, folder: Path, maps: dict[str, str]
) -> tuple[dict[str, Any], Any]:
    """Run the command as a user would; return its job and the rows."""
    given = [f"--meta={key}={value}" for key, value in series.metadata.items()]
    settings = {**series.settings, **{key: str(folder / name) for key, name in maps.items()}}
    given += [f"--set={key}={value}" for key, value in settings.items()]
    given += [f"--set={text}" for text in options.set]
    job = localise(options.data / series.path, folder / "out.h5r", options.workers, given)
    return job, read(folder / "out.h5r").rows


def localise(path: Path, out: Path, workers: int, arguments: list[str]) -> dict[str, Any]:
    """Run `clusterofone localise`; return its job, which must have ended well."""
    command = [*COMMAND, "localise", str(path), "-o", str(out), "-n", str(workers), "--overwrite", "--json"]
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if not ran.stdout:
        raise Fault(ran.stderr.strip())
    job = dict(json.loads(ran.stdout.splitlines()[-1]))
    if job["state"] != "done":
        raise Fault(f"the job ended {job['state']}: {job['error']}")
    return job


def scored(rows: Any, known: dict[str, Any], positions: Positions) -> dict[str, Any]:
    """Return how rows compare with the truth or with another program's table."""
    result = scoring.score(scoring.columns_of(rows), known, radius_nm=RADIUS_NM)
    return {
        "against": positions.by,
        "known": result.n_truth,
        "recall": round(result.recall, 4),
        "precision": round(result.precision, 4),
        "jaccard": round(result.jaccard, 4),
        "rmse_nm_per_axis": rounded(result.accuracy.rmse_nm / 2**0.5),
        "rmse_isolated_nm_per_axis": rounded(result.isolated.rmse_nm / 2**0.5),
        "rmse_over_crlb_isolated": rounded(result.isolated.rmse_over_crlb, 3),
        "bias_nm": [rounded(result.accuracy.bias_x_nm), rounded(result.accuracy.bias_y_nm)],
    }


def rounded(value: float, digits: int = 2) -> float | None:
    """Return a figure as JSON has it: None where there is none."""
    return round(value, digits) if math.isfinite(value) else None


def read_back(results: Path) -> dict[str, Any]:
    """Draw and export a results file of PYME's."""
    with tempfile.TemporaryDirectory() as folder, Reader(results) as reader:
        for command, name in (("render", "picture.png"), ("export", "table.csv")):
            ran = subprocess.run(
                [*COMMAND, command, str(results), str(Path(folder) / name)],
                capture_output=True,
                text=True,
                check=False,
            )
            if ran.returncode:
                raise Fault(ran.stderr.strip())
        table = np.loadtxt(Path(folder) / "table.csv", delimiter=",", skiprows=1)
        if not np.isfinite(table).all():
            raise Fault("the exported table holds what is no number")
        rows = sum(len(block) for block in reader.blocks())
        return {
            "rows": rows,
            "exported": len(table),
            "picture_bytes": (Path(folder) / "picture.png").stat().st_size,
        }


def simulated(workers: int) -> None:
    """Score a small simulated series the same way."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.tif"
        size = ["--frames", "200", "--size", "96", "--emitters", "6"]
        subprocess.run([*COMMAND, "simulate", str(path), *size], check=True, capture_output=True)
        job = localise(path, Path(folder) / "out.h5r", workers, [])
        truth = of_csv("simulated.truth.csv", ("frame", "x_nm", "y_nm"), first_frame=0)
        rows = read(Path(folder) / "out.h5r").rows
        found = {"frames": job["frames"]["total"], "found": len(rows)}
        print(json.dumps({"file": "simulated", **found, **scored(rows, truth.read(Path(folder)), truth)}))


if __name__ == "__main__":
    main()
