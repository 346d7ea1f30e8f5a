"""Fitting on the cores of a Dask cluster that somebody has already, on SLURM, PBS or LSF by dask-jobqueue.

Each thread of the Dask cluster is a *lane*: a worker of ours, registered like any other, that leases, fetches and
commits here, and has its ranges fitted there. So the promises are those of any worker: a lane that is lost loses a
lease. The scheduler, the data server and the tokens are never reached from Dask's side, which need not be able to;
frames and rows travel over Dask's own connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.arrays import FrameRange, TaskResult
from cluster.config import Places, WorkerSettings
from cluster.errors import Invalid, Unavailable
from cluster.machine import core_count
from cluster.protocol import JobSpec
from cluster.worker.engine import Abilities, Engine, Maps, keep_compiled_code
from cluster.worker.run import run as run_worker

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

LOCAL: Final = "local"
_CONNECT_S: Final = 10.0
_LOOK_EVERY_S: Final = 2.0
_LOST_TRIES: Final = 3
_INSTALL: Final = "pip install 'clusterofone[dask]'"
Say = Callable[[str], None]


async def run(
    settings: WorkerSettings,
    address: str,
    *,
    most: int | None,
    stop: asyncio.Event,
    ready: Callable[[dict[str, Any]], None],
    say: Say,
) -> None:
    """Work for a cluster on Dask's threads until `stop`: as many lanes as it has threads, at most `most`.

    `address` is that of Dask's scheduler, the path of its scheduler file, or "local". Threads that come and go, as
    they do where Dask adapts, are followed.

    Raises
    ------
    Invalid
        If Dask is not installed, or its workers are of several kinds or lack clusterofone.
    Unavailable
        If Dask's scheduler cannot be reached.
    """
    closers = contextlib.ExitStack()
    try:
        client = await asyncio.to_thread(_connected, address, closers)
        engine = DaskEngine(client)
        abilities = await asyncio.to_thread(engine.wait_for_workers, stop)
        if abilities is None:
            return
        say(f"Dask at {client.scheduler.address} fits: {abilities.cpu}; Ctrl-C stops.")
        ready({"dask": client.scheduler.address})
        await _Lanes(settings, engine, most, say).follow(stop)
    finally:
        await asyncio.to_thread(closers.close)


class DaskEngine:
    """Stands where the worker's own engine does; the fitting happens on Dask."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._abilities: Abilities | None = None
        self._books = threading.Lock()

    def warm_up(self, cache: Path) -> None:
        """Do nothing: Dask's workers compile when they first fit, and keep it in their own cache."""

    def abilities(self) -> Abilities:
        """Return what all of Dask's workers are.

        Raises
        ------
        Invalid
            If they differ, or one lacks clusterofone; names them.
        """
        with self._books:
            if self._abilities is None:
                self._abilities = _one_of(self._client.run(_abilities_there, on_error="return"))
            return self._abilities

    def threads(self) -> int:
        """Return how many threads Dask has now.

        Raises
        ------
        Unavailable
            If its scheduler is gone.
        """
        try:
            return sum(self._client.nthreads().values())
        except (OSError, RuntimeError) as error:
            raise Unavailable(f"the Dask cluster is gone: {error}") from error

    def wait_for_workers(self, stop: asyncio.Event) -> Abilities | None:
        """Return what Dask's workers are, once there is one: a batch system may take hours. None: told to stop."""
        while not stop.is_set():
            try:
                self._client.wait_for_workers(1, timeout=_LOOK_EVERY_S)
            except TimeoutError:
                continue
            return self.abilities()
        return None

    def localise(
        self, spec: JobSpec, start: int, stop: int, frames: FrameRange, maps: Maps | None = None
    ) -> TaskResult:
        """Localise frames [start, stop) on one of Dask's threads; tried again when the machine of that is lost.

        Raises
        ------
        fitting.errors.FittingError
            As the worker's own engine does.
        Unavailable
            If Dask lost it several times over.
        """
        for _ in range(_LOST_TRIES):
            (held,) = self._client.scatter([frames], direct=False, hash=False)
            future = self._client.submit(
                _localise_there, spec, start, stop, held, dict(maps or {}), pure=False
            )
            result = _result_of(future)
            if result is not None:
                return result
            logger.warning("Dask lost frames %d to %d of %s; trying again", start, stop, spec.series)
        raise Unavailable(f"Dask lost frames {start} to {stop} of {spec.series} {_LOST_TRIES} times")


class _Lanes:
    """As many workers as Dask has threads."""

    def __init__(self, settings: WorkerSettings, engine: DaskEngine, most: int | None, say: Say) -> None:
        self._settings = settings
        self._engine = engine
        self._most = most
        self._say = say
        self._open: list[tuple[asyncio.Event, asyncio.Task[None]]] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def follow(self, stop: asyncio.Event) -> None:
        """Keep the lanes at Dask's number of threads until told to stop; raises what ends a lane."""
        try:
            while not stop.is_set():
                threads = await asyncio.to_thread(self._engine.threads)
                self._set(threads if self._most is None else min(threads, self._most))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK_EVERY_S)
                for _, lane in self._open:
                    if lane.done():
                        lane.result()
        finally:
            self._set(0)
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _set(self, count: int) -> None:
        if count != len(self._open):
            self._say(f"{count} lanes on Dask")
        while len(self._open) < count:
            end = asyncio.Event()
            lane = run_worker(
                self._settings, stop=end, ready=lambda _: None, say=self._say, engine=self._engine
            )
            self._open.append((end, asyncio.create_task(lane)))
        while len(self._open) > count:
            end, lane_task = self._open.pop()
            end.set()
            self._closing.add(lane_task)
            lane_task.add_done_callback(self._closing.discard)


def _connected(address: str, closers: contextlib.ExitStack) -> Client:
    """Return a connection to Dask; how to end it, and what was made for it, goes to `closers`."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise Invalid(f"--dask needs Dask's scheduler: {_INSTALL}", field="dask") from error
    if address == LOCAL:
        cluster = LocalCluster(n_workers=core_count(), threads_per_worker=1, dashboard_address="127.0.0.1:0")
        closers.callback(cluster.close)
        where: dict[str, Any] = {"address": cluster}
    else:
        where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = Client(**where, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise Unavailable(f"there is no Dask scheduler at {address}: {error}") from error
    closers.callback(client.close)
    return client


def _one_of(said: dict[str, Any]) -> Abilities:
    for worker, ability in said.items():
        if isinstance(ability, Exception):
            raise Invalid(
                f"the Dask worker {worker} cannot fit: {type(ability).__name__}: {ability}. "
                f"It needs the environment of this machine: pip install clusterofone=={version('clusterofone')}",
                field="dask",
            )
    kind, *others = said.values()
    if any(other != kind for other in others):
        named = "; ".join(f"{worker}: {kind.cpu}, {kind.versions}" for worker, kind in said.items())
        raise Invalid(
            f"Dask's workers differ, and would not all give the same numbers: {named}. "
            "Set NUMBA_CPU_NAME=generic for all of them, or use those of one kind",
            field="dask",
        )
    return cast("Abilities", kind)


def _result_of(future: Future) -> TaskResult | None:
    """Return the result, or None where Dask lost the worker that had the frames or made the result."""
    from distributed import CancelledError, KilledWorker

    try:
        result: TaskResult = future.result()
    except (CancelledError, KilledWorker):
        return None
    return result


# --- on Dask's workers ------------------------------------------------------------------------------------------


@cache
def _engine_there() -> Engine:
    """Return the engine of a process of Dask's, its kernels compiled or loaded before it is first used."""
    folder = Places.of_user(os.environ).cache
    keep_compiled_code(folder, os.environ)
    engine = Engine()
    engine.warm_up(folder)
    return engine


_making = threading.Lock()


def _localise_there(spec: JobSpec, start: int, stop: int, frames: FrameRange, maps: Maps) -> TaskResult:
    with _making:  # threads of one process make one engine
        engine = _engine_there()
    return engine.localise(spec, start, stop, frames, maps)


def _abilities_there() -> Abilities:
    return Engine().abilities()
