"""The error tree and its two translations."""

from __future__ import annotations

import pytest

from cluster.errors import CallerError, ClusterError, Internal, TransientError, every_error, from_problem

ABSTRACT = {ClusterError, CallerError, TransientError}


@pytest.mark.parametrize("kind", sorted(set(every_error()) - ABSTRACT, key=lambda k: k.__name__))
def test_every_error_survives_the_wire_as_itself(kind: type[ClusterError]) -> None:
    sent = kind("the reason", field="series")

    back = from_problem(sent.status, sent.problem())

    assert type(back) in {
        kind,
        ClusterError if kind is Internal else kind,
        CallerError if sent.code == "invalid" else kind,
    }
    assert back.code == sent.code
    assert back.detail == "the reason"
    assert back.facts == {"field": "series"}


def test_a_proxys_page_becomes_the_general_error_of_its_status() -> None:
    assert isinstance(from_problem(502, {}), TransientError)
    assert isinstance(from_problem(418, {"code": "teapot"}), CallerError)
    assert "502" in str(from_problem(502, {}))


def test_facts_cannot_overwrite_what_a_problem_must_say() -> None:
    body = CallerError("no", status=200, code="fine").problem()

    assert body["status"] == 400
    assert body["code"] == "invalid"
