"""A result opened on the screen of the page's machine: in the one program, and for the owner who sits there alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from cluster.errors import NotFound
from cluster.http import Gate, install
from cluster.web.desktop import Desktop
from cluster.web.desktop_routes import router
from cluster.web.doorway import Doorway, cookie_name, install_login
from cluster.web.visitors import Visitor, Visitors, role_said

pytestmark = pytest.mark.anyio

COOKIE = cookie_name(15480)
BASE = "http://127.0.0.1:15480"
NEAR = {"origin": BASE}
RECORDER = """#!{python}
import json, os, sys
from pathlib import Path
told = Path(__file__).with_name("told.json")
part = told.with_suffix(".part")
part.write_text(json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ), "session": os.getsid(0)}}))
part.rename(told)
raise SystemExit({status})
"""


class PlayedCluster:
    """Its jobs, by their results."""

    def __init__(self) -> None:
        self.outputs: dict[str, str | None] = {}

    def jobs(self) -> list[Any]:
        return []

    def job(self, job_id: str) -> Any:
        if job_id not in self.outputs:
            raise NotFound(f"there is no job {job_id}")
        return type("Job", (), {"output": self.outputs[job_id], "state": "running"})()

    def close(self) -> None:
        pass


def installed(folder: Path, name: str = "PYMEVis", *, status: int = 0) -> Path:
    """A program on the path that notes what it was started with."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(RECORDER.format(python=sys.executable, status=status), encoding="utf-8")
    program.chmod(0o755)
    return program


def surroundings(folder: Path) -> dict[str, str]:
    return {"PATH": str(folder), "DISPLAY": ":0", "CLUSTEROFONE_TOKEN": "c1.owner.secret", "HOME": "/home/o"}


@pytest.fixture
def cluster(tmp_path: Path) -> PlayedCluster:
    played = PlayedCluster()
    result = tmp_path / "cells; touch x" / "-series.h5r"
    result.parent.mkdir()
    result.write_bytes(b"rows")
    played.outputs = {"done": str(result), "running": None, "elsewhere": "/on/another/machine.h5r"}
    played.outputs["no result"] = str(installed(tmp_path / "bin").parent / "PYMEVis")
    return played


@pytest.fixture
def browse(cluster: PlayedCluster, tmp_path: Path) -> Callable[..., httpx.AsyncClient]:
    """A browser at an address of its own, before the page of this machine."""
    if sys.platform == "win32":
        pytest.skip("a script is no program there")

    def browser(client: str = "127.0.0.1", base: str = BASE) -> httpx.AsyncClient:
        desktop = Desktop.found(surroundings(tmp_path / "bin"))
        assert desktop is not None

        def admit(token: str | None) -> Visitor:
            return Visitor(cluster, role_said(token), lambda: 0.0, desktop=desktop)  # type: ignore[arg-type]

        visitors = Visitors(admit)
        app = FastAPI()
        app.add_middleware(Doorway, visitors=visitors, cookie=COOKIE)
        install(app, Gate({}, hosts=frozenset({"lab-pc"})), role="web")
        install_login(app, visitors, COOKIE)
        app.include_router(router)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app, client=(client, 5000)), base_url=base)

    return browser


async def logged_in(browser: httpx.AsyncClient, role: str = "owner") -> httpx.AsyncClient:
    base = str(browser.base_url).rstrip("/")
    reply = await browser.post("/login", json={"token": f"c1.{role}.x"}, headers={"origin": base})
    assert reply.status_code == 200
    return browser


async def test_the_program_is_started_with_the_jobs_result_and_lives_on_its_own(
    browse: Callable[..., httpx.AsyncClient], cluster: PlayedCluster, tmp_path: Path
) -> None:
    browser = await logged_in(browse())

    reply = await browser.post("/data/jobs/done/open", headers=NEAR)

    assert reply.status_code == 204
    note = tmp_path / "bin" / "told.json"
    assert note.exists()
    told = json.loads(note.read_text(encoding="utf-8"))
    assert told["arguments"] == [cluster.outputs["done"]]
    assert told["session"] != os.getsid(0)
    assert told["environment"]["DISPLAY"] == ":0"
    assert "CLUSTEROFONE_TOKEN" not in told["environment"]


@pytest.mark.parametrize(
    ("client", "base", "role", "headers"),
    [
        pytest.param("192.168.1.7", BASE, "owner", NEAR, id="another machine"),
        pytest.param("127.0.0.1", BASE, "viewer", NEAR, id="a viewer"),
        pytest.param("127.0.0.1", BASE, "submitter", NEAR, id="a submitter"),
        pytest.param("127.0.0.1", BASE, "owner", {}, id="no browser"),
        pytest.param("127.0.0.1", BASE, "owner", {"origin": "http://evil.example"}, id="another site"),
        pytest.param("127.0.0.1", BASE, "owner", {"origin": "null"}, id="a page without a site"),
        pytest.param("127.0.0.1", BASE, "owner", {**NEAR, "sec-fetch-site": "cross-site"}, id="cross-site"),
        pytest.param("127.0.0.1", BASE, "owner", {**NEAR, "x-forwarded-for": "10.0.0.9"}, id="a proxy"),
        pytest.param(
            "127.0.0.1", "http://lab-pc:15480", "owner", {"origin": "http://lab-pc:15480"}, id="by a name of the network"
        ),
    ],
)  # fmt: skip
async def test_for_nobody_else_is_anything_started(
    browse: Callable[..., httpx.AsyncClient],
    tmp_path: Path,
    client: str,
    base: str,
    role: str,
    headers: dict[str, str],
) -> None:
    browser = await logged_in(browse(client, base), role)

    reply = await browser.post("/data/jobs/done/open", headers=headers)

    assert reply.status_code == 403
    assert not (tmp_path / "bin" / "told.json").exists()


async def test_without_a_session_and_by_a_mere_link_nothing_is_started(
    browse: Callable[..., httpx.AsyncClient], tmp_path: Path
) -> None:
    browser = browse()

    assert (await browser.post("/data/jobs/done/open", headers=NEAR)).status_code == 401
    await logged_in(browser)
    assert (await browser.get("/data/jobs/done/open", headers=NEAR)).status_code == 405
    assert not (tmp_path / "bin" / "told.json").exists()


@pytest.mark.parametrize(
    ("job", "status"), [("running", 409), ("elsewhere", 409), ("no result", 409), ("none", 404)]
)
async def test_only_a_result_file_that_is_here_is_opened(
    browse: Callable[..., httpx.AsyncClient], tmp_path: Path, job: str, status: int
) -> None:
    browser = await logged_in(browse())

    reply = await browser.post(f"/data/jobs/{job}/open", headers=NEAR)

    assert reply.status_code == status
    assert not (tmp_path / "bin" / "told.json").exists()


async def test_a_program_that_ends_at_once_is_said_to_have_failed(
    browse: Callable[..., httpx.AsyncClient], tmp_path: Path
) -> None:
    browser = await logged_in(browse())
    installed(tmp_path / "bin", status=3)

    reply = await browser.post("/data/jobs/done/open", headers=NEAR)

    assert reply.status_code == 503
    assert "ended at once, with status 3" in reply.json()["detail"]


def test_there_is_a_desktop_only_where_the_program_and_a_screen_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    program = installed(tmp_path / "bin", "VisGUI")
    program.rename(program.with_suffix(".exe")) if sys.platform == "win32" else None
    with_program = surroundings(tmp_path / "bin")

    assert Desktop.found(with_program) is not None
    assert Desktop.found(surroundings(bare)) is None
    if sys.platform.startswith("linux"):
        assert Desktop.found({name: with_program[name] for name in ("PATH",)}) is None
    monkeypatch.chdir(tmp_path / "bin")
    assert Desktop.found(surroundings(Path())) is None, "a program in the current folder is not meant"


def test_pyme_beside_us_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "PYME"
    (package / "LMVis").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('this takes seconds')", encoding="utf-8")
    (package / "LMVis" / "VisGUI.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert Desktop.found(surroundings(tmp_path / "empty")) is not None
