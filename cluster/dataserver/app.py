"""The data server's HTTP interface, thin over a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response

from cluster.arrays import FRAMES_MEDIA_TYPE, FrameRange
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.metrics import DataServerMetrics
from cluster.dataserver.ranges import MAY_READ, Asked, Codec, UsualRanges, answer
from cluster.dataserver.reading import Reading
from cluster.dataserver.responses import frame_png
from cluster.dataserver.store import SeriesStore
from cluster.dataserver.writing import Writing, reads_itself
from cluster.dataserver.writing import router as writing_routes
from cluster.errors import Unavailable
from cluster.http import Gate, install, require
from cluster.metrics import install_metrics
from cluster.openapi import raw_reply
from cluster.protocol import (
    CalibrationFile,
    CalibrationOrder,
    CalibrationRun,
    CalibrationRuns,
    Identity,
    RootSpace,
    SeriesEvent,
    SeriesFacts,
    SeriesListing,
    SeriesPlace,
)
from cluster.zero_copy import has_zero_copy


def create_app(
    store: SeriesStore,
    calibrations: Calibrations,
    gate: Gate,
    identity: Callable[[], Identity],
    *,
    reading: Reading | None = None,
    acquisitions: Acquisitions | None = None,
    metrics: DataServerMetrics | None = None,
) -> FastAPI:
    """Build the application around a store and calibrations that already exist; calibrations end with it.

    Without `acquisitions` nothing can be written.

    There are no `/docs` here: this server speaks to workers; the scheduler documents the public interface.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await calibrations.close()

    app = FastAPI(
        title="clusterofone data server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.reading = reading or Reading(store)
    app.state.calibrations = calibrations
    app.state.identity = identity
    app.state.metrics = metrics = metrics or DataServerMetrics()
    metrics.watch(store.roots, lambda: store.open_series)
    install(app, gate, role="dataserver")
    app.state.writing = Writing(acquisitions or Acquisitions((), allowed=False))
    gate.reads_itself = reads_itself
    app.router.routes.append(UsualRanges(gate, app.state.reading, metrics))  # first, to be asked first
    for router in (_public, _placing, writing_routes, _look, _router, _making):
        app.include_router(router, dependencies=[Depends(has_joined)] if router is writing_routes else [])
    install_metrics(app, metrics.registry, only=[Depends(has_joined), _LOOK])
    return app


async def has_joined(request: Request) -> None:
    """A data server that has not registered yet recognises no token: that is for later, not forbidden."""
    gate: Gate = request.app.state.gate
    if not gate.verifiers and not gate.insecure:
        raise Unavailable("this data server has not reached its scheduler yet")


async def _reading(request: Request) -> Reading:
    reading: Reading = request.app.state.reading
    return reading


async def _calibrations(request: Request) -> Calibrations:
    calibrations: Calibrations = request.app.state.calibrations
    return calibrations


ReadingDep = Annotated[Reading, Depends(_reading)]
CalibrationsDep = Annotated[Calibrations, Depends(_calibrations)]
SeriesPath = Annotated[str, Path(max_length=1024)]
Start = Annotated[int, Query(ge=0, lt=2**31)]
Stop = Annotated[int | None, Query(ge=0, lt=2**31)]
Fingerprint = Annotated[str | None, Query(max_length=1024)]

_public = APIRouter(prefix="/api/v1")
_router = APIRouter(prefix="/api/v1", dependencies=[Depends(has_joined), Depends(require(*MAY_READ))])
_placing = APIRouter(prefix="/api/v1", dependencies=[Depends(has_joined), Depends(require("worker"))])
_making = APIRouter(prefix="/api/v1/calibration-runs", dependencies=[Depends(has_joined)])
_LOOK: Final = Depends(require("viewer", "submitter"))
_look = APIRouter(prefix="/api/v1", dependencies=[Depends(has_joined), _LOOK])


@_public.get("/identity")
async def identify(request: Request) -> Identity:
    """Say which cluster this data server belongs to; no token needed."""
    found: Identity = request.app.state.identity()
    return found


@_router.get("/series")
async def list_series(
    reading: ReadingDep, under: Annotated[str, Query(max_length=1024)] = "", calibrations: bool = False
) -> SeriesListing:
    """List the folders and series in a folder; `calibrations`: also the files that may be a shift field or width curves."""
    return await reading(reading.store.listing, under, calibrations=calibrations)


@_look.get("/roots")
async def list_roots(reading: ReadingDep) -> list[RootSpace]:
    """Say which folders are served, and how much room their disks have."""
    return await reading(reading.store.space)


@_router.get("/calibrations/{path:path}")
async def get_calibration(path: SeriesPath, reading: ReadingDep) -> CalibrationFile:
    """Return a shift field or width curves."""
    return await reading(reading.store.calibration, path)


@_router.get("/series/{path:path}/frames", **raw_reply(FRAMES_MEDIA_TYPE))
async def get_frames(
    path: SeriesPath,
    request: Request,
    reading: ReadingDep,
    start: Start = 0,
    stop: Stop = None,
    codec: Codec = "none",
    stored: bool = False,
    fingerprint: Fingerprint = None,
) -> Response:
    """Return a range of frames as one checksummed body of `cluster.arrays`, or `cluster.stored_frames` if they may come as they lie."""
    asked = Asked(path, start, stop, codec=codec, stored=stored, fingerprint=fingerprint)
    return await answer(asked, reading, request.app.state.metrics, by_system=has_zero_copy(request.scope))


@_router.get("/series/{path:path}/frames/{number:int}.png", **raw_reply("image/png"))
async def get_frame_png(path: SeriesPath, number: int, reading: ReadingDep) -> Response:
    """Return one frame as a picture to look at."""
    start, stop, size = await reading.of(path, reading.store.extent, number, number + 1)
    async with reading.budget.taken(size):
        frames: FrameRange = await reading.of(path, reading.store.frames, start, stop)
        picture = await reading(frame_png, frames.frames[0])
    return Response(picture, media_type="image/png")


@_placing.get("/series/{path:path}/place")
async def get_place(path: SeriesPath, reading: ReadingDep, fingerprint: Fingerprint = None) -> SeriesPlace:
    """Say in which files the frames lie, to a worker that may be able to open them itself."""
    return await reading.of(path, reading.store.place, pinned=fingerprint)


@_router.get("/series/{path:path}/events")
async def get_events(
    path: SeriesPath, reading: ReadingDep, fingerprint: Fingerprint = None
) -> list[SeriesEvent]:
    """Return the acquisition's events."""
    return await reading.of(path, reading.store.events, pinned=fingerprint)


@_router.get("/series/{path:path}")
async def get_facts(path: SeriesPath, reading: ReadingDep, follow: bool = False) -> SeriesFacts:
    """Say what a series is; `follow`: as one that another program may still be writing."""
    return await reading.of(path, reading.store.facts, follow=follow)


@_making.post("", status_code=201, dependencies=[Depends(require("submitter"))])
async def start_calibration(order: CalibrationOrder, calibrations: CalibrationsDep) -> CalibrationRun:
    """Queue a calibration of series that are here."""
    return await calibrations.start(order)


@_making.get("", dependencies=[_LOOK])
async def list_calibration_runs(calibrations: CalibrationsDep) -> CalibrationRuns:
    """List the calibrations that are known here, newest first, without their numbers."""
    return CalibrationRuns(calibrations=calibrations.runs())


@_making.get("/{run_id}", dependencies=[_LOOK])
async def show_calibration_run(run_id: str, calibrations: CalibrationsDep) -> CalibrationRun:
    """Return a calibration."""
    return calibrations.run(run_id)


@_making.delete("/{run_id}", dependencies=[Depends(require("submitter"))])
async def cancel_calibration_run(run_id: str, calibrations: CalibrationsDep) -> CalibrationRun:
    """End a calibration, unless it has ended."""
    return await calibrations.cancel(run_id)


@_making.get("/{run_id}/report.png", dependencies=[_LOOK], **raw_reply("image/png"))
async def get_calibration_report(run_id: str, calibrations: CalibrationsDep) -> Response:
    """Return the report of a calibration that is done."""
    return Response(await calibrations.picture(run_id), media_type="image/png")
