"""Server-sent events, as the standard has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import TooLarge
from cluster.events import ServerEvent, parsed_events


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("event: job\ndata: {}\n\n", [ServerEvent("job", "{}")]),
        ("data: a\ndata: b\n\n", [ServerEvent("message", "a\nb")]),
        ("data:tight\n\n", [ServerEvent("message", "tight")]),
        ("data:  two\n\n", [ServerEvent("message", " two")]),
        (": still here\n\n", []),
        ("event: job\n\ndata: x\n\n", [ServerEvent("message", "x")]),
        ("id: 7\nretry: 5\ndata: x\n\n", [ServerEvent("message", "x")]),
        ("data\n\n", [ServerEvent("message", "")]),
        ("data: whole\n\ndata: torn", [ServerEvent("message", "whole")]),
        ("", []),
    ],
)
def test_streams_become_events(text: str, events: list[ServerEvent]) -> None:
    assert list(parsed_events(text.split("\n"))) == events


def test_an_event_without_end_is_cut_off() -> None:
    lines = (f"data: {'x' * 1000}" for _ in range(10_000))

    with pytest.raises(TooLarge):
        list(parsed_events(lines))


def test_a_long_stream_of_small_events_is_no_long_event() -> None:
    lines = [line for _ in range(6_000) for line in (f"data: {'x' * 1000}", "")]

    assert len(list(parsed_events(lines))) == 6_000


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n"), max_size=20), min_size=1, max_size=5)
)
def test_what_was_sent_is_what_is_read(lines: list[str]) -> None:
    stream = ["event: job", *(f"data: {line}" for line in lines), ""]

    assert list(parsed_events(stream)) == [ServerEvent("job", "\n".join(lines))]
