"""Which requests for frames go the short way: those that say in the usual form what every route would understand of them."""

from __future__ import annotations

import pytest

from cluster.dataserver.ranges import Asked, usual

PATH = "/api/v1/series/day 1/cell ü.tif/frames"
SERIES = "day 1/cell ü.tif"


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        (b"start=3&stop=80", Asked(SERIES, 3, 80)),
        (b"stop=80&start=3&codec=none", Asked(SERIES, 3, 80)),
        (b"start=0&stop=5&codec=none&stored=1&fingerprint=a1", Asked(SERIES, 0, 5, "none", True, "a1")),
        (b"start=0&stop=5&stored=0&fingerprint=growing-%2F", Asked(SERIES, 0, 5, fingerprint="growing-/")),
        (b"start=5&stop=3", Asked(SERIES, 5, 3)),  # no range: the store says so
    ],
)
def test_what_workers_ask_is_understood(query: bytes, asked: Asked) -> None:
    assert usual({"path": PATH, "query_string": query}) == asked


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"start=3",
        b"stop=3",
        b"start=&stop=3",
        b"start=-1&stop=3",
        b"start=0&stop=3&stop=4",
        b"start=0&stop=3000000000",
        b"start=1.0&stop=3",
        b"start=%D9%A1&stop=3",  # a digit of another script
        b"start=0&stop=3&codec=blosc-lz4",
        b"start=0&stop=3&codec=zip",
        b"start=0&stop=3&stored=true",
        b"start=0&stop=3&other=1",
        b"start=0&stop=3&fingerprint=" + b"a" * 1025,
        b"start=0&stop=3&fingerprint=%FF",
        b"start=0&stop=3&fingerprint=\xff",
        b"start=0&stop=3&",
    ],
)
def test_what_is_unusual_is_left_to_the_route_that_checks_it(query: bytes) -> None:
    assert usual({"path": PATH, "query_string": query}) is None


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/series/a.tif",
        "/api/v1/series/a.tif/frames/3.png",
        "/api/v1/series/a.tif/place",
        "/api/v1/series/frames",
        "/other/api/v1/series/a.tif/frames",
        "/api/v1/series/a\n.tif/frames",
        f"/api/v1/series/{'a' * 1025}/frames",
    ],
)
def test_other_routes_are_not_taken(path: str) -> None:
    assert usual({"path": path, "query_string": b"start=0&stop=3"}) is None
