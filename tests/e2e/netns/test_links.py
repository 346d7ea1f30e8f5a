"""Four machines on a switch: a cable is pulled in the middle of a job, or packets are lost all the time; the table is the same."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
import tifffile

import fitting
from cluster import trust

CAN_MAKE_NAMESPACES = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(not CAN_MAKE_NAMESPACES, reason="needs Linux, root and iproute2"),
]

Eventually = Callable[..., Any]
ADDRESSES = {"scheduler": "10.78.0.1", "dataserver": "10.78.0.2", "first": "10.78.0.3", "second": "10.78.0.4"}
URL = f"http://{ADDRESSES['scheduler']}:15400"
LEASE_S = 2
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}
SETTINGS = {"threshold": 0.3}  # noise is taken for molecules, so that a task takes long
ENDED = {"done", "done_with_errors", "failed", "cancelled"}
_CLONE_NEWNET = 0x40000000


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Switch:
    """A namespace with a bridge, and one for each machine, whose cable can be pulled at the switch."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._mark = f"c1{os.getpid() % 100000}"
        self._folder, self._cache = folder, cache
        self._started: list[subprocess.Popen[bytes]] = []
        self.data = folder / "data"
        self.data.mkdir()
        secret = trust.load_or_create_secret(
            self._home("scheduler") / "state" / "clusters" / "lab" / "secret"
        )
        self._token = trust.token(secret, "owner")
        self._within = ThreadPoolExecutor(1, initializer=self._enter)

    def lay(self) -> None:
        """Make the machines and their cables."""
        for name in ("switch", *ADDRESSES):
            ip("netns", "add", self._space(name))
        switch = self._space("switch")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for name, address in ADDRESSES.items():
            space = self._space(name)
            ip("-n", switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("-n", switch, "link", "set", name, "master", "bridge", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "set", "eth0", "up")

    def clear(self) -> None:
        """Stop what runs, and take everything away."""
        self._within.shutdown()
        for process in self._started:
            process.kill()
            process.wait()
        for name in ("switch", *ADDRESSES):
            subprocess.run(["ip", "netns", "delete", self._space(name)], check=False, capture_output=True)

    def pull(self, name: str) -> None:
        """Pull a machine's cable."""
        ip("-n", self._space("switch"), "link", "set", name, "down")

    def plug(self, name: str) -> None:
        """Put it back."""
        ip("-n", self._space("switch"), "link", "set", name, "up")

    def lose_packets(self) -> None:
        """Let each machine lose a twentieth of what is sent to it; 50 ms late, where the kernel can; skip if it cannot lose any."""
        for name in ADDRESSES:
            netem = ["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "loss", "5%", "delay", "50ms"]
            rule = ["iptables", "-A", "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random"]
            tries = [netem, [*rule, "--probability", "0.05", "-j", "DROP"]]
            if not any(self._done_on(name, command) for command in tries):
                pytest.skip(
                    "the kernel has neither netem nor iptables' statistic, or tc and iptables are not installed"
                )

    def lost_packets(self) -> int:
        """Return how many were lost so far, at the machine of the scheduler."""
        for command in (
            ["iptables", "-L", "INPUT", "-n", "-v", "-x"],
            ["tc", "-s", "qdisc", "show", "dev", "eth0"],
        ):
            said = subprocess.run(
                self._on("scheduler", *command), check=False, capture_output=True, text=True
            ).stdout
            for line in said.splitlines():
                words = line.replace(",", "").split()
                if "DROP" in words:
                    return int(words[0])
                if "(dropped" in words:
                    return int(words[words.index("(dropped") + 1])
        return 0

    def looks_in_vain(self, name: str, other: str) -> bool:
        """Return whether a machine looks for another, of which it forgets where it was, and nobody answers."""
        neighbours = ["ip", "-n", self._space(name), "neighbour"]
        said = subprocess.run(
            [*neighbours, "show", ADDRESSES[other]], check=True, capture_output=True, text=True
        )
        if "FAILED" in said.stdout or "INCOMPLETE" in said.stdout:
            return True
        subprocess.run([*neighbours, "flush", "to", ADDRESSES[other]], check=True, capture_output=True)
        return False

    def start(self, name: str, *words: object) -> None:
        """Start a role on one of the machines."""
        with (self._folder / f"{name}.log").open("wb") as log:
            self._started.append(
                subprocess.Popen(
                    self._on(name, sys.executable, "-m", "clusterofone", *map(str, words)),
                    env=self._environment(name),
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Return the scheduler's answer, asked on its own machine; None while nobody answers."""
        headers = {"authorization": f"Bearer {self._token}"}

        def asked() -> httpx.Response:
            return httpx.request(
                method, f"{URL}/api/v1{path}", headers=headers, trust_env=False, timeout=60, **more
            )

        try:
            reply = self._within.submit(asked).result()
        except httpx.HTTPError:
            return None
        assert reply.status_code < 500, reply.text
        return reply.json()

    def said(self) -> str:
        """Return the logs of all."""
        return "\n".join(f"--- {log.stem}\n{log.read_text()}" for log in sorted(self._folder.glob("*.log")))

    def _done_on(self, name: str, command: list[str]) -> bool:
        if shutil.which(command[0]) is None:
            return False
        return subprocess.run(self._on(name, *command), check=False, capture_output=True).returncode == 0

    def _on(self, name: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self._space(name), *command]

    def _space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _home(self, name: str) -> Path:
        return self._folder / f"home of {name}"

    def _environment(self, name: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLUSTEROFONE", "PYMEDATADIR"))}
        own = {"CLUSTEROFONE_HOME": str(self._home(name)), "CLUSTEROFONE_CACHE": str(self._cache)}
        if name != "scheduler":
            own["CLUSTEROFONE_TOKEN"] = self._token
        return {**kept, **own, "PYTHONUTF8": "1"}

    def _enter(self) -> None:
        """Go over to the scheduler's machine: a namespace is a thread's own."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{self._space('scheduler')}").open("rb") as space:
            if libc.setns(space.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture(scope="module")
def frames() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).poisson(140, (1200, 64, 64)).astype(np.uint16)


@pytest.fixture(scope="module")
def undisturbed(frames: np.ndarray[Any, Any]) -> bytes:
    """The table, made without any cluster."""
    return bytes(fitting.localise(frames, SETTINGS, METADATA).tobytes())


@pytest.fixture
def switch(
    tmp_path: Path, kernel_cache: Path, frames: np.ndarray[Any, Any], eventually: Eventually
) -> Iterator[Switch]:
    """Scheduler, data server and two workers, each on its own machine, and a series."""
    switch = Switch(tmp_path, kernel_cache)
    tifffile.imwrite(switch.data / "noise.tif", frames, photometric="minisblack")
    (switch.data / "noise.json").write_text(json.dumps(METADATA), encoding="utf-8")
    try:
        switch.lay()
        common = ("--name", "lab", "--root", switch.data)
        listening = ("--host", ADDRESSES["scheduler"], "--port", 15400)
        switch.start("scheduler", "scheduler", *common, *listening, "--lease-s", LEASE_S, "--task-frames", 20)
        switch.start(
            "dataserver", "dataserver", *common, "--host", ADDRESSES["dataserver"], "--scheduler", URL
        )
        for name in ("first", "second"):
            switch.start(name, "worker", "--one", "--scheduler", URL)
        eventually(lambda: len(switch.ask("GET", "/workers") or []) == 2, "two workers")
        eventually(lambda: switch.ask("GET", "/identity")["dataservers"], "a data server")
        yield switch
    finally:
        switch.clear()


def begun(switch: Switch, eventually: Eventually) -> str:
    """Submit a job, and return it once both workers are at it and some of it is done."""
    job = switch.ask("POST", "/jobs", json={"series": "noise.tif", "analysis": SETTINGS})

    def under_way() -> bool:
        workers = switch.ask("GET", "/workers")
        some = switch.ask("GET", f"/jobs/{job['id']}")["frames"]["localised"] > 0
        return some and all(worker["state"] == "working" for worker in workers)

    eventually(under_way, "both at work")
    return str(job["id"])


def table_of(switch: Switch, job_id: str, eventually: Eventually) -> bytes:
    """Return the table of a job that has lost no frame."""

    def ended() -> Any:
        job = switch.ask("GET", f"/jobs/{job_id}")
        return job["state"] in ENDED and job

    job = eventually(ended, "the end of the job")
    assert job["state"] == "done", switch.said()
    assert job["frames"] == {"total": 1200, "localised": 1200, "skipped": 0, "failed": 0}
    with h5py.File(job["output"]) as file:
        return bytes(file["FitResults"][:].tobytes())


def lost(switch: Switch) -> int:
    return sum(worker["state"] == "lost" for worker in switch.ask("GET", "/workers"))


@pytest.mark.parametrize(("whose", "workers_lost"), [("first", 1), ("scheduler", 2)])
def test_a_cable_that_is_pulled_until_leases_end_changes_nothing(
    switch: Switch, undisturbed: bytes, eventually: Eventually, whose: str, workers_lost: int
) -> None:
    job_id = begun(switch, eventually)

    switch.pull(whose)
    eventually(lambda: lost(switch) == workers_lost, "workers that are not heard of")
    before = switch.ask("GET", f"/jobs/{job_id}")
    switch.plug(whose)

    assert before["state"] == "running"
    assert table_of(switch, job_id, eventually) == undisturbed
    eventually(lambda: lost(switch) == 0, "both workers again")


def test_a_data_server_whose_cable_is_pulled_holds_up_its_jobs_and_nothing_else(
    switch: Switch, undisturbed: bytes, eventually: Eventually
) -> None:
    job_id = begun(switch, eventually)

    switch.pull("dataserver")
    eventually(
        lambda: any(switch.looks_in_vain(name, "dataserver") for name in ("first", "second")),
        "a worker that looks for the data server in vain",
    )
    before = switch.ask("GET", f"/jobs/{job_id}")
    workers_lost = lost(switch)
    switch.plug("dataserver")

    assert (before["state"], workers_lost) == ("running", 0)
    assert before["frames"]["localised"] < 1200
    assert table_of(switch, job_id, eventually) == undisturbed


def test_a_network_that_loses_every_twentieth_packet_changes_nothing(
    switch: Switch, undisturbed: bytes, eventually: Eventually
) -> None:
    switch.lose_packets()

    job_id = begun(switch, eventually)

    assert table_of(switch, job_id, eventually) == undisturbed
    assert switch.lost_packets() > 0
