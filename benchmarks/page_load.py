"""What ten people who watch a job cost it: frames/s with nobody looking and with ten browsers' worth of looks, by turns in one run.

Each viewer does what an open page of a job makes the cluster do: its overview once a second, and its picture and histograms every three seconds. They speak to the page's
server as browsers do for pictures, and to the scheduler as the page does for the rest, each with a look of its own, so that nothing is shared. Figures in docs/performance.md are of
`python benchmarks/page_load.py`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from running_cluster import Cluster
from surroundings import surroundings

from cluster.client import Client

VIEWERS = 10
_PAGE = re.compile(r"page +(http\S+)/login#token=(\S+)")


class Viewer(threading.Thread):
    """An open page of a job."""

    def __init__(self, number: int, page: str, token: str, cluster: Client, job_id: str) -> None:
        super().__init__(daemon=True)
        self._number, self._job_id = number, job_id
        self._cluster = Client(cluster.url, token)
        self._browser = httpx.Client(base_url=page, headers={"origin": page}, trust_env=False, timeout=60)
        self._browser.post("/login", json={"token": token}).raise_for_status()
        self.stop = threading.Event()
        self.pictures = 0

    def run(self) -> None:
        """Look until it is stopped."""
        beat = 0
        while not self.stop.wait(1.0 if beat else self._number / VIEWERS):
            self._cluster.identity(), self._cluster.jobs(), self._cluster.workers()
            if beat % 3 == 0:
                asked = {"pixel_nm": 20 + self._number, "gamma": 0.5, "n": beat}
                reply = self._browser.get(f"/data/jobs/{self._job_id}/render.png", params=asked)
                self.pictures += reply.status_code == 200
                self._cluster.histograms(self._job_id, f"photons={self._number}..")
            beat += 1


def rate_of(cluster: Client, series: str, viewers: int, page: str, token: str) -> tuple[float, int]:
    """Return the frames/s of a job, from its first task on, and how many pictures were drawn meanwhile."""
    job = cluster.submit(series)
    watching = [Viewer(number, page, token, cluster, job.id) for number in range(viewers)]
    for viewer in watching:
        viewer.start()
    *_, last = cluster.watch(job.id)
    for viewer in watching:
        viewer.stop.set()
        viewer.join()
    if last.state != "done" or last.started is None or last.finished is None:
        raise SystemExit(f"the job is {last.state}: {last.error}")
    return last.frames.localised / (last.finished - last.started), sum(one.pictures for one in watching)


def main() -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=30_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few frames, one turn")
    asked = parser.parse_args()
    frames, turns = (1500, 1) if asked.quick else (asked.frames, asked.turns)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "data").mkdir()
        series = root / "data" / "series.tif"
        made = [sys.executable, "-m", "clusterofone", "simulate", str(series), "--frames", str(frames), "--size", "128", "--seed", "1"]  # fmt: skip
        subprocess.run(made, check=True, capture_output=True)
        rates: dict[int, list[float]] = {0: [], VIEWERS: []}
        pictures = 0
        with Cluster(root, asked.workers) as cluster:
            found = _PAGE.search((root / "cluster.log").read_text())
            assert found is not None
            page = "{0.scheme}://{0.netloc}".format(urlsplit(found[1]))
            rate_of(cluster, "series.tif", 0, page, found[2])  # kernels are compiled
            for _ in range(turns):
                for viewers, rate in rates.items():
                    found_rate, drawn = rate_of(cluster, "series.tif", viewers, page, found[2])
                    rate.append(found_rate)
                    pictures += drawn
    alone, watched = (statistics.median(rate) for rate in rates.values())
    print(
        json.dumps(
            {
                "frames": frames,
                "workers": asked.workers,
                "frames_per_s": {"0 viewers": round(alone), f"{VIEWERS} viewers": round(watched)},
                "ratio": round(watched / alone, 3),
                "turns": {str(viewers): [round(one) for one in rate] for viewers, rate in rates.items()},
                "pictures": pictures,
                **surroundings(),
            }
        )
    )


if __name__ == "__main__":
    main()
