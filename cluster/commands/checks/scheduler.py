"""What `doctor` sees of the scheduler: whether it can be spoken to, who we are to it, its version and its clock, and its data servers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from cluster import trust
from cluster.addresses import Place, candidates
from cluster.commands.checks.announced import Heard
from cluster.commands.checks.finding import Finding, note, ok, problem
from cluster.commands.checks.firewalls import let_in
from cluster.config import Places
from cluster.discovery import Found, identity_at
from cluster.errors import ClusterError, Forbidden, Invalid, Misdirected, Unauthorised, Unavailable
from cluster.locate import Located, Locator, Wanted, read_config
from cluster.machine import this_machine
from cluster.pinning import split_address
from cluster.protocol import DEFAULT_PORTS, PROTOCOL_VERSION, DataServerInfo, Identity, Worker
from cluster.transport import Link, linked

_UNSURE_S: Final = 2.0  # the reply's date has whole seconds, and servers look at their clock once a second
_NOTED_S: Final = 10.0
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LARGEST_S: Final = 300.0  # beyond which Windows shares and Kerberos turn people away
_MAY: Final = {
    "owner": "may do everything",
    "submitter": "may submit and cancel jobs; letting machines in is the owner's",
    "worker": "may work, and not see or submit jobs; a submitter's: clusterofone token --role submitter, on the scheduler's machine",
    "viewer": "may look, and change nothing; a submitter's: clusterofone token --role submitter, on the scheduler's machine",
}


@dataclass(frozen=True)
class Asked:
    """What a person gave: where the scheduler is, and a token."""

    url: str | None
    token: str | None


async def scheduler(asked: Asked, heard: Heard, places: Places) -> list[Finding]:
    """Look at the scheduler that is named, that is this user's own, or that announced itself."""
    try:
        located = await _at_hand(asked, heard, places)
    except ClusterError as error:
        return [_absent(error, asked.url or read_config(places.config).scheduler)]
    found = [ok("scheduler", f"{located.name} at {located.url} ({located.source})")]
    found.append(versions(located.identity, version("clusterofone")))
    found.append(await _clock(located.url))
    found.append(await _token(located, not_sent=asked.token is not None and located.source == "mDNS"))
    found.append(await _data_servers(located, places))
    if located.token is not None and found[-2].verdict == "ok":
        found += await _workers(located.url, located.token)
    return found


async def _at_hand(asked: Asked, heard: Heard, places: Places) -> Located:
    """Return the scheduler to look at. A token that was given is not shown to one that merely announced itself."""

    async def overheard() -> list[Found]:
        return list(heard.clusters)

    locator = Locator(places, role="owner", browse=overheard)
    try:
        return await locator.locate(Wanted(url=asked.url, token=asked.token, discover=False))
    except Unavailable:
        if asked.url is not None:
            raise
        return await locator.locate(Wanted())


def _absent(error: ClusterError, named: str | None) -> Finding:
    if named is None:
        return note(
            "scheduler",
            f"{error.detail.partition('. ')[0]}. Its version, its clock and the token were not looked at; name it: "
            "clusterofone doctor --scheduler URL",
        )
    if not isinstance(
        error, Unavailable
    ):  # it answered, or the address is no address: no firewall is in the way
        said = error.detail
        if not isinstance(error, Invalid):
            said = f"{named} does not answer as a scheduler does: {said}"
        return problem("scheduler", f"{said}. clusterofone prints the scheduler's address when it starts")
    host, port = _place_of(named)
    if host in _THIS_MACHINE:
        return problem(
            "scheduler", f"{error.detail}. Is it running? clusterofone prints its address when it starts"
        )
    return problem(
        "scheduler",
        f"{error.detail}. Is the name right, and is it running, with --lan? On its machine, {let_in(port)}",
    )


def _place_of(url: str) -> tuple[str | None, int]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return parts.hostname, parts.port or DEFAULT_PORTS["scheduler"]
    except ValueError:
        return None, DEFAULT_PORTS["scheduler"]


def versions(theirs: Identity, ours: str) -> Finding:
    """Judge whether this program and the scheduler can talk."""
    if theirs.protocol != PROTOCOL_VERSION:
        older = "this machine" if theirs.protocol > PROTOCOL_VERSION else "the scheduler's machine"
        newer = theirs.version if theirs.protocol > PROTOCOL_VERSION else ours
        return problem(
            "versions of both",
            f"the scheduler has {theirs.version} (protocol {theirs.protocol}), this machine {ours} (protocol {PROTOCOL_VERSION}): "
            f"they cannot talk. On {older}: pip install clusterofone=={newer}",
        )
    if theirs.version != ours:
        return problem(
            "versions of both",
            f"the scheduler has {theirs.version}, this machine {ours}: they can talk, but workers of this machine are refused, as "
            f"their numbers could differ. Here: pip install clusterofone=={theirs.version}",
        )
    return ok("versions of both", f"{ours} here and at the scheduler")


async def _clock(url: str) -> Finding:
    before = time.time()
    try:
        async with linked(url) as link:
            reply = await link.request("GET", "/healthz", anonymous=True)
    except ClusterError as error:
        return problem("clock", error.detail)
    return clock(reply.headers.get("date"), before, time.time())


def clock(date: str | None, before: float, after: float) -> Finding:
    """Judge the scheduler's clock by the date of its reply and the local times around it [s since 1970]."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return note("clock", "the scheduler does not say what time it has")
    ahead_s = theirs.timestamp() + 0.5 - (before + after) / 2
    if abs(ahead_s) <= _NOTED_S:
        size = "by less than" if abs(ahead_s) <= _UNSURE_S else "by about"
        return ok("clock", f"differs from the scheduler's {size} {max(abs(ahead_s), _UNSURE_S):.0f} s")
    told = (
        f"the scheduler's is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's "
        f"({_shown(theirs.timestamp())} there, {_shown(after)} here). Jobs do not suffer, as leases go by one clock alone; but times of "
        "jobs and lines of logs do not fit together"
    )
    mend = "Have both set by the network: Windows w32tm /resync, macOS Date & Time > Set automatically, Linux timedatectl set-ntp true"
    if abs(ahead_s) <= _LARGEST_S:
        return note("clock", f"{told}. {mend}")
    return problem(
        "clock", f"{told}, and shares may turn this user away and certificates count as invalid. {mend}"
    )


def _shown(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


async def _token(located: Located, *, not_sent: bool) -> Finding:
    """Show the token to the one route that only the owner may use: what it answers tells who we are."""
    try:
        async with linked(located.url) as link:
            if await _lets(link, unless=Unauthorised):
                return note("token", "none is asked for: everyone who reaches it may use it (--insecure)")
        if located.token is None:
            return _no_token(located, not_sent=not_sent)
        async with linked(located.url, located.token) as link:
            may_all = await _lets(link, unless=Forbidden)
    except Unauthorised:
        return problem(
            "token",
            f"{located.url} does not know it (401): it is of another cluster, or mistyped. Take one where the scheduler runs: "
            "clusterofone token",
        )
    except Misdirected as error:
        host = urlsplit(located.url).hostname
        return problem(
            "token", f"{error.detail}. Start the scheduler with --host-name {host}, or use its address"
        )
    except ClusterError as error:
        return problem("token", error.detail)
    return accepted(located.token, may_all=may_all)


async def _lets(link: Link, unless: type[ClusterError]) -> bool:
    """Return whether what is the owner's is answered, or refused in this way."""
    try:
        await link.request("GET", "/api/v1/log", params={"lines": 1})
    except unless:
        return False
    return True


def accepted(token: str, *, may_all: bool) -> Finding:
    """Say which role an accepted token has: the role is part of what was checked, so what it says of itself is true."""
    role = "owner" if may_all else trust.claimed_role(token)
    if role is None:
        return note(
            "token", "accepted (403 for what is the owner's), of a role that this version does not know"
        )
    return ok("token", f"accepted, of the role {role}: {_MAY[role]}")


def _no_token(located: Located, *, not_sent: bool) -> Finding:
    ways = {
        "approve": "a worker of this machine asks to be let in and waits for the owner",
        "open": "a worker of this machine is let in by itself",
        "token": "a worker of this machine needs one too: the scheduler prints its line",
    }
    if not_sent:
        told = "the one given was not sent, as anybody can announce a cluster: give --scheduler URL with it"
    else:
        told = "none of this cluster is known here: clusterofone token prints one where the scheduler runs; put it into CLUSTEROFONE_TOKEN"
    return note("token", f"{told}. {ways[located.identity.join].capitalize()}")


async def _data_servers(located: Located, places: Places) -> Finding:
    servers = located.identity.dataservers
    if not servers:
        return note("data servers", "none is registered at the scheduler, so there are no frames to work on")
    try:
        machine = this_machine(places.machine).id
    except (ClusterError, OSError) as error:
        return problem("data servers", str(error))
    place = Place(machine, located.cluster_id, located.identity.machine, located.url)
    told = await asyncio.gather(*(_data_server(server, place) for server in servers))
    faults = [line for line, well in told if not well]
    if faults:
        return problem("data servers", "; ".join(faults))
    return ok("data servers", "; ".join(line for line, _ in told))


async def _data_server(server: DataServerInfo, place: Place) -> tuple[str, bool]:
    """Try the addresses that a worker would."""
    urls = [candidate.url for candidate in candidates([server], place)]
    answers = await asyncio.gather(*map(_serves, urls))
    answering = [split_address(url)[0] for url, there in zip(urls, answers, strict=True) if there]
    if answering:
        return f"{server.host} at {', '.join(answering)}", True
    tried = _tried(urls)
    return (
        f"{server.host} cannot be reached at {tried}, so workers here get no frames: there, {let_in(server.port)}",
        False,
    )


async def _workers(url: str, token: str) -> list[Finding]:
    """Look at the workers, as far as the token lets its owner see them."""
    try:
        async with linked(url, token) as link:
            reply = await link.request("GET", "/api/v1/workers")
            return [at_work(TypeAdapter(list[Worker]).validate_json(reply.content))]
    except Forbidden:
        return []
    except (ClusterError, ValidationError) as error:
        return [problem("workers", str(error))]


def at_work(workers: Sequence[Worker]) -> Finding:
    """Judge whether there is anybody to do a job."""
    if not workers:
        return note(
            "workers", "none has joined, so jobs wait. On this or another machine: clusterofone worker"
        )
    told = ", ".join(f"{number} {state}" for state, number in Counter(one.state for one in workers).items())
    excluded = "".join(f"; {one.id}: {one.excluded}" for one in workers if one.excluded)
    if any(one.state in {"idle", "working"} for one in workers):
        return (note if excluded else ok)("workers", told + excluded)
    undo = ". Give one work again: clusterofone drain NAME --undo" if "draining" in told else ""
    return problem("workers", f"{told}: none takes work, so jobs wait{excluded}{undo}")


async def _serves(url: str) -> bool:
    try:
        return (await identity_at(url)).role == "dataserver"
    except ClusterError:
        return False


def _tried(urls: Sequence[str]) -> str:
    return ", ".join(split_address(url)[0] for url in urls) or "any address"
