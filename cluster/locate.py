"""Which scheduler is meant, and with which token: the one order in which every client and worker looks.

    the address given → the environment's → the configuration file's → this user's cluster on this machine
    → mDNS → the addresses of clusters joined before → an error that says what was tried

An address that was given is the only one tried. A token goes only where it belongs: one made from this user's own
secret never leaves this machine, and one that a cluster gave goes to that cluster.
"""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster import trust
from cluster.addresses import is_loopback
from cluster.config import Places, Runtime, read_runtime
from cluster.discovery import Found, Identify, browse, choose, identity_at, own_addresses, reachable
from cluster.errors import ClusterError, Invalid, NotFound, Unavailable
from cluster.machine import KnownClusters
from cluster.protocol import Identity, Role
from cluster.threads import DaemonThread
from cluster.transport import normalised_url

Browse = Callable[[], Awaitable[list[Found]]]
Ask = Callable[[list[str]], int]
CONFIG_FILE: Final = "config.toml"


class FileConfig(BaseModel):
    """What a user may write into `config.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scheduler: str | None = None
    token_file: Path | None = None
    name: str | None = None
    on_done: tuple[str, ...] = ()  # a command and its words, run by the scheduler when a job has ended
    shares: dict[str, Path] = {}  # a folder as the data server names it, and where it is here
    profiles: Path | None = None  # the folder of microscope profiles
    presets: Path | None = None  # the folder of the lab's own presets
    calibration: Path | None = None  # a folder of camera maps in PYME's layout


@dataclass(frozen=True)
class Wanted:
    """What a caller said about the cluster it wants; `discover` lets mDNS propose one."""

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    environ_url: str | None = None
    environ_token: str | None = field(default=None, repr=False)
    name: str | None = None
    discover: bool = True


@dataclass(frozen=True)
class Located:
    """A scheduler that answered, how it was found, and the token for it, if there is one."""

    url: str
    identity: Identity
    source: str
    token: str | None = field(default=None, repr=False)

    @property
    def cluster_id(self) -> str:
        """The cluster's id."""
        return self.identity.cluster_id

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.identity.name


def read_config(folder: Path | None) -> FileConfig:
    """Return the configuration file, or an empty one if there is none.

    Raises
    ------
    Invalid
        If it cannot be understood; names the file and the key.
    """
    if folder is None or not (path := folder / CONFIG_FILE).exists():
        return FileConfig()
    try:
        return FileConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        fault = error.errors()[0]
        raise Invalid(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    except (OSError, ValueError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error


class Locator:
    """Looks for a scheduler; what it looks with (identity requests, mDNS, a person) can be replaced in tests."""

    def __init__(
        self,
        places: Places,
        *,
        role: Role,
        identify: Identify = identity_at,
        browse: Browse = browse,
        ask: Ask | None = None,
        own: Callable[[], list[str]] = own_addresses,
    ) -> None:
        self._places = places
        self._role = role
        self._identify = identify
        self._browse = browse
        self._ask = ask
        self._own = own
        self._known = KnownClusters(places.known_clusters)

    async def locate(self, wanted: Wanted) -> Located:
        """Return the scheduler that is meant.

        Raises
        ------
        Unavailable
            If it does not answer, or none was found; says what was tried.
        Conflict
            If several clusters could be meant and nobody is there to ask.
        """
        config = read_config(self._places.config)
        name = wanted.name or config.name
        given = (
            (wanted.url, "the address given"),
            (wanted.environ_url, "CLUSTEROFONE_SCHEDULER"),
            (config.scheduler, str(self._places.config / CONFIG_FILE)),
        )
        for url, source in given:
            if url:
                return await self._at(normalised_url(url), source, wanted, config)
        tried = ["an address (--scheduler)", "CLUSTEROFONE_SCHEDULER", f"{self._places.config / CONFIG_FILE}"]
        for runtime in self._runtimes(name):
            located = await self._here(runtime, wanted, config)
            if located is not None:
                return located
        tried.append("a cluster of yours on this machine")
        if wanted.discover:
            found = await self._announced(name, tried)
            if found is not None:
                return await self._at(await reachable(found, self._identify), "mDNS", wanted, config)
            tried.append("the addresses of clusters joined before")
            located = await self._remembered(name, wanted, config)
            if located is not None:
                return located
        raise Unavailable(
            f"no scheduler {f'of the name {name} ' if name else ''}was found; tried: {', '.join(tried)}. "
            "Start one with clusterofone (with --lan to be found from other machines), or give --scheduler URL"
        )

    async def again(self, cluster_id: str, *, discover: bool) -> str | None:
        """Return where a cluster that was found before is now, or None; only its id counts."""
        candidates = [runtime.url for runtime in self._runtimes(None) if runtime.cluster_id == cluster_id]
        for url in candidates:
            if await self._is_at(url, cluster_id):
                return url
        if not discover:
            return None
        try:
            announced = await self._browse()
            moved = next((found for found in announced if found.cluster_id == cluster_id), None)
            return await reachable(moved, self._identify) if moved is not None else None
        except Unavailable:
            return None

    async def _at(self, url: str, source: str, wanted: Wanted, config: FileConfig) -> Located:
        identity = await self._identify(url)
        if identity.role != "scheduler":
            raise Invalid(f"{url} ({source}) is a {identity.role}, not a scheduler", field="url")
        token = wanted.token or wanted.environ_token or _token_in(config) or self._token_for(url, identity)
        return Located(url, identity, source, token)

    async def _here(self, runtime: Runtime, wanted: Wanted, config: FileConfig) -> Located | None:
        if not await self._is_at(runtime.url, runtime.cluster_id):
            return None
        return await self._at(runtime.url, "your cluster on this machine", wanted, config)

    async def _announced(self, name: str | None, tried: list[str]) -> Found | None:
        try:
            found = await self._browse()
        except Unavailable as error:
            tried.append(f"mDNS ({error.detail})")
            return None
        tried.append("mDNS")
        try:
            return await self._chosen(found, name)
        except NotFound as error:
            if found:
                tried[-1] = f"mDNS ({error.detail})"
            return None

    async def _remembered(self, name: str | None, wanted: Wanted, config: FileConfig) -> Located | None:
        there: list[Found] = []
        for cluster_id, cluster in self._known.all().items():
            wrong_name = name is not None and cluster.name != name
            if not wrong_name and cluster.url and await self._is_at(cluster.url, cluster_id):
                there.append(Found(cluster_id, cluster.name, (cluster.url,), 0))
        if not there:
            return None
        chosen = await self._chosen(there, name)
        return await self._at(chosen.urls[0], "joined before", wanted, config)

    async def _chosen(self, found: list[Found], name: str | None) -> Found:
        """Ask, if one must, in a thread: a person may take long, and Ctrl-C must work meanwhile."""
        known = self._known.all()
        if self._ask is None:
            return choose(found, name=name, known=known, ask=None)
        thread = DaemonThread("ask")
        try:
            return await thread.call(lambda: choose(found, name=name, known=known, ask=self._ask))
        finally:
            thread.close()

    async def _is_at(self, url: str, cluster_id: str) -> bool:
        try:
            return (await self._identify(url)).cluster_id == cluster_id
        except ClusterError:
            return False

    def _runtimes(self, name: str | None) -> Iterator[Runtime]:
        for path in sorted((self._places.state / "clusters").glob("*/runtime.json")):
            runtime = read_runtime(path)
            if runtime is not None and name in {None, runtime.name}:
                yield runtime

    def _token_for(self, url: str, identity: Identity) -> str | None:
        for runtime in self._runtimes(None):
            is_there = self._places.secret(runtime.name).exists()
            if runtime.cluster_id == identity.cluster_id and self._is_here(url) and is_there:
                return trust.own_token(self._places.cluster(runtime.name), self._role)
        known = self._known.all().get(identity.cluster_id)
        return known.token if known else None

    def _is_here(self, url: str) -> bool:
        host = urlsplit(url).hostname or ""
        return is_loopback(host) or host in self._own()


def _token_in(config: FileConfig) -> str | None:
    if config.token_file is None:
        return None
    try:
        return config.token_file.expanduser().read_text(encoding="utf-8").strip() or None
    except OSError as error:
        raise Invalid(f"the token file {config.token_file} cannot be read: {error.strerror}") from error
