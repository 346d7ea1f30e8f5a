"""How many frames a second does PYME's cluster localise? Runs inside PYME's own interpreter; see `beside.py`.

    python run_pyme_cluster.py FILM.npy FRAMES WORKERS FOLDER

Starts PYME's data server, rule server and node server as PYMEClusterOfOne does, puts the frames under the data server's root as its spooler
stores them, and pushes a localisation rule. Prints a JSON line: seconds from the push until every frame is done, how many failed, and rows.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

film_path, frames, workers, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
root = folder / "pyme"
(root / "series").mkdir(parents=True)
(folder / "home" / ".PYME").mkdir(parents=True)
(folder / "home" / ".PYME" / "config.yaml").write_text(
    f"dataserver-root: {root}\nnodeserver-num_workers: {workers}\n"
)
os.environ |= {
    "HOME": str(folder / "home"),
    "PYMEDATADIR": str(root),
    "TMPDIR": str(folder),
    "MPLBACKEND": "agg",
}

import numpy as np  # noqa: E402 -- PYME reads its configuration when it is imported
from PYME.IO import PZFFormat  # noqa: E402

METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "voxelsize.units": "um",
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 1.0,
    "Camera.ReadNoise": 1.0,
    "Camera.NoiseFactor": 1.0,
    "Camera.TrueEMGain": 1.0,
    "Analysis.FitModule": "LatGaussFitFR",
    "Analysis.DetectionThreshold": 1.0,
    "Analysis.BGRange": [-30, 0],
    "Analysis.StartAt": 30,
    "Analysis.subtractBackground": True,
    "Analysis.DebounceRadius": 4,
    "Analysis.TrackFiducials": False,
    "Protocol.DataStartsAt": 0,
}


def write_series() -> None:
    """As the spooler leaves it: a file a frame, its metadata, and the events that say it is complete."""
    film = np.load(film_path)
    for number in range(frames):
        packed = PZFFormat.dumps(film[number % len(film)][:, :, None], sequenceID=1, frameNum=number)
        (root / "series" / f"frame{number:05d}.pzf").write_bytes(packed)
    (root / "series" / "metadata.json").write_text(json.dumps(METADATA))
    (root / "series" / "events.json").write_text("[]")


def started() -> list[subprocess.Popen[bytes]]:
    """Start the three servers; the node server starts the workers."""
    log = (folder / "pyme.log").open("wb")

    def start(module: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"PYME.cluster.{module}", "-a", "local", "-p", "0", *words]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    servers = [start("HTTPDataServer", "-r", str(root)), start("PYMERuleServer")]
    time.sleep(5)
    return [*servers, start("PYMERuleNodeServer", "-n", workers)]


def localise() -> dict[str, float]:
    """Push a rule and wait until its tasks are done."""
    import requests
    from PYME.cluster import rules
    from PYME.IO import MetaDataHandler, clusterIO

    time.sleep(10)  # its look-outs for servers take so long
    began = time.perf_counter()
    analysis = MetaDataHandler.NestedClassMDHandler(METADATA)
    rule = rules.LocalisationRule(
        f"PYME-CLUSTER://{clusterIO.local_serverfilter}/series", analysis, startAt=30
    )
    rule.push()
    server, first, first_done = rule._getTaskQueueURI().rstrip("/"), None, 0  # noqa: SLF001 -- it tells nowhere else
    while time.perf_counter() - began < 300:
        queues = requests.get(f"{server}/distributor/queues", timeout=10).json()["result"]
        info = queues.get(rule._ruleID, {})  # noqa: SLF001 -- its public watch draws in a notebook
        done = info.get("tasksCompleted", 0) + info.get("tasksFailed", 0)
        if done and first is None:
            first, first_done = time.perf_counter() - began, done
        if done >= frames - 30:
            break
        time.sleep(0.2)
    seconds = time.perf_counter() - began
    if info.get("tasksFailed") or done < frames - 30:
        raise SystemExit(f"PYME did not localise everything: {info}")
    return {"seconds": seconds, "first_s": first, "first_done": first_done, "frames": frames - 30}


def main() -> None:
    write_series()
    servers = started()
    try:
        result = localise()
    finally:
        for server in reversed(servers):
            os.killpg(server.pid, signal.SIGKILL)  # its workers outlive a node server that is asked to end
            server.wait(20)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
