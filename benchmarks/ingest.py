"""How fast do frames of an acquisition reach the disk of a data server, beside a plain write of the same bytes?

    python benchmarks/ingest.py [--size 256 2048] [--codec blosc-lz4|none] [--repeats N] [--folder DIR] [--follow] [--pyme PYTHON] [--quick]

40,000 frames of 256² and 2,000 of 2048² go through `SeriesWriter` and HTTP to a data server that is a process of its own; the plain write
puts the same frames, in chunks of the same size, each into a file of its own that is fsynced, and is timed in turns with it. Every
frame is read back and compared. With --follow a job that follows the series is submitted to a cluster that is started for it; with --pyme PYME's
HDF5 spooler, in its own interpreter, takes the first twentieth of the frames in turns too. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
from surroundings import surroundings

from cluster.client import Client
from cluster.errors import ClusterError
from cluster.protocol import NewSeries
from cluster.series_writer import SeriesWriter
from cluster.transport import BlockingLink

_FRAMES = {256: 40_000, 2048: 2_000}
_DIFFERENT = {
    256: 1024,
    2048: 16,
}  # frames that differ, which come again and again; no two in a chunk are alike
_METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 1.0,
    "Camera.TrueEMGain": 1.0,
    "Camera.ReadNoise": 1.5,
    "Camera.NoiseFactor": 1.0,
}


def main() -> None:
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    result: dict[str, Any] = {"benchmark": "ingest", "codec": arguments.codec}
    try:
        with _Server(folder, follow=arguments.follow) as server:
            for size in arguments.size:
                frames = _FRAMES.get(size, 2000) // (20 if arguments.quick else 1)
                result[f"{size}x{size}"] = _measure(server, size, frames, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result | surroundings()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs="+", default=[256, 2048], help="sides of a frame")
    parser.add_argument(
        "--codec", default="blosc-lz4", choices=["blosc-lz4", "none"], help="of the way there"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the median counts")
    parser.add_argument("--senders", type=int, default=2, help="connections of the writer")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is to be measured")
    parser.add_argument("--follow", action="store_true", help="have a job follow each series")
    parser.add_argument("--pyme", type=Path, default=None, metavar="PYTHON", help="interpreter with PYME")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the frames")
    return parser.parse_args()


def _measure(server: _Server, size: int, frames: int, arguments: argparse.Namespace) -> dict[str, Any]:
    film = _film(size)
    plain, written, pyme = [], [], []
    outcome: dict[str, Any] = {"frames": frames, "mb": round(frames * size * size * 2 / 1e6)}
    for turn in range(1 if arguments.quick else arguments.repeats):
        plain.append(_plain_write(server.root / "plain", film, frames))
        if arguments.pyme is not None:
            pyme.append(_pyme(arguments.pyme, server.root, film, frames // 20) * 20)
        path = f"{size}_{turn}.zarr"
        took, job = _ingest(server, path, film, frames, arguments)
        written.append(took)
        outcome["frames_that_differ"] = outcome.get("frames_that_differ", 0) + _differing(
            server, path, film, frames
        )
        outcome["mb_on_disk"] = round(_size(server.root / path) / 1e6)
        if job is not None:
            outcome.setdefault("followed", []).append(job)
        shutil.rmtree(server.root / path)
    mb = frames * size * size * 2 / 1e6
    outcome |= {"mb_per_s": round(mb / median(written)), "plain_mb_per_s": round(mb / median(plain))}
    outcome["share_of_plain"] = round(median(plain) / median(written), 2)
    outcome["frames_per_s"] = round(frames / median(written))
    if pyme:
        outcome["pyme_mb_per_s"] = round(mb / median(pyme))
    return outcome


def _film(size: int) -> np.ndarray[Any, Any]:
    """Frames of a camera with noise, as hard to compress as real ones."""
    rng = np.random.default_rng(size)
    count = _DIFFERENT.get(size, 64)
    return np.stack(
        [
            (100 + rng.poisson(30, (size, size)) + rng.normal(0, 1.5, (size, size))).astype(np.uint16)
            for _ in range(count)
        ]
    )


def _plain_write(folder: Path, film: np.ndarray[Any, Any], frames: int) -> float:
    unit = max(1, (8 << 20) // film[0].nbytes)
    folder.mkdir()
    start = time.perf_counter()
    for first in range(0, frames, unit):
        numbers = np.arange(first, min(first + unit, frames)) % len(film)
        with (folder / str(first)).open("wb", buffering=0) as file:
            file.write(np.ascontiguousarray(film[numbers[0] : numbers[0] + len(numbers)]).data)
            os.fsync(file.fileno())
    took = time.perf_counter() - start
    shutil.rmtree(folder)
    return took


def _pyme(python: Path, folder: Path, film: np.ndarray[Any, Any], frames: int) -> float:
    """Return how long PYME's spooler takes for some frames."""
    stored, target = folder / "film.npy", folder / "pyme.h5"
    np.save(stored, film)
    script = Path(__file__).parent / "peers" / "run_pyme_spooler.py"
    command = [str(python), str(script), str(stored), str(frames), str(target)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    stored.unlink()
    target.unlink()
    return float(ran.stdout.splitlines()[-1])


def _ingest(
    server: _Server, path: str, film: np.ndarray[Any, Any], frames: int, arguments: argparse.Namespace
) -> tuple[float, Any]:
    size = film.shape[1]
    wanted = NewSeries(height=size, width=size, metadata=_METADATA)
    start = time.perf_counter()
    with SeriesWriter(server.link, path, wanted, codec=arguments.codec, senders=arguments.senders) as writer:
        job = server.follow(path) if arguments.follow else None
        for number in range(frames):
            writer.append(film[number % len(film)])
    took = time.perf_counter() - start
    return took, server.outcome(job) if job is not None else None


def _differing(server: _Server, path: str, film: np.ndarray[Any, Any], frames: int) -> int:
    """Read every frame from the folder and count those that are not what was appended."""
    from cluster.dataserver.readers.acquired import AcquiredZarr

    reader = AcquiredZarr(server.root / path)
    assert reader.shape.complete
    differing = abs(reader.shape.frames - frames)
    for first in range(0, min(frames, reader.shape.frames), 64):
        stop = min(first + 64, frames)
        read, _ = reader.read(first, stop)
        differing += int((read != film[np.arange(first, stop) % len(film)]).any(axis=(1, 2)).sum())
    return differing


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class _Server:
    """A data server, or with `follow` a whole cluster, in processes of its own."""

    def __init__(self, folder: Path, *, follow: bool) -> None:
        self.root = folder / "data"
        self.root.mkdir()
        self._follow = follow
        own = {"CLUSTEROFONE_HOME": str(folder / "home"), "PYMEDATADIR": str(self.root)}
        self._environ = {**os.environ, **own, "PYTHONUTF8": "1"}
        self._log = (folder / "log").open("w+")

    def __enter__(self) -> Self:
        role = (
            ["--no-browser", "--no-page"]
            if self._follow
            else ["dataserver", "--scheduler", "http://127.0.0.1:9", "--insecure"]
        )
        self._port = 15_940
        if not self._follow:
            role += ["--port", str(self._port), "--root", str(self.root)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clusterofone", *role],
            env=self._environ,
            stdout=self._log,
            stderr=self._log,
        )
        self._client: Client | None = None
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                self.link().close()
            except ClusterError:
                time.sleep(0.1)
            else:
                return self
        self.__exit__()
        self._log.seek(0)
        raise SystemExit(f"the server did not start:\n{self._log.read()}")

    def link(self) -> BlockingLink:
        if self._follow:
            if self._client is None:
                self._client = Client(allow_discovery=False, environ=self._environ)
            from cluster.data_link import data_link

            return data_link(self._client._link)  # noqa: SLF001
        link = BlockingLink(f"http://127.0.0.1:{self._port}")
        link.request("GET", "/healthz")
        return link

    def follow(self, path: str) -> str:
        """Submit a job that follows a series; its first frames must have come."""
        assert self._client is not None
        return self._client.submit(path, follow=True, analysis={"roi_half_size": 3}).id

    def outcome(self, job_id: str) -> dict[str, Any]:
        assert self._client is not None
        start = time.perf_counter()
        last = list(self._client.watch(job_id))[-1]
        return {
            "state": last.state,
            "localised": last.frames.localised,
            "behind_s": round(time.perf_counter() - start, 1),
        }

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)


if __name__ == "__main__":
    main()
