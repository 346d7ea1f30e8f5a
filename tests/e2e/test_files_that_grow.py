"""Another program writes a file while a job follows it: the table is that of a job on the finished file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from cluster.client import Client
from cluster.results import h5r

pytestmark = pytest.mark.e2e

# A microscope program: it takes its frames from a finished series, and writes as such programs do.
WRITER = """
import sys, time, tifffile, numpy
kind, source, target, frames, pause_s = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
stack = tifffile.imread(source)[:frames]
def slowly():
    for frame in stack:
        time.sleep(pause_s)
        yield frame
if kind == "tiff":
    with tifffile.TiffWriter(target, bigtiff=True) as writer:
        for frame in slowly():
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")
            writer._fh.flush()
elif kind == "torn":
    with open(target, "wb") as file:
        whole = open(source, "rb").read()
        for end in range(0, len(whole) // 3, 50_000):
            file.write(whole[end : end + 50_000]); file.flush(); time.sleep(pause_s)
elif kind == "h5":
    import tables
    with tables.open_file(target, "w", filters=tables.Filters(complevel=6, shuffle=True)) as file:
        notes = file.create_group(file.root, "MetaData")
        turned = stack.shape[:0:-1]
        images = file.create_earray(
            file.root, "ImageData", tables.UInt16Atom(), (0, *turned), chunkshape=(1, *turned)
        )
        for number, frame in enumerate(slowly()):
            images.append(frame.T[None])
            if number % 10 == 9:
                file.flush()
        notes._v_attrs.EndTime = 1.0
"""


def table_of(path: str | Path) -> bytes:
    with h5py.File(path) as file:
        return file["FitResults"][:].tobytes()


def fingerprint_in(path: str | Path) -> str:
    provenance = h5r.read(Path(path)).provenance
    assert provenance is not None
    return str(provenance.input["fingerprint"])


class Bench:
    def __init__(self, shell: Any, series: Path, eventually: Callable[..., Any]) -> None:
        self.source, self.folder, self.eventually = series, series.parent, eventually
        running = shell.start("-n", 2, "--no-browser")
        said = eventually(lambda: re.search(r"scheduler +(http://\S+)", shell.said(running)), "a scheduler")
        eventually(lambda: "Ctrl-C stops it" in shell.said(running), "a cluster")
        self.token = shell.run("token", "--role", "owner").stdout.strip()
        self.client = Client(said.group(1), self.token)
        self.writers: list[subprocess.Popen[bytes]] = []
        self.offline("cells/series.tif")  # the fits are compiled

    def write(
        self, kind: str, name: str, *, frames: int = 300, pause_s: float = 0.012
    ) -> subprocess.Popen[bytes]:
        shutil.copy(self.source.with_suffix(".json"), (self.folder / name).with_suffix(".json"))
        arguments = [kind, self.source, self.folder / name, frames, pause_s]
        process = subprocess.Popen([sys.executable, "-c", WRITER, *map(str, arguments)])
        self.writers.append(process)
        return process

    def until(self, job: str, reached: Callable[[Any], bool], what: str) -> Any:
        return self.eventually(lambda: (seen := self.client.job(job)) and reached(seen) and seen, what)

    def ended(self, job: str) -> Any:
        return self.until(job, lambda seen: seen.state not in {"waiting", "queued", "running"}, "its end")

    def offline(self, name: str, **settings: Any) -> Any:
        return self.ended(self.client.submit(name, **settings).id)


@pytest.fixture(scope="module")
def bench(shared_shell: Any, shared_series: Path, eventually: Callable[..., Any]) -> Iterator[Bench]:
    bench = Bench(shared_shell, shared_series, eventually)
    yield bench
    for writer in bench.writers:
        writer.kill()
        writer.wait()
    bench.client.close()


@pytest.mark.parametrize(
    ("kind", "name"), [("tiff", "grows.tif"), pytest.param("h5", "spooled.h5", marks=pytest.mark.slow)]
)
def test_a_file_that_is_followed_while_it_is_written_gives_the_table_of_the_finished_file(
    bench: Bench, kind: str, name: str
) -> None:
    writer = bench.write(kind, name)
    bench.eventually((bench.folder / name).exists, "the file")

    job = bench.client.submit(f"cells/{name}", analysis={"rest_s": 2}, follow=True)
    live = bench.until(job.id, lambda seen: seen.frames.localised > 40, "live localisations")
    still_writing = writer.poll() is None
    done = bench.ended(job.id)
    reference = bench.offline(f"cells/{name}")

    assert still_writing
    assert live.state == "running"
    assert (done.state, done.frames.total, done.frames.localised, done.error) == ("done", 300, 300, None)
    assert table_of(done.output) == table_of(reference.output)
    assert fingerprint_in(done.output) == fingerprint_in(reference.output)


def test_a_program_that_dies_ends_its_job_with_the_count_of_what_is_missing(bench: Bench) -> None:
    writer = bench.write("torn", "dies.tif", pause_s=0.01)
    assert writer.wait(60) == 0

    job = bench.client.submit("cells/dies.tif", analysis={"rest_s": 1, "idle_limit_s": 3}, follow=True)
    done = bench.ended(job.id)

    assert done.state == "done_with_errors"
    assert done.frames.total == 300
    assert done.frames.localised == 300 - done.frames.failed > 80
    assert f"of 300 frames, {done.frames.failed} never came" in done.error


def test_a_file_that_is_replaced_meanwhile_stops_its_job(bench: Bench) -> None:
    writer = bench.write("tiff", "replaced.tif", pause_s=0.05)
    bench.eventually((bench.folder / "replaced.tif").exists, "the file")
    job = bench.client.submit("cells/replaced.tif", follow=True)
    bench.until(job.id, lambda seen: seen.frames.localised > 5, "live localisations")

    writer.kill()
    writer.wait()
    import tifffile

    other = tifffile.imread(bench.source)[100:200]
    with tifffile.TiffWriter(bench.folder / "replaced.tif", bigtiff=True) as second:
        for frame in other:
            second.write(frame, contiguous=False, metadata=None, photometric="minisblack")
    done = bench.ended(job.id)

    assert done.state == "done_with_errors"
    assert "was replaced by another series meanwhile" in done.error


# PYMEAcquire as a protocol sees it: tasks at frames, a scope, and a spooler that writes the file.
PYME_HOST = """
import importlib.util, sys, threading, time, types, tables, tifffile
source, target, protocol_file = sys.argv[1:4]
stack = tifffile.imread(source)
done = []
scope = types.SimpleNamespace(
    turnAllLasersOff=lambda: done.append("off"),
    l642=types.SimpleNamespace(TurnOn=lambda: done.append("on")),
    spoolController=types.SimpleNamespace(spooler=types.SimpleNamespace(filename=target)),
)
host = types.ModuleType("PYME.Acquire.protocol")
host.scope, host.T = scope, lambda when, what, *with_: (when, what, with_)
host.TaskListProtocol = lambda tasks, metadata, preflight=(): types.SimpleNamespace(tasks=tasks, metadata=metadata)
for name, module in (("PYME", types.ModuleType("PYME")), ("PYME.Acquire", types.ModuleType("PYME.Acquire"))):
    sys.modules[name] = module
sys.modules["PYME.Acquire.protocol"] = host
spec = importlib.util.spec_from_file_location("protocol", protocol_file)
protocol = importlib.util.module_from_spec(spec)
spec.loader.exec_module(protocol)
tasks = sorted(protocol.PROTOCOL.tasks, key=lambda task: task[0])
with tables.open_file(target, "w", filters=tables.Filters(complevel=6, shuffle=True)) as file:
    notes = file.create_group(file.root, "MetaData")
    turned = stack.shape[:0:-1]
    images = file.create_earray(file.root, "ImageData", tables.UInt16Atom(), (0, *turned), chunkshape=(1, *turned))
    for number, frame in enumerate(stack):
        while tasks and tasks[0][0] <= number:
            _, what, with_ = tasks.pop(0)
            what(*with_)
        for posting in threading.enumerate():
            if posting.name == "clusterofone":
                posting.join(90)  # a real acquisition takes longer than a submit that is tried again
        images.append(frame.T[None])
        file.flush()
        time.sleep(0.01)
    notes._v_attrs.EndTime = 1.0
print(done)
"""

PYCROMANAGER_HOST = """
import json, os, struct, sys, time, types, tifffile
source, target, hooks = sys.argv[1:4]
sys.path.insert(0, hooks)
from pycromanager_follow import METADATA, FollowAfter
stack = tifffile.imread(source)
follow = FollowAfter(data_starts_at=60, metadata={"Camera.Name": "stand-in"}, analysis={"rest_s": 2})
os.mkdir(target)
dataset, name = types.SimpleNamespace(path=target), b"cell_NDTiffStack.tif"
with open(target + "/cell_NDTiffStack.tif", "wb") as pixels, open(target + "/NDTiff.index", "wb") as index:
    pixels.write(b"II*\\0" + bytes(12))
    for number, frame in enumerate(stack):
        offset = pixels.tell()
        pixels.write(frame.tobytes())
        pixels.flush()
        axes = json.dumps({"time": number}).encode()
        index.write(struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name)
        index.write(struct.pack("<8I", offset, frame.shape[1], frame.shape[0], 1, 0, 0, 0, 0))
        index.flush()
        follow({"time": number}, dataset)
        time.sleep(0.01)
follow.posting.join(60)
"""

HOOKS = Path(__file__).parents[2] / "docs" / "examples" / "acquisition-hooks"


@pytest.mark.parametrize(
    ("host", "name", "hook"),
    [
        (PYME_HOST, "hooked.h5", HOOKS / "prebleach_and_follow.py"),
        pytest.param(PYCROMANAGER_HOST, "hooked", HOOKS, marks=pytest.mark.slow),
    ],
    ids=["PYMEAcquire", "pycro-manager"],
)
def test_a_hook_starts_a_job_when_the_prebleaching_ends(
    bench: Bench, host: str, name: str, hook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTEROFONE_SCHEDULER", bench.client.url)
    monkeypatch.setenv("CLUSTEROFONE_TOKEN", bench.token)
    monkeypatch.setenv("CLUSTEROFONE_ROOT", str(bench.folder.parent))
    shutil.copy(bench.source.with_suffix(".json"), bench.folder / "hooked.json")
    arguments = [host, bench.source, bench.folder / name, hook]
    writer = subprocess.Popen([sys.executable, "-c", *map(str, arguments)])
    bench.writers.append(writer)

    job = bench.eventually(
        lambda: next((job for job in bench.client.jobs() if job.series == f"cells/{name}"), None), "the job"
    )
    still_writing = writer.poll() is None
    done = bench.ended(job.id)
    reference = bench.offline(f"cells/{name}", metadata={"Protocol.DataStartsAt": 60})

    assert writer.wait(60) == 0
    assert still_writing
    assert (done.state, done.frames.skipped, done.frames.localised) == ("done", 60, 240)
    assert table_of(done.output) == table_of(reference.output)
