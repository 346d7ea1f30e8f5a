"""Tokens: every route of the OpenAPI document, with every role and without any; and the door for new machines."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from cluster.http import Gate
from cluster.scheduler.app import create_app
from cluster.trust import ROLES, token, verifiers

pytestmark = pytest.mark.anyio

SECRET = bytes(32)
STRANGE = ("Bearer c1.owner.AAAA", "Basic b3duZXI6", "Bearer ")
PUBLIC = {("get", "/healthz"), ("get", "/api/v1/identity"), ("post", "/api/v1/join")}
ALLOWED = {
    ("post", "/api/v1/jobs"): {"submitter"},
    ("post", "/api/v1/jobs/check"): {"submitter"},
    ("get", "/api/v1/jobs"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}"): {"viewer", "submitter"},
    ("delete", "/api/v1/jobs/{job_id}"): {"submitter"},
    ("post", "/api/v1/jobs/{job_id}/retry"): {"submitter"},
    ("get", "/api/v1/jobs/{job_id}/events"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/results.h5r"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/results.csv"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/results.{kind}"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/localisations"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/render.png"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/render.tif"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/histograms"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/drift"): {"viewer", "submitter"},
    ("get", "/api/v1/jobs/{job_id}/spec"): {"worker"},
    ("post", "/api/v1/preview"): {"submitter"},
    ("get", "/api/v1/fits"): {"viewer", "submitter"},
    ("get", "/api/v1/presets"): {"viewer", "submitter"},
    ("get", "/api/v1/profiles"): {"viewer", "submitter"},
    ("get", "/api/v1/calibrations/kinds"): {"viewer", "submitter"},
    ("post", "/api/v1/calibrations"): {"submitter"},
    ("get", "/api/v1/calibrations"): {"viewer", "submitter"},
    ("get", "/api/v1/calibrations/{calibration_id}"): {"viewer", "submitter"},
    ("delete", "/api/v1/calibrations/{calibration_id}"): {"submitter"},
    ("get", "/api/v1/calibrations/{calibration_id}/report.png"): {"viewer", "submitter"},
    ("get", "/api/v1/join"): set(),
    ("post", "/api/v1/join/{join_id}"): set(),
    ("post", "/api/v1/dataservers"): set(),
    ("post", "/api/v1/pages"): set(),
    ("get", "/api/v1/workers"): {"viewer", "submitter"},
    ("get", "/metrics"): {"viewer", "submitter"},
    ("post", "/api/v1/workers"): {"worker"},
    ("post", "/api/v1/workers/{worker_id}/tasks"): {"worker"},
    ("post", "/api/v1/workers/{worker_id}/keepalive"): {"worker"},
    ("post", "/api/v1/workers/{worker_id}/tasks/{job_id}/{task_id}/result"): {"worker"},
    ("post", "/api/v1/workers/{worker_id}/tasks/{job_id}/{task_id}/failure"): {"worker"},
    ("post", "/api/v1/workers/{worker_id}/drain"): set(),
    ("delete", "/api/v1/workers/{worker_id}/drain"): set(),
    ("delete", "/api/v1/workers/{worker_id}"): {"worker"},
    ("get", "/api/v1/log"): set(),
}


@pytest.fixture
def routes(service: Any) -> set[tuple[str, str]]:
    document = create_app(service, Gate(verifiers(SECRET))).openapi()
    found = {(method, path) for path, operations in document["paths"].items() for method in operations}
    service.state.journal.close()
    return found


def test_every_route_is_in_this_table(routes: set[tuple[str, str]]) -> None:
    assert routes == PUBLIC | ALLOWED.keys()


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED))
async def test_a_route_lets_its_roles_through_and_no_other(hands: Any, method: str, path: str) -> None:
    route = path.format(job_id="j", worker_id="w", task_id=0, join_id="x", calibration_id="b", kind="smlm")
    statuses = {}
    for role in ROLES:
        headers = {"authorization": f"Bearer {token(SECRET, role)}"}
        statuses[role] = (await hands.http.request(method, route, headers=headers)).status_code

    let_through = {role for role, status in statuses.items() if status not in {401, 403}}

    assert let_through == ALLOWED[method, path] | {"owner"}


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED))
async def test_a_route_is_closed_without_a_token_of_ours(hands: Any, method: str, path: str) -> None:
    route = path.format(job_id="j", worker_id="w", task_id=0, join_id="x", calibration_id="b", kind="smlm")
    hands.http.headers.pop("authorization")
    presented = [{}, *({"authorization": header} for header in STRANGE)]

    replies = [await hands.http.request(method, route, headers=headers) for headers in presented]

    assert {(reply.status_code, reply.json()["code"]) for reply in replies} == {(401, "unauthorised")}


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED.keys() | PUBLIC))
async def test_no_route_answers_to_another_hosts_name_nor_to_a_page_of_another_site(
    hands: Any, method: str, path: str
) -> None:
    route = path.format(job_id="j", worker_id="w", task_id=0, join_id="x", calibration_id="b", kind="smlm")

    elsewhere = await hands.http.request(method, route, headers={"host": "evil.example"})
    from_a_page = await hands.http.request(method, route, headers={"origin": "https://evil.example"})

    assert elsewhere.status_code == 421
    assert (from_a_page.status_code == 403) == (method != "get")


async def test_anyone_may_know_which_cluster_this_is(hands: Any) -> None:
    hands.http.headers.pop("authorization")

    identity = (await hands.http.get("/api/v1/identity")).json()

    assert (identity["role"], identity["cluster_id"], identity["name"]) == ("scheduler", "c1", "lab")
    assert (await hands.http.get("/healthz")).status_code == 200


async def test_a_data_server_is_listed_once_it_has_registered(hands: Any) -> None:
    info = {"id": "d1", "machine": "m", "host": "h", "port": 15440, "addresses": ["127.0.0.1"]}

    reply = await hands.http.post(
        "/api/v1/dataservers", json={"info": info, "protocol": 1, "version": "0.1.0"}
    )

    assert reply.json()["verifiers"] == verifiers(SECRET)
    listed = (await hands.http.get("/api/v1/identity")).json()["dataservers"]
    assert [server["id"] for server in listed] == ["d1"]


async def test_another_hosts_name_is_misdirected(hands: Any) -> None:
    reply = await hands.http.get("/api/v1/identity", headers={"host": "evil.example"})

    assert reply.status_code == 421


async def test_the_documentation_asks_nobody_else(hands: Any) -> None:
    page = (await hands.http.get("/docs")).text

    assert "/api/v1/jobs" in page
    assert "http://" not in page
    assert "https://" not in page
    assert (await hands.http.get("/openapi.json")).json()["info"]["title"] == "clusterofone scheduler"


# --- the door ---------------------------------------------------------------------------------------------------


async def ask(http: httpx.AsyncClient, secret: str = "s" * 32, host: str = "lab-pc-3") -> httpx.Response:
    machine = {"machine": "m3", "host": host, "cores": 8, "version": "0.1.0", "secret": secret}
    return await http.post("/api/v1/join", json=machine)


async def test_a_machine_waits_until_a_person_approves_and_then_gets_the_worker_token(hands: Any) -> None:
    first = await ask(hands.http)
    again = await ask(hands.http)
    (waiting,) = (await hands.http.get("/api/v1/join")).json()["waiting"]

    decided = await hands.http.post(f"/api/v1/join/{waiting['id']}", json={"approve": True})
    after = await ask(hands.http)

    assert (first.status_code, again.status_code, after.status_code) == (202, 202, 200)
    assert (waiting["host"], waiting["cores"], waiting["address"]) == ("lab-pc-3", 8, "127.0.0.1")
    assert decided.status_code == 204
    assert after.json()["token"] == token(SECRET, "worker")
    assert (await hands.http.get("/api/v1/join")).json()["waiting"] == []


async def test_a_refused_machine_gets_no_token(hands: Any) -> None:
    await ask(hands.http)
    (waiting,) = (await hands.http.get("/api/v1/join")).json()["waiting"]

    await hands.http.post(f"/api/v1/join/{waiting['id']}", json={"approve": False})
    after = await ask(hands.http)

    assert (after.status_code, after.json()["state"], after.json()["token"]) == (403, "refused", None)


async def test_another_secret_is_another_machine(hands: Any) -> None:
    await ask(hands.http)
    (waiting,) = (await hands.http.get("/api/v1/join")).json()["waiting"]
    await hands.http.post(f"/api/v1/join/{waiting['id']}", json={"approve": True})

    assert (await ask(hands.http, secret="t" * 32)).status_code == 202


async def test_a_machine_that_was_let_in_need_not_ask_again_after_a_restart(
    make_service: Any, connect: Any
) -> None:
    async with connect(make_service()) as hands:
        await ask(hands.http)
        (waiting,) = (await hands.http.get("/api/v1/join")).json()["waiting"]
        await hands.http.post(f"/api/v1/join/{waiting['id']}", json={"approve": True})

    async with connect(make_service()) as hands:
        assert (await ask(hands.http)).status_code == 200


async def test_an_open_cluster_lets_a_machine_in_at_once(make_service: Any, connect: Any) -> None:
    async with connect(make_service(join="open")) as hands:
        assert (await ask(hands.http)).status_code == 200


async def test_a_cluster_of_tokens_lets_nobody_ask(make_service: Any, connect: Any) -> None:
    async with connect(make_service(join="token")) as hands:
        reply = await ask(hands.http)

    assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("host", ["pc\x1b[2Jmy own laptop", "pc\nApprove", "pc\u202exe"])
async def test_a_machine_cannot_write_into_the_terminal_where_it_is_asked_about(
    hands: Any, host: str
) -> None:
    assert (await ask(hands.http, host=host)).status_code == 400
    assert (await hands.http.get("/api/v1/join")).json()["waiting"] == []


async def test_only_so_many_machines_may_wait(hands: Any) -> None:
    for number in range(100):
        await ask(hands.http, secret=f"{number:032}")

    reply = await ask(hands.http, secret="x" * 32)

    assert (reply.status_code, reply.json()["code"]) == (429, "too_many_requests")


async def test_a_decision_about_nobody_is_not_found(hands: Any) -> None:
    assert (await hands.http.post("/api/v1/join/x", json={"approve": True})).status_code == 404
