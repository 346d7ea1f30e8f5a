"""A cluster that encrypts: its own machine, a data server and a worker elsewhere, and the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.client import Client
from cluster.errors import NotFound, Unavailable
from cluster.pinning import bare, only, pin_in

pytestmark = pytest.mark.e2e


@pytest.fixture
def elsewhere(shell: Any, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Other machines: homes of their own, and so certificates of their own."""
    machines: list[Any] = []

    def machine(name: str) -> Any:
        home = tmp_path / name
        (home / "data").mkdir(parents=True)
        machines.append(type(shell)(home=home, cache=shell.cache, cwd=home))
        return machines[-1]

    yield machine
    for each in machines:
        each.stop_all()


def test_frames_of_one_machine_are_fitted_by_another_that_was_let_in(
    shell: Any, series: Path, elsewhere: Callable[[str], Any], eventually: Callable[..., Any]
) -> None:
    cluster = shell.start("--tls", "-n", 0, "--no-browser")
    said = eventually(lambda: re.search(r"scheduler +(\S+)", shell.said(cluster)), "a scheduler")
    url = said.group(1)
    assert url.startswith("https://")
    owner = shell.run("token", "--role", "owner").stdout.strip()
    nas = elsewhere("nas")
    for file in series.parent.glob("series.*"):
        shutil.move(file, nas.home / "data" / file.name)
    nas.start("dataserver", "--scheduler", url, "--token", owner)
    lab = elsewhere("lab-pc")
    lab.start("worker", "-n", 1, "--scheduler", url)
    eventually(lambda: "may join" in shell.run("approve").stdout, "a machine that asks to join")
    with Client(url, owner) as client:
        job = eventually(lambda: _submitted(client, series.name), "the data server of the other machine")
        last = list(client.watch(job))[-1]
        assert (last.state, last.frames.failed) == ("done", 0)
        assert len(client.localisations(job)) > 100

    shown = {server["certificate"] for server in _identity(url)["dataservers"]}
    assert len(shown) == 2
    assert pin_in(owner) in shown
    refused = lab.run("jobs", "--scheduler", url, "--token", bare(owner))
    assert refused.returncode != 0
    assert "use the token that clusterofone token prints there" in refused.stderr
    page = eventually(lambda: re.search(r"page +(https://\S+)/login#", shell.said(cluster)), "a page").group(
        1
    )
    with httpx.Client(verify=only(pin_in(owner)), trust_env=False, base_url=page) as browser:
        welcome = browser.post("/login", json={"token": owner})
        assert "Secure" in welcome.headers["set-cookie"]
        assert browser.get("/").status_code == 200


def _submitted(client: Client, series: str) -> str | None:
    try:
        return client.submit(series).id
    except (NotFound, Unavailable):
        return None


def _identity(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/api/v1/identity", verify=only(None), trust_env=False).json()
