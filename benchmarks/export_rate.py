"""How fast, and in how much memory, do localisations become pictures and other programs' tables?

    python benchmarks/export_rate.py [--rows N] [--only NAME] [--quick]

Makes a results file of N localisations (one million by default; the file takes some 40 bytes for each), then runs each command in a
process of its own. Prints one JSON line: for each, rows a second and the most memory the process had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from surroundings import surroundings

from cluster.results.h5r import Writer
from cluster.results.provenance import Provenance
from fitting.localisations import LAT_GAUSS_DTYPE, ResultCode

_BLOCK = 1 << 18
_FIELD_NM = 40_960.0
_METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
    "Camera.TrueEMGain": 1.0,
    "Camera.ROIWidth": 410,
    "Camera.ROIHeight": 410,
}
_WAYS = {
    "render": ["render", "out.png"],
    "render histogram": ["render", "out.png", "--style", "histogram"],
    "render by frame": ["render", "out.png", "--colour-by", "frame"],
    "render 16-bit": ["render", "out.tif"],
    "ThunderSTORM": ["export", "out.csv"],
    "Picasso": ["export", "out.hdf5"],
    "Parquet": ["export", "out.parquet"],
    "SMLM": ["export", "out.smlm"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=float, default=1e6, help="localisations")
    parser.add_argument("--only", default="", help="the ways whose name holds this")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    options = parser.parse_args()
    rows = 20_000 if options.quick else int(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "series.h5r"
        write(source, rows)
        figures = {
            name: measured([way[0], str(source), str(Path(folder) / way[1]), *way[2:]], rows)
            for name, way in _WAYS.items()
            if options.only in name
        }
        size = source.stat().st_size
    print(
        json.dumps({"benchmark": "export_rate", "rows": rows, "h5r_bytes": size, **figures, **surroundings()})
    )


def write(path: Path, rows: int) -> None:
    """Write localisations of a thousand photons, anywhere in a field of 41 µm, frame by frame."""
    rng = np.random.default_rng(1)
    with Writer(path, LAT_GAUSS_DTYPE, _METADATA) as writer:
        for start in range(0, rows, _BLOCK):
            writer.append(_block(rng, start, min(_BLOCK, rows - start)))
        writer.finish(Provenance({}, {}, {}, {"path": "series.tif"}, {}))


def _block(rng: np.random.Generator, start: int, count: int) -> Any:
    block = np.zeros(count, LAT_GAUSS_DTYPE)
    block["tIndex"] = np.arange(start, start + count) // 100
    block["resultCode"] = ResultCode.CONVERGED
    fits, errors = block["fitResults"], block["fitError"]
    for name, low, high in (("x0", 0, _FIELD_NM), ("y0", 0, _FIELD_NM), ("A", 150, 250), ("sigma", 120, 140)):
        fits[name] = rng.uniform(low, high, count)
    for name in errors.dtype.names:
        errors[name] = rng.gamma(9, 0.8, count)
    return block


def measured(arguments: list[str], rows: int) -> dict[str, float]:
    """Run a command; return its rows a second and the most memory it had, looked at every 20 ms."""
    begun, peak = time.perf_counter(), 0
    environment = os.environ | {"CLUSTEROFONE_HOME": str(Path(arguments[1]).parent / "home")}
    process = psutil.Popen(
        [sys.executable, "-m", "clusterofone", *arguments, "--overwrite"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    if process.wait():
        raise SystemExit(process.stderr.read().decode())
    seconds = time.perf_counter() - begun
    return {
        "rows_per_s": round(rows / seconds),
        "seconds": round(seconds, 2),
        "peak_mb": round(peak / 1e6, 1),
    }


if __name__ == "__main__":
    main()
