"""Schemathesis makes the requests; the app that answers is the real one, in process, on a loop of its own."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup

from cluster.protocol import Role
from cluster.trust import token

load_all_checks()
CONFORMS = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@dataclass
class Checked:
    """The statuses of the replies, by operation, and what does not conform, in words."""

    statuses: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    broken: list[str] = field(default_factory=list)


Prepare = Callable[[schemathesis.Case], None]


class Served:
    """An app on a loop of its own, asked from here."""

    def __init__(self, app: FastAPI, portal: BlockingPortal, secret: bytes) -> None:
        self.app = app
        self.document: dict[str, Any] = app.openapi()
        self.schema = schemathesis.openapi.from_dict(self.document)
        self._portal = portal
        self._secret = secret

    def ask(self, role: Role | None, method: str, url: str, **more: Any) -> httpx.Response:
        """Return the reply to a request."""
        given_headers = dict(more.pop("headers", None) or {})
        headers = {key: value for key, value in given_headers.items() if key.lower() != "authorization"}
        if role is not None:
            headers["authorization"] = f"Bearer {token(self._secret, role)}"

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, url, headers=headers, **more)

        return self._portal.call(send)

    def check(self, role: Role | None, known: Mapping[str, Any], count: int, prepare: Prepare) -> Checked:
        """Send so many requests to every operation, half of them such as the document does not allow."""
        checked = Checked()
        for found in self.schema.get_all_operations():
            operation = found.ok()
            try:
                self._check(operation, role, known, count, prepare, checked.statuses[operation.label])
            except FailureGroup as failures:
                checked.broken += [f"{operation.label}: {failure}" for failure in failures.exceptions]
        return checked

    def _check(
        self,
        operation: schemathesis.APIOperation,
        role: Role | None,
        known: Mapping[str, Any],
        count: int,
        prepare: Prepare,
        statuses: Counter[int],
    ) -> None:
        takes = operation.path_parameters or operation.query or operation.headers or operation.body
        modes = GenerationMode if takes else [GenerationMode.POSITIVE]
        for mode in modes:

            @settings(
                max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None
            )
            @given(case=operation.as_strategy(mode), real=st.booleans())
            def each(case: schemathesis.Case, real: bool) -> None:
                if real:
                    case.path_parameters.update({k: v for k, v in known.items() if k in case.path_parameters})
                prepare(case)
                statuses[self.send(case, role).status_code] += 1

            each()

    def send(self, case: schemathesis.Case, role: Role | None) -> httpx.Response:
        """Return the reply to a request, which conforms to the document."""
        request = case.as_transport_kwargs(base_url="http://127.0.0.1")
        more = {
            key: request[key] for key in ("params", "headers", "json", "files", "cookies") if request.get(key)
        }
        if "data" in request:
            data = request["data"]
            more["content" if isinstance(data, bytes | str) else "data"] = data
        reply = self.ask(role, request["method"], request["url"], **more)
        case.validate_response(reply, checks=CONFORMS)
        return reply


@contextmanager
def served(app: Callable[[], AbstractAsyncContextManager[FastAPI]], secret: bytes) -> Iterator[Served]:
    """Serve an app that is made on the loop that runs it."""
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(app()) as made:
        yield Served(made, portal, secret)


def body_of(case: schemathesis.Case) -> dict[str, Any]:
    """Return a case's body if it is an object, else an empty one that belongs to nobody."""
    return case.body if isinstance(case.body, dict) else {}


def is_number(value: object) -> bool:
    """Return whether a value is a number that JSON can say."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
