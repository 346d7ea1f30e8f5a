"""Two machines on one network, made of network namespaces: found by mDNS alone, approved once, joined."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CAN_MAKE_NAMESPACES = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.netns,
    pytest.mark.skipif(not CAN_MAKE_NAMESPACES, reason="needs Linux, root and iproute2"),
]

Eventually = Callable[..., Any]


class Host:
    """A machine of its own: a network namespace, a home, a name."""

    def __init__(self, namespace: str, home: Path, cache: Path) -> None:
        self.namespace = namespace
        self.home = home
        self.cache = cache
        self.started: list[subprocess.Popen[bytes]] = []
        (home / "data").mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "CLUSTEROFONE_HOME": str(self.home),
            "CLUSTEROFONE_CACHE": str(self.cache),
            "PYMEDATADIR": str(self.home / "data"),
        }
        return {**os.environ, **own, "COLUMNS": "200", "PYTHONUTF8": "1"}

    def command(self, *arguments: object) -> list[str]:
        return [
            "ip",
            "netns",
            "exec",
            self.namespace,
            sys.executable,
            "-m",
            "clusterofone",
            *map(str, arguments),
        ]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            check=False,
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        with (self.home / f"{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(*arguments),
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        return (self.home / f"{self.started.index(process)}.log").read_text(encoding="utf-8")

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(20)

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers that the cluster of this host sees alive."""
        said = self.run("token", "--role", "viewer")
        url = next(iter(self.home.glob("state/clusters/*/runtime.json")))
        where = json.loads(url.read_text(encoding="utf-8"))["url"]
        code = (
            "import httpx, sys; print(httpx.get(sys.argv[1] + '/api/v1/workers', trust_env=False,"
            " headers={'authorization': 'Bearer ' + sys.argv[2]}).text)"
        )
        asked = [
            "ip",
            "netns",
            "exec",
            self.namespace,
            sys.executable,
            "-c",
            code,
            where,
            said.stdout.strip(),
        ]
        out = subprocess.run(asked, check=True, capture_output=True, text=True)
        return [worker for worker in json.loads(out.stdout) if worker["state"] != "lost"]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path, kernel_cache: Path) -> Iterator[tuple[Host, Host]]:
    names = [f"c1-{os.getpid()}-{side}" for side in "ab"]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "c1a", "netns", names[0], "type", "veth", "peer", "name", "c1b", "netns", names[1])
        for name, link, number in zip(names, ("c1a", "c1b"), (1, 2), strict=True):
            ip("-n", name, "addr", "add", f"10.99.7.{number}/24", "dev", link)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "route", "add", "224.0.0.0/4", "dev", link)
            made.append(Host(name, tmp_path / name, kernel_cache))
        yield made[0], made[1]
    finally:
        for host in made:
            for process in host.started:
                if process.poll() is None:
                    host.stop(process)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def start_cluster(host: Host, eventually: Eventually, *arguments: object) -> subprocess.Popen[bytes]:
    process = host.start("--lan", "-n", 0, "--no-browser", "--name", "lab", *arguments)
    eventually(lambda: re.search(r"scheduler +http", host.said(process)), "the cluster")
    return process


def test_a_worker_is_found_by_mdns_approved_once_and_then_joins_by_itself(
    hosts: tuple[Host, Host], eventually: Eventually
) -> None:
    workstation, lab_pc = hosts
    cluster = start_cluster(workstation, eventually)
    worker = lab_pc.start("worker", "-n", 1)

    eventually(lambda: "Approve" in workstation.said(cluster), "the question")
    assert workstation.workers() == []
    approved = workstation.run("approve")
    assert approved.returncode == 0, approved.stderr
    eventually(lambda: len(workstation.workers()) == 1, "the worker")

    lab_pc.stop(worker)
    eventually(lambda: workstation.workers() == [], "the goodbye")
    lab_pc.start("worker", "-n", 1)
    eventually(lambda: len(workstation.workers()) == 1, "the worker again, without a question")
    assert workstation.said(cluster).count("Approve") == 1


def test_an_open_cluster_lets_a_worker_in_at_once(hosts: tuple[Host, Host], eventually: Eventually) -> None:
    workstation, lab_pc = hosts
    start_cluster(workstation, eventually, "--join", "open")

    lab_pc.start("worker", "-n", 1)

    eventually(lambda: len(workstation.workers()) == 1, "the worker")


def test_a_job_runs_on_the_other_machine(hosts: tuple[Host, Host], eventually: Eventually) -> None:
    workstation, lab_pc = hosts
    start_cluster(workstation, eventually, "--join", "open")
    series = workstation.home / "data" / "cells.tif"
    assert workstation.run("simulate", series, "--frames", 120, "--size", 64).returncode == 0
    lab_pc.start("worker", "-n", 1)

    out = workstation.run("localise", series, "--json")

    assert out.returncode == 0, out.stderr
    job = json.loads(out.stdout.splitlines()[-1])
    assert job["frames"] == {"total": 120, "localised": 120, "skipped": 0, "failed": 0}
    assert Path(job["output"]).exists()


def test_without_lan_nothing_is_announced_and_nothing_listens_outside(
    hosts: tuple[Host, Host], eventually: Eventually
) -> None:
    workstation, lab_pc = hosts
    process = workstation.start("-n", 0, "--no-browser")
    eventually(lambda: re.search(r"scheduler +http", workstation.said(process)), "the cluster")

    listening = subprocess.run(
        ["ip", "netns", "exec", workstation.namespace, "ss", "-ltnH"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert {line.split()[3].rsplit(":", 1)[0] for line in listening.splitlines()} == {"127.0.0.1"}
    seen = lab_pc.run("doctor", "--json", "--seconds", "3")
    network = next(f for f in json.loads(seen.stdout.splitlines()[-1])["findings"] if f["what"] == "mDNS")
    assert network["verdict"] == "note"


def test_a_doctor_on_another_machine_sees_the_cluster_and_shows_it_no_token_that_was_not_given_for_it(
    hosts: tuple[Host, Host], eventually: Eventually
) -> None:
    workstation, lab_pc = hosts
    start_cluster(workstation, eventually)
    token = workstation.run("token", "--name", "lab").stdout.strip()

    heard = doctor(lab_pc, "--token", token)
    named = doctor(
        lab_pc, "--token", token, "--scheduler", heard["mDNS"]["detail"].split(" at ")[1].split()[0]
    )

    for what in ("mDNS", "scheduler", "versions of both", "clock", "data servers"):
        assert heard[what]["verdict"] == "ok", heard[what]
    assert heard["token"]["verdict"] == "note"
    assert "was not sent" in heard["token"]["detail"]
    assert "of the role submitter" in named["token"]["detail"]


def doctor(host: Host, *arguments: object) -> dict[str, dict[str, str]]:
    out = host.run("doctor", "--json", "--seconds", 3, *arguments)
    return {each["what"]: each for each in json.loads(out.stdout.splitlines()[-1])["findings"]}
