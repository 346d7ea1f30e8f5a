"""Folders, series and machines as lines."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.protocol import (
    DataServerInfo,
    Identity,
    RootSpace,
    SeriesEntry,
    SeriesFacts,
    SeriesListing,
    Worker,
)
from cluster.web.models.machines import headline, join_lines, space_said, usable, worker_lines
from cluster.web.models.series_lines import files_for, is_of_no_use, lines_of, sentence, trail


def listing() -> SeriesListing:
    entries = [
        SeriesEntry(path="day/b.tif", kind="series", bytes=2_000_000, modified=940.0),
        SeriesEntry(path="day/A.tif", kind="series"),
        SeriesEntry(path="day/old", kind="folder"),
    ]
    return SeriesListing(under="day", entries=entries)


def test_folders_come_first_and_names_are_without_their_folder() -> None:
    lines = lines_of(listing(), 1000.0)

    assert [line.name for line in lines] == ["old", "A.tif", "b.tif"]
    assert (lines[2].size, lines[2].changed) == ("2 MB", "1 min ago")


def test_a_setting_is_offered_the_files_that_it_may_name() -> None:
    entries = [*listing().entries, SeriesEntry(path="day/shifts.json", kind="calibration")]
    mixed = SeriesListing(under="day", entries=entries)

    assert [line.name for line in files_for(mixed, "shifts", 0.0)] == ["old", "shifts.json"]
    assert [line.name for line in files_for(mixed, "dark_map", 0.0)] == ["old", "A.tif", "b.tif"]


def test_a_search_is_for_a_part_of_the_name() -> None:
    assert [line.name for line in lines_of(listing(), 0.0, "B.T")] == ["b.tif"]


def test_the_trail_leads_to_the_folder() -> None:
    assert trail("day 1/cells") == [("data", ""), ("day 1", "day 1"), ("cells", "day 1/cells")]
    assert trail("") == [("data", "")]


def test_a_series_in_a_sentence() -> None:
    facts = SeriesFacts(
        path="a",
        height=64,
        width=128,
        dtype="uint16",
        frames=1200,
        missing=[(3, 5)],
        complete=False,
        fingerprint="f",
        bytes=5,
        format="tiff",
    )

    assert (
        sentence(facts)
        == "1,200 frames · 128 × 64 px · uint16 · tiff · 5 bytes · still growing · 2 frames cannot be read"
    )


def worker(**changes: Any) -> Worker:
    facts = {
        "id": "w", "host": "pc", "pid": 3, "version": "0.1.0", "state": "working", "job": None, "frames": 1000, "rate_frames_per_s": 120.0,
        "last_seen": 999.0, "excluded": None,
    }  # fmt: skip
    return Worker.model_validate({**facts, **changes})


def test_workers_that_want_a_look_come_first_and_say_why() -> None:
    lines = worker_lines([worker(), worker(id="x", state="excluded", excluded="another version")], [], 1000.0)

    assert [(line.state, line.why) for line in lines] == [("excluded", "another version"), ("working", "")]
    assert lines[1].seen == "just now"


def test_the_headline_counts_who_may_work() -> None:
    workers = [
        worker(),
        worker(id="x", host="pc-2", state="idle", rate_frames_per_s=None),
        worker(id="y", state="lost"),
    ]

    assert usable(workers) == 2
    assert headline(workers) == "2 workers on 2 machines, 240 frames/s"
    assert headline([]) == "0 workers on 0 machines"


def identity(*addresses: str, join: str = "approve") -> Identity:
    servers = (
        [DataServerInfo(id="d", machine="m", host="pc", port=15440, addresses=list(addresses))]
        if addresses
        else []
    )
    return Identity.model_validate(
        {
            "role": "scheduler",
            "cluster_id": "c",
            "name": "lab",
            "machine": "m",
            "version": "0.1.0",
            "join": join,
            "dataservers": servers,
        }
    )


def test_a_cluster_of_this_computer_alone_says_how_to_open_it() -> None:
    said, lines = join_lines(identity("127.0.0.1"), "http://127.0.0.1:15400")

    assert "--lan" in said
    assert lines == ["clusterofone --lan"]


@pytest.mark.parametrize(
    ("join", "said", "tail"),
    [("approve", "approve", ""), ("open", "other machine", ""), ("token", "token", " --token TOKEN")],
)
def test_an_open_cluster_gives_the_lines_to_type(join: str, said: str, tail: str) -> None:
    words, lines = join_lines(identity("127.0.0.1", "192.168.1.5", join=join), "http://127.0.0.1:15400")

    assert said in words.replace("another", "other")
    assert lines == [
        f"clusterofone worker{tail}",
        f"clusterofone worker --scheduler http://192.168.1.5:15400{tail}",
    ]
    assert join_lines(identity("10.0.0.1", join=join), "http://lab:15400")[1][1].startswith(
        "clusterofone worker --scheduler http://lab:15400"
    )


def test_the_lines_say_whether_the_cluster_is_encrypted() -> None:
    alone, line = join_lines(identity("127.0.0.1"), "https://127.0.0.1:15400")
    words, lines = join_lines(identity("127.0.0.1", "192.168.1.5"), "https://127.0.0.1:15400")
    plain, _ = join_lines(identity("127.0.0.1", "192.168.1.5"), "http://127.0.0.1:15400")
    told, by_name = join_lines(identity("10.0.0.1", join="token"), "https://[fd00::5]:15400")

    assert line == ["clusterofone --lan --tls"]
    assert "--tls" not in alone
    assert lines[1] == "clusterofone worker --scheduler https://192.168.1.5:15400"
    assert "are encrypted" in words
    assert "not encrypted" in plain
    assert "names this cluster's certificate" in told
    assert by_name[1] == "clusterofone worker --scheduler https://[fd00::5]:15400 --token TOKEN"


def test_a_workers_load_is_said_with_its_machines() -> None:
    load = {"cores": 0.98, "memory_bytes": 312_000_000, "machine_cpu": 0.5, "machine_memory": 0.25}
    (busy,) = worker_lines([worker(load=load)], [], 1000.0)
    (silent,) = worker_lines([worker()], [], 1000.0)

    assert busy.load == "98% of a core · 312 MB\nmachine: CPU 50%, memory 25%"
    assert silent.load == "–"


def test_a_drained_worker_says_what_that_means_and_may_be_used_again() -> None:
    (drained,) = worker_lines([worker(state="draining")], [], 1000.0)
    (other,) = worker_lines([worker()], [], 1000.0)

    assert "gets no more" in drained.why
    assert (drained.can_drain, drained.can_be_used_again) == (False, True)
    assert (other.can_drain, other.can_be_used_again) == (True, False)


def test_little_room_on_a_disk_is_a_warning() -> None:
    plenty = RootSpace(path="/data", free_bytes=500 * 10**9, total_bytes=10**12, writable=True)

    assert space_said(plenty) == ("500 GB of 1 TB free", "quiet")
    assert space_said(plenty.model_copy(update={"free_bytes": 10**9}))[1] == "warning"
    assert space_said(plenty.model_copy(update={"writable": False}))[0].endswith("read only")
    assert space_said(RootSpace(path="/gone", free_bytes=None, total_bytes=None, writable=False)) == (
        "not there now",
        "bad",
    )


@pytest.mark.parametrize(
    ("name", "no_use"),
    [
        ("cell.tif", False),
        ("cell.json", False),
        ("run_metadata.txt", False),
        ("notes.txt", True),
        ("plan.PDF", True),
    ],
)
def test_a_file_that_came_and_is_no_series_is_told_from_a_sidecar(name: str, no_use: bool) -> None:
    listing = SeriesListing(under="a", entries=[SeriesEntry(path="a/cell.tif", kind="series")])

    assert is_of_no_use(name, listing) is no_use
