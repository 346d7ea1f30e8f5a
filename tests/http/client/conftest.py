"""A client before a scheduler that answers as a test says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from cluster.backoff import Backoff, Pace
from cluster.client import Client
from cluster.errors import ClusterError
from cluster.protocol import Job

Answer = httpx.Response | Exception


class FakeServer:
    """Answers requests in turn, by method and path; the last answer stays. Time passes only by sleeping."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self.now = 0.0

    def on(
        self, method: str, path: str, *answers: Answer | ClusterError | dict[str, Any] | list[Any]
    ) -> None:
        self.answers[method, path] = [_as_answer(answer) for answer in answers]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        queue = self.answers[request.method, request.url.path]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


def _as_answer(answer: Any) -> Answer:
    if isinstance(answer, ClusterError):
        return httpx.Response(answer.status, json=answer.problem())
    if isinstance(answer, dict | list):
        return httpx.Response(200, json=answer)
    assert isinstance(answer, httpx.Response | Exception)
    return answer


def job(state: str = "running", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": "j1",
        "name": "a",
        "owner": "ann",
        "machine": "pc",
        "kind": "localise",
        "state": state,
        "series": "cells/a.tif",
        "priority": 0,
        "fit": "LatGaussFitFR",
        "frames": {"total": 100, "localised": 0, "skipped": 0, "failed": 0},
        "tasks_running": 0,
        "retries": 0,
        "localisations": 0,
        "rate_frames_per_s": None,
        "eta_s": None,
        "output": None,
        "error": None,
        "created": 1.0,
        "started": None,
        "finished": None,
    }
    return Job.model_validate(values | changes).model_dump(mode="json")


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def make_job() -> Callable[..., dict[str, Any]]:
    return job


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    made = Client(
        "http://127.0.0.1:15400",
        "c1.submitter.x",
        transport=httpx.MockTransport(server),
        backoff=Backoff(total_s=20.0),
        pace=Pace(clock=lambda: server.now, rng=random.Random(5)),
        sleep=server.sleep,
    )
    with made:
        yield made
