"""`/metrics` of a scheduler: what Prometheus reads is what happened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.dataserver.metrics import DataServerMetrics

pytestmark = pytest.mark.anyio

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def figures(hands: Any) -> Figures:
    reply = await hands.http.get("/metrics")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def of(found: Figures, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


async def test_frames_tasks_and_jobs_are_those_of_the_job(hands: Any) -> None:
    job = await hands.submitted()
    worker = await hands.register()
    first, second = await hands.lease(worker, 2)
    before = await figures(hands)
    await hands.commit(worker, first)
    await hands.fail(worker, second)
    between = await figures(hands)
    await hands.work_off(worker)
    await hands.ended(job)
    after = await figures(hands)

    assert of(before, "clusterofone_tasks", state="leased") == of(before, "clusterofone_leases") == 2
    assert of(before, "clusterofone_jobs", state="running") == 1
    assert of(before, "clusterofone_frames", state="remaining") == 100
    assert of(before, "clusterofone_workers", state="working") == 1
    assert of(between, "clusterofone_tasks", state="committed") == 1
    assert of(between, "clusterofone_tasks", state="failed") == 1
    assert of(between, "clusterofone_task_failures_total", kind="invalid") == 1
    states = ("localised", "skipped", "failed", "remaining")
    assert [of(after, "clusterofone_frames", state=state) for state in states] == [70, 0, 30, 0]
    assert of(after, "clusterofone_jobs", state="done_with_errors") == 1
    assert of(after, "clusterofone_committed_frames_total") == 70
    assert of(after, "clusterofone_committed_localisations_total") == 140
    assert of(after, "clusterofone_localisations") == 140
    assert of(after, "clusterofone_commit_duration_seconds_count") == 3


async def test_requests_are_counted_by_route_and_status_never_by_name(hands: Any) -> None:
    await hands.http.get("/api/v1/jobs/one")
    await hands.http.get("/api/v1/jobs/another")
    await hands.http.get("/nowhere/at/all")
    await hands.http.get("/api/v1/jobs", headers={"host": "evil.example"})
    await hands.http.request("BREW", "/api/v1/jobs")

    found = await figures(hands)

    def count(method: str, route: str, status: int) -> float:
        labels = {"method": method, "route": route, "status": str(status)}
        return of(found, "clusterofone_http_requests_total", **labels)

    assert count("GET", "/api/v1/jobs/{job_id}", 404) == 2
    assert count("GET", "none", 404) == 1
    assert count("GET", "none", 421) == 1
    assert any(dict(labels).get("method") == "other" for _, labels in found)
    assert not any("another" in str(labels) or "BREW" in str(labels) for _, labels in found)


async def test_a_retry_and_a_result_kept_as_a_file_show(
    hands: Any, result_body: Any, clock: Any, until: Any
) -> None:
    await hands.submitted()
    worker = await hands.register()
    (lease,) = await hands.lease(worker)
    await hands.fail(worker, lease, "error")
    (again,) = await hands.lease(worker)
    body = result_body(again, rows_per_frame=40)
    await hands.commit(worker, again, body)

    found = await figures(hands)

    assert of(found, "clusterofone_retries_total") == 1
    assert (
        of(found, "clusterofone_result_blob_bytes")
        == of(found, "clusterofone_committed_bytes_total")
        == len(body)
    )
    assert of(found, "clusterofone_journal_bytes") > 0
    assert of(found, "process_resident_memory_bytes") > 1e6


async def test_what_was_kept_is_counted_again_after_a_restart(
    make_service: Any, connect: Any, result_body: Any
) -> None:
    async with connect(make_service()) as hands:
        await hands.submitted()
        worker = await hands.register()
        (lease,) = await hands.lease(worker)
        body = result_body(lease, rows_per_frame=40)
        await hands.commit(worker, lease, body)

    async with connect(make_service()) as hands:
        found = await figures(hands)

    assert of(found, "clusterofone_result_blob_bytes") == len(body)
    assert of(found, "clusterofone_frames", state="localised") == 30
    assert of(found, "clusterofone_committed_frames_total") == 0


async def test_two_servers_in_one_process_do_not_count_into_each_other(
    make_service: Any, connect: Any, tmp_path: Any
) -> None:
    async with connect(make_service()) as one:
        await one.submitted()
        here = await figures(one)
    async with connect(make_service()) as other:
        there = await figures(other)

    key = {"method": "POST", "route": "/api/v1/jobs", "status": "201"}
    assert of(here, "clusterofone_http_requests_total", **key) == 1
    assert ("clusterofone_http_requests_total", tuple(sorted(key.items()))) not in there


async def test_each_task_leaves_one_line_in_the_log(hands: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="cluster.scheduler.workers")
    job = await hands.submitted()
    worker = await hands.register()
    await hands.work_off(worker)
    await hands.ended(job)

    lines = [record.getMessage() for record in caplog.records if f"job={job}" in record.getMessage()]

    assert len(lines) == 4
    for number, line in enumerate(lines):
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        assert line.startswith("task committed ")
        assert (words["task"], words["attempt"], words["worker"]) == (str(number), "1", worker)
        assert int(words["rows"]) == 2 * int(words["frames"])
        assert float(words["fit_s"]) == 0.1


async def test_the_page_on_operations_names_every_figure_and_no_other(hands: Any, tmp_path: Path) -> None:
    await hands.submitted()
    worker = await hands.register()
    (lease,) = await hands.lease(worker)
    await hands.fail(worker, lease)
    served = {name for name, _ in await figures(hands)}
    data_server = DataServerMetrics()
    data_server.watch([tmp_path], lambda: 0)
    served |= {sample.name for family in data_server.registry.collect() for sample in family.samples}
    served |= {"clusterofone_root_free_bytes"}  # once the first look has come back
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    tables = "\n".join(line for line in page.splitlines() if line.startswith("|"))

    named = set(re.findall(r"`((?:clusterofone|process)_\w+)", tables))

    parts = re.compile(r"_(bucket|count|sum|created)$")
    assert named == {parts.sub("", name) for name in served if not name.endswith("_created")}
