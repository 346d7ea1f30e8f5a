"""Each new series under a folder becomes one job, once, across restarts.

Only the data server is asked: what lies in the folder, and what a series is. So the program that still writes a series
is never disturbed, and the folder may be on another machine. A file that was changed a moment ago is let rest, or, if
that is wanted, followed while it is written; one that is acquired through the data server is always followed. What was submitted is remembered in a small file, and the key under which a
job is submitted is made of the series itself, so that even a lost memory makes no second job of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import ValidationError

from cluster.config import write_private
from cluster.errors import CallerError, Internal, NotFound, Unavailable
from cluster.faults import invalid_message
from cluster.fingerprint import GROWS
from cluster.protocol import Job, JobRequest, SeriesEntry, SeriesFacts, SeriesListing

_DEEPEST: Final = 16
Make = Callable[[str], JobRequest]


class Cluster(Protocol):
    """What is asked of a cluster; `cluster.client.Client` is one."""

    def series(self, under: str = "") -> SeriesListing:
        """Return what lies in a folder."""
        ...

    def facts(self, path: str, *, follow: bool = False) -> SeriesFacts:
        """Return what a series is, with `follow` as one that may still be written."""
        ...

    def submit_request(self, request: JobRequest, *, idempotency_key: str | None = None) -> Job:
        """Submit a job."""
        ...


@dataclass(frozen=True)
class Event:
    """What became of a series: a job, or why there is none yet (`later`) or never."""

    series: str
    job: Job | None = None
    problem: str = ""
    later: bool = False


class Memory:
    """The series that have their job, by name and fingerprint, in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, str] = known if isinstance(known, dict) else {}

    def has(self, series: str, fingerprint: str) -> bool:
        """Return whether this series, as it is now, has its job."""
        return self._known.get(series) == fingerprint

    def was_followed(self, series: str) -> str:
        """Return the fingerprint of a series whose job began while it was written; empty for any other."""
        known = self._known.get(series, "")
        return known if known.startswith(GROWS) else ""

    def keep(self, series: str, fingerprint: str) -> None:
        """Remember that it has."""
        self._known[series] = fingerprint
        write_private(self._file, json.dumps(self._known, indent=1, sort_keys=True))


class Watcher:
    """Looks into a folder again and again.

    `now` is the wall clock [s], `make` turns a series' name into a request; with `follow` files that another program
    writes become jobs at once, else when they have not changed for `rest_s`.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: str,
        make: Make,
        memory: Memory,
        *,
        now: Callable[[], float],
        rest_s: float,
        follow: bool = False,
    ) -> None:
        self._follow = follow
        self._cluster = cluster
        self._folder = folder
        self._make = make
        self._memory = memory
        self._now = now
        self._rest_s = rest_s
        self._seen: dict[str, tuple[int | None, float | None]] = {}
        self._refused: dict[str, tuple[int | None, float | None]] = {}
        self._said: dict[str, str] = {}

    def look(self) -> Iterator[Event]:
        """Yield what is new: a job for each series that is ready, a problem the first time it is met."""
        for entry in self._entries(self._folder, 0):
            print_of = (entry.bytes, entry.modified)
            if self._refused.get(entry.path) == print_of:
                continue
            event = self._consider(entry, print_of)
            if event is not None and self._said.get(event.series) != event.problem:
                self._said[event.series] = event.problem
                yield event

    @property
    def waiting(self) -> bool:
        """Return whether a series that was seen may still become a job without anything new coming."""
        return bool(self._seen)

    def _entries(self, folder: str, depth: int) -> Iterator[SeriesEntry]:
        for entry in self._cluster.series(folder).entries:
            if entry.kind == "series":
                yield entry
            elif depth < _DEEPEST:
                try:
                    yield from self._entries(entry.path, depth + 1)
                except NotFound:  # the folder was taken away meanwhile
                    continue

    def _consider(self, entry: SeriesEntry, print_of: tuple[int | None, float | None]) -> Event | None:
        if self._follow and entry.modified is not None and self._now() - entry.modified < self._rest_s:
            try:
                return self._consider_growing(entry, print_of)
            except (CallerError, Internal):  # it cannot be followed, or makes no sense yet: it is let rest
                pass
        try:
            facts = self._cluster.facts(entry.path)
        except (CallerError, Internal) as error:  # perhaps its first frame is not there yet
            return self._not_yet(entry, print_of, str(error))
        except Unavailable as error:
            self._cluster.series(self._folder)  # raises if it is the data server that is away
            self._seen.pop(entry.path, None)
            return Event(entry.path, problem=str(error), later=True)
        if self._memory.has(entry.path, facts.fingerprint):
            self._seen.pop(entry.path, None)
            return None
        if facts.complete and not self._rested(entry, print_of):
            return None
        if self._is_the_followed(entry.path):
            self._memory.keep(entry.path, facts.fingerprint)
            self._seen.pop(entry.path, None)
            return None
        return self._submit(entry, facts, print_of)

    def _consider_growing(
        self, entry: SeriesEntry, print_of: tuple[int | None, float | None]
    ) -> Event | None:
        try:
            facts = self._cluster.facts(entry.path, follow=True)
        except (
            Unavailable
        ):  # its first frame is not there yet; if it is the cluster that is away, the next listing says so
            self._seen[entry.path] = print_of
            return None
        if self._memory.has(entry.path, facts.fingerprint):
            self._seen.pop(entry.path, None)
            return None
        return self._submit(entry, facts, print_of)

    def _is_the_followed(self, series: str) -> bool:
        """Return whether a series that has come to rest is the one whose job began while it was written."""
        known = self._memory.was_followed(series)
        try:
            return bool(known) and self._cluster.facts(series, follow=True).fingerprint == known
        except CallerError:
            return False

    def _submit(
        self, entry: SeriesEntry, facts: SeriesFacts, print_of: tuple[int | None, float | None]
    ) -> Event:
        self._seen.pop(entry.path, None)
        try:
            request = self._make(entry.path).model_copy(update={"follow": not facts.complete})
            key = _key(entry.path, facts.fingerprint, request)
            job = self._cluster.submit_request(request, idempotency_key=key)
        except ValidationError as error:
            self._refused[entry.path] = print_of
            return Event(entry.path, problem=str(invalid_message(error)))
        except (CallerError, Internal) as error:
            self._refused[entry.path] = print_of
            return Event(entry.path, problem=str(error))
        self._memory.keep(entry.path, facts.fingerprint)
        return Event(entry.path, job)

    def _not_yet(
        self, entry: SeriesEntry, print_of: tuple[int | None, float | None], why: str
    ) -> Event | None:
        """A file that cannot be opened is looked at again while it changes; when it has come to rest, it is refused."""
        if not self._rested(entry, print_of):
            return None
        self._seen.pop(entry.path, None)
        self._refused[entry.path] = print_of
        return Event(entry.path, problem=why, later=True)

    def _rested(self, entry: SeriesEntry, print_of: tuple[int | None, float | None]) -> bool:
        """Return whether it has not changed between two looks, nor lately."""
        same = self._seen.get(entry.path) == print_of
        self._seen[entry.path] = print_of
        if entry.modified is None:
            return same
        age_s = self._now() - entry.modified
        return age_s >= self._rest_s or (same and age_s < 0)  # a clock that is behind must not wait for ever


def _key(series: str, fingerprint: str, request: JobRequest) -> str:
    """What makes a submit the same submit: the series as it is, and how it is analysed."""
    analysis = {name: value for name, value in request.analysis.items() if name != "rest_s"}
    said = json.dumps([series, fingerprint, analysis, request.metadata], sort_keys=True, default=str)
    return hashlib.sha256(f"auto {said}".encode()).hexdigest()[:32]


def memory_file(state: Path, cluster: str, folder: str, settings: Mapping[str, Any]) -> Path:
    """Return where the memory of a folder lies: one for each folder, cluster and way of analysing."""
    named = json.dumps([cluster, folder, settings], sort_keys=True, default=str)
    return state / "auto" / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"
