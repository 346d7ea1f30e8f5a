"""Each series becomes one job, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.auto import Memory, Watcher, _key
from cluster.errors import Internal, Invalid, NotFound, Unavailable
from cluster.protocol import JobRequest, SeriesEntry, SeriesFacts, SeriesListing


@dataclass
class FakeCluster:
    """A folder of files, each as old as its test says, and the jobs that were made of them."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: list[tuple[str, bool, str | None]] = field(default_factory=list)
    refuse: dict[str, Exception] = field(default_factory=dict)
    begins: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, Exception] = field(default_factory=dict)
    unlisted: dict[str, Exception] = field(default_factory=dict)
    unlisted_after: int | None = None  # listings, after which nobody answers

    def put(self, path: str, *, modified: float, size: int = 10, **facts: Any) -> None:
        self.files[path] = {"modified": modified, "bytes": size, "facts": facts}

    def series(self, under: str = "") -> SeriesListing:
        if under in self.unlisted:
            raise self.unlisted[under]
        if self.unlisted_after is not None:
            if self.unlisted_after == 0:
                raise Unavailable("nobody answers")
            self.unlisted_after -= 1
        names = [path for path in self.files if not under or path.startswith(under + "/")]
        inside = {path.removeprefix(under).lstrip("/").partition("/") for path in names}
        entries = []
        for first, slash, _ in sorted(inside):
            path = f"{under}/{first}" if under else first
            if slash:
                entries.append(SeriesEntry(path=path, kind="folder"))
            else:
                file = self.files[path]
                entries.append(
                    SeriesEntry(path=path, kind="series", bytes=file["bytes"], modified=file["modified"])
                )
        unique = {entry.path: entry for entry in entries}
        return SeriesListing(under=under, entries=list(unique.values()))

    def facts(self, path: str, *, follow: bool = False) -> SeriesFacts:
        if path in self.unreadable:
            raise self.unreadable[path]
        if "broken" in path:
            raise Invalid(f"{path} holds no frames")
        if follow and "early" in path:
            raise Unavailable(f"{path} holds no whole frame yet")
        if follow and "czi" in path:
            raise Invalid(f"{path} cannot be followed")
        file = self.files[path]
        if follow:
            file = file | {
                "facts": {"complete": False, "fingerprint": f"growing-{self.begins.get(path, path)}"}
            }
        values = {
            "path": path, "height": 4, "width": 4, "dtype": "uint16", "frames": 9, "bytes": file["bytes"],
            "fingerprint": f"{path} {file['bytes']} {file['modified']}", "format": "tiff",
        }  # fmt: skip
        return SeriesFacts.model_validate(values | file["facts"])

    def submit_request(self, request: JobRequest, *, idempotency_key: str | None = None) -> Any:
        if request.series in self.refuse:
            raise self.refuse[request.series]
        self.jobs.append((request.series, request.follow, idempotency_key))
        return f"job of {request.series}"


class Desk:
    def __init__(self, folder: Path) -> None:
        self.cluster = FakeCluster()
        self.now = 1000.0
        self.file = folder / "memory.json"
        self.watcher = self.started()

    def started(self, under: str = "", *, follow: bool = False) -> Watcher:
        return Watcher(
            self.cluster,
            under,
            lambda series: JobRequest(series=series),
            Memory(self.file),
            now=lambda: self.now,
            rest_s=30.0,
            follow=follow,
        )

    def look(self) -> list[tuple[str, str]]:
        return [(event.series, event.problem) for event in self.watcher.look()]

    @property
    def submitted(self) -> list[str]:
        return [series for series, _, _ in self.cluster.jobs]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_series_that_has_come_to_rest_becomes_one_job(desk: Desk) -> None:
    desk.cluster.put("day/a.tif", modified=900.0)

    for _ in range(3):
        desk.look()

    assert desk.submitted == ["day/a.tif"]


def test_one_that_makes_no_request_is_said_once_and_the_others_go_on(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.cluster.put("b.tif", modified=900.0)
    make = lambda series: JobRequest(series=series, name="\x1b" if series == "a.tif" else None)  # noqa: E731
    watcher = Watcher(desk.cluster, "", make, Memory(desk.file), now=lambda: desk.now, rest_s=30.0)

    events = [(event.series, event.problem) for _ in range(3) for event in watcher.look()]

    said = "name: a name cannot hold the character U+001B, which nobody sees; leave it out"
    assert events == [("a.tif", said), ("b.tif", "")]
    assert not watcher.waiting


@pytest.mark.parametrize("error", [Internal("the server met a fault of its own"), Unavailable("not now")])
def test_one_that_cannot_be_looked_at_keeps_no_other_from_its_job(desk: Desk, error: Exception) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.cluster.put("b.tif", modified=900.0)
    desk.cluster.unreadable["a.tif"] = error

    events = [event for _ in range(3) for event in desk.look()]

    assert events == [("a.tif", str(error)), ("b.tif", "")]


def test_one_that_the_scheduler_trips_over_is_left_alone(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.cluster.put("b.tif", modified=900.0)
    desk.cluster.refuse["a.tif"] = Internal("the server met a fault of its own")

    events = [event for _ in range(3) for event in desk.look()]

    assert events == [("a.tif", "the server met a fault of its own"), ("b.tif", "")]


def test_a_folder_that_is_taken_away_meanwhile_ends_nothing(desk: Desk) -> None:
    desk.cluster.put("gone/a.tif", modified=900.0)
    desk.cluster.put("here.tif", modified=900.0)
    desk.cluster.unlisted["gone"] = NotFound("there is no folder 'gone'")

    assert desk.look() == [("here.tif", "")]


def test_when_the_data_server_is_away_it_is_said_of_it_and_of_no_series(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    looking = desk.watcher.look()
    desk.cluster.unreadable["a.tif"] = Unavailable("nobody answers")
    desk.cluster.unlisted_after = 1

    with pytest.raises(Unavailable, match="nobody answers"):
        next(looking)


def test_one_that_is_still_written_waits_until_it_has_not_changed_for_a_while(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=990.0)
    desk.look()
    desk.now = 1015.0
    desk.look()
    assert desk.submitted == []
    assert desk.watcher.waiting

    desk.now = 1021.0
    desk.look()

    assert desk.submitted == ["a.tif"]
    assert not desk.watcher.waiting


def test_a_series_that_the_data_server_says_is_growing_is_followed_at_once(desk: Desk) -> None:
    desk.cluster.put("live.zarr", modified=1000.0, complete=False, fingerprint="its own")
    desk.look()
    desk.cluster.put("live.zarr", modified=1001.0, complete=True, fingerprint="its own")
    desk.now = 2000.0
    desk.look()

    assert [(series, follow) for series, follow, _ in desk.cluster.jobs] == [("live.zarr", True)]


def test_a_restart_makes_no_second_job(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.look()

    desk.watcher = desk.started()
    desk.look()

    assert desk.submitted == ["a.tif"]


def test_not_even_a_lost_memory_does_because_the_key_is_the_same(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.look()
    desk.file.unlink()

    desk.watcher = desk.started()
    desk.look()

    keys = {key for _, _, key in desk.cluster.jobs}
    assert len(keys) == 1
    assert None not in keys


def test_the_key_says_how_the_series_is_analysed_and_not_how_its_end_is_noticed() -> None:
    def key(**analysis: Any) -> str:
        return _key("a.tif", "print", JobRequest(series="a.tif", analysis=analysis))

    assert key(threshold=1.0) == key(threshold=1.0, rest_s=5.0)
    assert (
        len(
            {
                key(),
                key(threshold=1.0),
                key(threshold=2.0),
                _key("a.tif", "other", JobRequest(series="a.tif")),
            }
        )
        == 4
    )


def test_a_file_that_was_replaced_is_another_series(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.look()

    desk.cluster.put("a.tif", modified=950.0, size=20)
    desk.look()

    assert desk.submitted == ["a.tif", "a.tif"]


def test_what_cannot_be_opened_is_told_once_when_it_has_come_to_rest_and_tried_again_when_it_changes(
    desk: Desk,
) -> None:
    desk.cluster.put("broken.tif", modified=995.0)
    assert desk.look() == []
    desk.now = 1030.0
    told = [*desk.look(), *desk.look()]
    desk.cluster.put("broken.tif", modified=1020.0, size=99)
    desk.now = 1060.0
    again = desk.look()

    assert told == [("broken.tif", "broken.tif holds no frames")]
    assert again == []  # the same words are not said twice
    assert desk.submitted == []


def test_a_job_that_is_refused_is_told_once_and_not_sent_again(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.cluster.refuse["a.tif"] = Invalid("Camera.ADOffset is missing")

    assert [*desk.look(), *desk.look()] == [("a.tif", "Camera.ADOffset is missing")]


def test_a_cluster_that_is_away_is_the_callers_to_wait_for(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=900.0)
    desk.cluster.refuse["a.tif"] = Unavailable("it does not answer")

    with pytest.raises(Unavailable):
        desk.look()
    desk.cluster.refuse.clear()
    desk.look()

    assert desk.submitted == ["a.tif"]


def test_only_what_lies_under_the_folder_counts(desk: Desk) -> None:
    desk.cluster.put("today/a.tif", modified=900.0)
    desk.cluster.put("today/deep/b.tif", modified=900.0)
    desk.cluster.put("yesterday/c.tif", modified=900.0)
    desk.watcher = desk.started("today")

    desk.look()

    assert sorted(desk.submitted) == ["today/a.tif", "today/deep/b.tif"]


def test_a_clock_that_is_behind_does_not_make_it_wait_for_ever(desk: Desk) -> None:
    desk.cluster.put("a.tif", modified=5000.0)

    desk.look()
    desk.look()

    assert desk.submitted == ["a.tif"]


def test_a_folder_that_is_not_there_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(under: str = "") -> SeriesListing:
        raise NotFound(f"there is no folder {under}")

    monkeypatch.setattr(desk.cluster, "series", absent)

    with pytest.raises(NotFound, match="there is no folder"):
        desk.look()


def test_a_file_that_is_still_written_is_followed_at_once_and_is_no_second_series_when_it_rests(
    desk: Desk,
) -> None:
    desk.watcher = desk.started(follow=True)
    desk.cluster.put("a.tif", modified=990.0)
    desk.look()
    desk.cluster.put("a.tif", modified=1002.0, size=20)
    desk.now = 1003.0
    desk.look()
    desk.now = 1040.0
    desk.look()
    desk.watcher = desk.started(follow=True)
    desk.look()

    assert [(series, follow) for series, follow, _ in desk.cluster.jobs] == [("a.tif", True)]
    assert not desk.watcher.waiting


def test_one_that_begins_otherwise_is_another_series_also_when_it_was_seen_only_at_rest(desk: Desk) -> None:
    desk.watcher = desk.started(follow=True)
    desk.cluster.put("a.tif", modified=990.0)
    desk.look()
    desk.cluster.put("a.tif", modified=1002.0, size=20)
    desk.cluster.begins["a.tif"] = "otherwise"
    desk.now = 1040.0
    desk.look()

    assert [(series, follow) for series, follow, _ in desk.cluster.jobs] == [
        ("a.tif", True),
        ("a.tif", False),
    ]


def test_one_without_a_whole_frame_is_waited_for_and_one_that_cannot_be_followed_is_let_rest(
    desk: Desk,
) -> None:
    desk.watcher = desk.started(follow=True)
    desk.cluster.put("early.tif", modified=999.0)
    desk.cluster.put("a.czi", modified=999.0)
    assert desk.look() == []
    assert desk.watcher.waiting

    desk.now = 1040.0
    desk.look()

    assert [(series, follow) for series, follow, _ in desk.cluster.jobs] == [
        ("a.czi", False),
        ("early.tif", False),
    ]
