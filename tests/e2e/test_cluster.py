"""A cluster that runs: started, submitted to, joined, stopped, killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.e2e

Eventually = Callable[..., Any]


class Running:
    """A cluster started by `clusterofone`, and a way to speak to it as curl would."""

    def __init__(self, shell: Any, process: Any, eventually: Eventually) -> None:
        self.process = process
        said = eventually(lambda: re.search(r"scheduler +(http://\S+)", shell.said(process)), "a scheduler")
        self.url = said.group(1)
        token = shell.run("token", "--role", "owner").stdout.strip()
        self.http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=30
        )

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/api/v1/jobs/{job_id}").json())

    def ended(self, job_id: str) -> dict[str, Any] | None:
        job = self.job(job_id)
        return job if job["state"] in {"done", "done_with_errors", "failed", "cancelled"} else None


ARGUMENTS = ("-n", 1, "--no-browser", "--task-frames", 20)


@pytest.fixture(scope="module")
def cluster(shared_shell: Any, shared_series: Path, eventually: Eventually) -> Iterator[Running]:
    """A cluster that the tests of this file share, and leave running."""
    running = Running(shared_shell, shared_shell.start(*ARGUMENTS), eventually)
    yield running
    running.http.close()


@pytest.fixture
def own_cluster(shell: Any, eventually: Eventually) -> Iterator[Running]:
    """A cluster that a test may do anything to."""
    running = Running(shell, shell.start(*ARGUMENTS), eventually)
    yield running
    running.http.close()


def test_a_job_by_post_ends_with_a_result_beside_the_series(
    cluster: Running, shared_series: Path, eventually: Eventually
) -> None:
    reply = cluster.http.post("/api/v1/jobs", json={"series": "cells/series.tif"})
    assert reply.status_code == 201
    job = eventually(lambda: cluster.ended(reply.json()["id"]), "the end of the job", 120)

    assert job["state"] == "done"
    assert reply.headers["location"].endswith(job["id"])
    assert Path(job["output"]).parent == shared_series.parent / "analysis"
    table = cluster.http.get(f"/api/v1/jobs/{job['id']}/results.h5r")
    assert table.content == Path(job["output"]).read_bytes()


def test_commands_find_the_cluster_by_themselves(
    shared_shell: Any, cluster: Running, shared_series: Path
) -> None:
    submitted = shared_shell.json("submit", shared_series)
    watched = shared_shell.run("watch", submitted["id"], "--json")

    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout.splitlines()[-1])["state"] == "done"
    localised = shared_shell.json("localise", shared_series, "--set", "threshold=1.5")
    newest = [job["id"] for job in shared_shell.json("jobs")["jobs"]][:2]
    assert newest == [localised["id"], submitted["id"]]


def test_test_shows_detections_without_a_job(
    shared_shell: Any, cluster: Running, shared_series: Path
) -> None:
    jobs = shared_shell.json("jobs")

    preview = shared_shell.json("test", shared_series, "--frames", 4, "-o", shared_shell.cwd / "test.png")

    assert len(preview["frames"]) == 4
    assert sum(len(frame["rows"]) for frame in preview["frames"]) > 4
    assert (shared_shell.cwd / "test.png").read_bytes()[1:4] == b"PNG"
    assert shared_shell.json("jobs") == jobs


def test_a_worker_started_elsewhere_joins_and_says_goodbye(
    shared_shell: Any, cluster: Running, eventually: Eventually
) -> None:
    elsewhere = shared_shell.start("worker", "-n", 1)

    workers = eventually(
        lambda: (found := cluster.http.get("/api/v1/workers").json()) and len(found) == 2 and found,
        "a second worker",
    )

    assert {worker["state"] for worker in workers} <= {"idle", "working"}
    elsewhere.terminate()
    assert elsewhere.wait(30) == 0
    eventually(lambda: len(cluster.http.get("/api/v1/workers").json()) == 1, "the goodbye", 20)


def test_a_worker_is_drained_and_used_again_from_the_command_line(
    shared_shell: Any, cluster: Running, shared_series: Path
) -> None:
    (worker,) = cluster.http.get("/api/v1/workers").json()

    drained = shared_shell.json("drain", worker["host"])
    waits = shared_shell.run("submit", shared_series, "--set", "threshold=1.5")
    nobodys = shared_shell.run("drain", "--undo")
    used = shared_shell.json("drain", worker["id"], "--undo")
    unknown = shared_shell.run("drain", "nobody-here")

    assert [(one["id"], one["state"]) for one in drained["workers"]] == [(worker["id"], "draining")]
    assert [one["id"] for one in used["workers"]] == [worker["id"]]
    assert used["workers"][0]["state"] in {"idle", "working"}
    assert "because they are draining" in waits.stderr
    assert "clusterofone drain NAME --undo" in nobodys.stderr
    assert "nobody-here" in unknown.stderr
    assert unknown.returncode == nobodys.returncode == 2
    assert shared_shell.json("localise", shared_series, "--set", "threshold=1.4")["state"] == "done"


def test_a_second_start_shows_the_running_cluster(shared_shell: Any, cluster: Running) -> None:
    again = shared_shell.run("--no-browser")

    assert again.returncode == 0
    assert cluster.url in again.stderr
    assert "already running" in again.stderr


def test_a_second_start_on_another_folder_is_told_what_is_served(
    shared_shell: Any, cluster: Running, tmp_path: Path, shared_series: Path
) -> None:
    elsewhere = shared_shell.run("--no-browser", "--root", tmp_path)
    nowhere = shared_shell.run("--no-browser", "--root", tmp_path / "nowhere")
    below = shared_shell.run("--no-browser", "--root", shared_series.parent)

    assert (elsewhere.returncode, nowhere.returncode, below.returncode) == (2, 2, 0)
    assert f"does not serve {tmp_path}, but" in " ".join(elsewhere.stderr.split())
    assert "there is no such folder" in nowhere.stderr


def test_cancel_keeps_what_is_finished(
    shared_shell: Any, cluster: Running, shared_series: Path, eventually: Eventually
) -> None:
    big = shared_series.with_name("big.tif")
    assert shared_shell.run("simulate", big, "--frames", 3000, "--size", 128).returncode == 0
    job = shared_shell.json("submit", big)
    eventually(lambda: cluster.job(job["id"])["frames"]["localised"] >= 40, "some finished frames")

    cluster.http.delete(f"/api/v1/jobs/{job['id']}")  # before the command, which takes a second to start
    said = shared_shell.run("cancel", job["id"])
    ended = eventually(lambda: cluster.ended(job["id"]), "the end of the job")

    assert said.returncode == 0, said.stderr
    assert ended["state"] == "cancelled"
    assert Path(ended["output"]).name == "big_partial.h5r"


def test_without_a_token_nothing_is_served(cluster: Running) -> None:
    for path in ("/api/v1/jobs", "/api/v1/workers", "/api/v1/fits"):
        assert httpx.get(cluster.url + path, trust_env=False).status_code == 401
    assert httpx.get(cluster.url + "/healthz", trust_env=False).status_code == 200
    assert cluster.http.get("/healthz", headers={"host": "evil.example"}).status_code == 421


def test_the_status_page_is_served_from_this_machine_alone(cluster: Running) -> None:
    page = httpx.get(cluster.url, trust_env=False)

    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_the_page_is_where_the_cluster_says_and_shows_nothing_without_its_link(
    shared_shell: Any, cluster: Running, eventually: Eventually
) -> None:
    said = eventually(
        lambda: re.search(r"page +(http\S+)/login#token=(\S+)", shared_shell.said(cluster.process)),
        "the page",
    )
    url, token = said.groups()
    eventually(lambda: cluster.http.get("/api/v1/identity").json()["web"] == url, "the page's address")

    with httpx.Client(base_url=url, trust_env=False, headers={"origin": url}) as browser:
        for path in ("/jobs", "/page/page.css", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"):
            assert browser.get(path).status_code == 401
        assert browser.post("/login", json={"token": f"{token}x"}).status_code == 401
        assert browser.post("/login", json={"token": token}).status_code == 200
        assert "Jobs · clusterofone" in browser.get("/jobs").text


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a POSIX signal here")
def test_ctrl_c_stops_everything_within_ten_seconds(own_cluster: Running) -> None:
    family = psutil.Process(own_cluster.process.pid).children(recursive=True)

    own_cluster.process.send_signal(signal.SIGINT)

    own_cluster.process.wait(10)
    assert psutil.wait_procs(family, timeout=1)[1] == []


def test_no_orphan_is_left_when_the_parent_is_killed(own_cluster: Running) -> None:
    family = psutil.Process(own_cluster.process.pid).children(recursive=True)

    own_cluster.process.kill()
    own_cluster.process.wait(10)

    assert psutil.wait_procs(family, timeout=15)[1] == []


def test_a_worker_that_dies_is_started_again(own_cluster: Running, eventually: Eventually) -> None:
    def workers() -> list[psutil.Process]:
        found = psutil.Process(own_cluster.process.pid).children()
        alive = [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
        return [child for child in alive if "worker" in child.cmdline()]

    (first,) = eventually(workers, "a worker")
    first.kill()

    second = eventually(lambda: [w for w in workers() if w.pid != first.pid], "another worker")
    assert len(second) == 1


@pytest.mark.parametrize("victim", ["scheduler", "dataserver"])
def test_a_job_goes_on_when_a_role_is_killed(
    shell: Any, own_cluster: Running, series: Path, eventually: Eventually, victim: str
) -> None:
    big = series.with_name("big.tif")
    assert shell.run("simulate", big, "--frames", 2000, "--size", 128).returncode == 0
    job = shell.json("submit", big)
    eventually(lambda: own_cluster.job(job["id"])["frames"]["localised"] >= 40, "some finished frames")

    for child in psutil.Process(own_cluster.process.pid).children():
        if victim in child.cmdline():
            child.kill()

    def ended_by_now() -> dict[str, Any] | None:
        try:
            return own_cluster.ended(job["id"])
        except httpx.TransportError:  # it is starting again
            return None

    ended = eventually(ended_by_now, "the end of the job")
    assert ended["state"] == "done"
    assert ended["frames"] == {"total": 2000, "localised": 2000, "skipped": 0, "failed": 0}


def test_jobs_survive_a_restart_of_the_cluster(
    shell: Any, own_cluster: Running, series: Path, eventually: Eventually
) -> None:
    big = series.with_name("big.tif")
    assert shell.run("simulate", big, "--frames", 2000, "--size", 128).returncode == 0
    job = shell.json("submit", big)
    eventually(lambda: own_cluster.job(job["id"])["frames"]["localised"] >= 40, "some finished frames")
    own_cluster.process.kill()
    own_cluster.process.wait(10)

    again = Running(shell, shell.start("-n", 2, "--no-browser", "--task-frames", 20), eventually)
    ended = eventually(lambda: again.ended(job["id"]), "the end of the job", 120)
    again.http.close()

    assert ended["state"] == "done"
    assert ended["frames"] == {"total": 2000, "localised": 2000, "skipped": 0, "failed": 0}


def test_files_whose_names_hold_what_nobody_sees_become_jobs_under_what_is_seen(
    shared_shell: Any, cluster: Running, shared_series: Path
) -> None:
    folder = shared_series.parent.parent / "both ways"
    folder.mkdir()
    for name in ("left\u200fright", "other"):
        for part in (shared_series, shared_series.with_suffix(".json")):
            shutil.copy(part, folder / f"{name}{part.suffix}")

    done = shared_shell.json("localise", folder / "left\u200fright.tif")
    made = shared_shell.json("auto", folder, "--once", "--rest-s", 0)

    assert (done["state"], done["name"]) == ("done", "leftright.tif")
    assert Path(done["output"]) == folder / "analysis" / "leftright.h5r"
    assert sorted((job["state"], job["name"]) for job in made["jobs"]) == [
        ("done", "leftright.tif"),
        ("done", "other.tif"),
    ]


def test_a_name_that_no_job_can_have_is_told_in_one_line(
    shared_shell: Any, cluster: Running, shared_series: Path
) -> None:
    out = shared_shell.run("submit", shared_series, "--name", "a\x1b[31mred")

    said = "error: --name: a name cannot hold the character U+001B, which nobody sees; leave it out\n"
    assert (out.returncode, out.stderr) == (2, said)


def test_auto_makes_one_job_of_each_series_also_when_it_is_started_again(
    shared_shell: Any, cluster: Running, shared_series: Path, eventually: Callable[..., Any]
) -> None:
    folder = shared_series.parent.parent / "new today"
    folder.mkdir()
    for part in (shared_series, shared_series.with_suffix(".json")):
        shutil.copy(part, folder)

    first = shared_shell.json("auto", folder, "--once", "--rest-s", 0)
    again = shared_shell.json("auto", folder, "--once", "--rest-s", 0)
    watching = shared_shell.start("auto", folder, "--rest-s", 0)
    for part in (shared_series, shared_series.with_suffix(".json")):
        shutil.copy(part, folder / part.name.replace("series", "later"))
    eventually(
        lambda: "later.tif: done, 300 frames localised" in shared_shell.said(watching), "word of its end"
    )

    assert [(job["state"], job["frames"]["localised"]) for job in first["jobs"]] == [("done", 300)]
    assert again["jobs"] == []
