"""What a server tells Prometheus of itself: its requests, its process, and what its role adds.

Each app has a registry of its own, never the library's global one: two servers in one process, as tests and embedders run
them, do not count into each other. Names and units are Prometheus's: base units, `_total` for what only rises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Final

import psutil
from fastapi import FastAPI, Request, Response
from fastapi.params import Depends
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.openapi import raw_reply

ROUTE: Final = "/metrics"
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"})
_LATENCIES_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class RequestMetrics:
    """How many requests there were and how long they took, by route: never by address, of which there is no end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter(
            "clusterofone_http_requests",
            "Requests answered, by route, method and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "clusterofone_http_request_duration_seconds",
            "From a request's head to its last byte; routes that wait for work or stream events take their time.",
            ["method", "route"],
            registry=registry,
            buckets=_LATENCIES_S,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        method = method if method in _METHODS else "other"
        self._count.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class Measured:
    """The outermost layer of an app: sees every request, those too that the gate refuses."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500  # what is sent for us if the app raises

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.note(scope["method"], _route_of(scope), status, time.perf_counter() - began)


def _route_of(scope: Scope) -> str:
    """Return the template of the route that answered, so that no name of a series or job becomes a label."""
    return str(getattr(scope.get("route"), "path_format", "")) or "none"


class OwnProcess(Collector):
    """The process itself, under the names that every Prometheus client uses, on each platform alike."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """Yield what the system says now."""
        process = self._process
        with process.oneshot():
            memory, cpu = process.memory_info(), process.cpu_times()
            rss = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory.", value=memory.rss)
            virtual = GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory.", value=memory.vms)
            seconds = cpu.user + cpu.system
            spent = CounterMetricFamily("process_cpu_seconds", "User and system time.", value=seconds)
            started = process.create_time()
            began = GaugeMetricFamily(
                "process_start_time_seconds", "When it started, in Unix time.", value=started
            )
            threads = GaugeMetricFamily("process_threads", "Threads.", value=process.num_threads())
            handles = process.num_handles() if os.name == "nt" else process.num_fds()
            opened = GaugeMetricFamily(
                "process_open_fds", "Open descriptors (on Windows: handles).", value=handles
            )
        yield from (rss, virtual, spent, began, threads, opened)


def gauge_by(
    name: str, documentation: str, label: str, values: Iterable[tuple[str, float]]
) -> GaugeMetricFamily:
    """Return a gauge with one value for each value of a label."""
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for which, value in values:
        family.add_metric([which], value)
    return family


def new_registry() -> CollectorRegistry:
    """Return the registry of one app, with the process in it."""
    registry = CollectorRegistry()
    registry.register(OwnProcess())
    return registry


def install_metrics(app: FastAPI, registry: CollectorRegistry, *, only: Iterable[Depends]) -> None:
    """Measure every request of an app and serve `/metrics` to whom `only` lets through; call it last."""
    app.add_middleware(Measured, metrics=RequestMetrics(registry))

    @app.get(ROUTE, dependencies=list(only), tags=["cluster"], **raw_reply("text/plain"))
    async def metrics(_: Request) -> Response:
        """Send the figures of this server, as Prometheus reads them."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
