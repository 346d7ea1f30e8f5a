"""A Dask cluster on SLURM that grows and shrinks by itself; PBS and LSF: PBSCluster, LSFCluster with the same arguments.

pip install 'clusterofone[dask]' dask-jobqueue, on the node where this runs and on those that compute (one shared
environment). Then, here:  python dask_on_slurm.py --jobs 10 &  and  clusterofone worker --dask ~/dask-scheduler.json --scheduler URL
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from dask_jobqueue import SLURMCluster


def main() -> None:
    """Start it, and leave the file by which it is found, until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4, help="at most so many batch jobs")
    parser.add_argument("--cores", type=int, default=16, help="cores of each")
    parser.add_argument("--memory", default="16GB", help="memory of each")
    parser.add_argument("--walltime", default="04:00:00", help="of each")
    parser.add_argument("--partition", default=None)
    parser.add_argument("--file", type=Path, default=Path.home() / "dask-scheduler.json")
    given = parser.parse_args()
    hours, minutes, seconds = (int(part) for part in given.walltime.split(":"))
    lifetime_s = max(30, 3600 * hours + 60 * minutes + seconds - 120)
    with SLURMCluster(
        queue=given.partition,
        cores=given.cores,
        processes=given.cores,  # one thread each: the fits hold no lock, but reading and copying do
        memory=given.memory,
        walltime=given.walltime,
        # workers leave before the batch system ends them, not all at once
        worker_extra_args=["--lifetime", f"{lifetime_s}s", "--lifetime-stagger", "60s"],
        scheduler_options={"scheduler_file": str(given.file), "dashboard_address": ":0"},
    ) as cluster:
        cluster.adapt(minimum_jobs=1, maximum_jobs=given.jobs)
        print(
            f"Dask's scheduler: {cluster.scheduler_address}, and in {given.file}. Ctrl-C stops it.",
            flush=True,
        )
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
