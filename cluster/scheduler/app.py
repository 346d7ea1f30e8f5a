"""The scheduler's routes: decode, ask the service, encode. Errors rise as themselves; `cluster.http` writes them."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from cluster.arrays import MAX_RESULT_BYTES
from cluster.calibrating.kinds import kind_infos
from cluster.errors import Conflict
from cluster.http import Gate, install, require
from cluster.protocol import (
    CalibrationKindInfo,
    CalibrationRequest,
    CalibrationRun,
    CalibrationRuns,
    Committed,
    DataServerRegistered,
    DataServerRegistration,
    DriftMethod,
    FitInfo,
    Identity,
    Job,
    JobCheck,
    JobDetail,
    JobDrift,
    JobHistograms,
    JobList,
    JobRequest,
    JobSpec,
    JoinDecision,
    JoinReply,
    JoinRequest,
    KeepAlive,
    KeptAlive,
    LeaseRequest,
    Leases,
    PageRegistration,
    PendingJoins,
    PictureQuery,
    PresetInfo,
    Preview,
    PreviewRequest,
    ProfileListing,
    TaskFailure,
    Worker,
    WorkerRegistered,
    WorkerRegistration,
)
from cluster.results.picture_files import png
from cluster.scheduler import pictures
from cluster.scheduler.pages import install_documentation
from cluster.scheduler.service import Service
from cluster.scheduler.sheets import fit_infos

VIEWER = Depends(require("viewer", "submitter"))
SUBMITTER = Depends(require("submitter"))
WORKER = Depends(require("worker"))
OWNER = Depends(require())

JOIN_STATUS = {"waiting": 202, "approved": 200, "refused": 403}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Scheduler = Annotated[Service, Depends(_service)]
jobs = APIRouter(prefix="/api/v1", tags=["jobs"])
calibrations = APIRouter(prefix="/api/v1/calibrations", tags=["calibrations"])
cluster = APIRouter(prefix="/api/v1", tags=["cluster"])
workers = APIRouter(prefix="/api/v1/workers", tags=["workers"])


# --- jobs -------------------------------------------------------------------------------------------------------


@jobs.post("/jobs", status_code=201, dependencies=[SUBMITTER])
async def submit_job(
    request: JobRequest,
    scheduler: Scheduler,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Job:
    """Queue a job: localise this series with these settings."""
    job, new = await scheduler.submit(request, idempotency_key)
    response.status_code = 201 if new else 200
    response.headers["location"] = f"/api/v1/jobs/{job.id}"
    return job


@jobs.post("/jobs/check", dependencies=[SUBMITTER])
async def check_job(request: JobRequest, scheduler: Scheduler) -> JobCheck:
    """Say what a job would be, and what is wrong with it, without queueing it."""
    return await scheduler.check(request)


@jobs.get("/jobs", dependencies=[VIEWER])
async def list_jobs(scheduler: Scheduler) -> JobList:
    """List the jobs, newest first."""
    return JobList(jobs=scheduler.jobs())


@jobs.get("/jobs/{job_id}", dependencies=[VIEWER])
async def show_job(job_id: str, scheduler: Scheduler) -> JobDetail:
    """Return a job with everything that decides its result."""
    return scheduler.state.detail(job_id)


@jobs.delete("/jobs/{job_id}", dependencies=[SUBMITTER])
async def cancel_job(job_id: str, scheduler: Scheduler) -> Job:
    """Cancel a job; the finished frames are kept as <stem>_partial.h5r."""
    return await scheduler.cancel(job_id)


@jobs.post("/jobs/{job_id}/retry", dependencies=[SUBMITTER])
async def retry_job(job_id: str, scheduler: Scheduler) -> Job:
    """Put the failed tasks of a job back to work."""
    return await scheduler.retry(job_id)


@jobs.get("/jobs/{job_id}/events", dependencies=[VIEWER])
async def follow_job(job_id: str, scheduler: Scheduler) -> StreamingResponse:
    """Send the job at each change (server-sent events), until it ends."""
    scheduler.state.job(job_id)

    async def lines() -> AsyncIterator[str]:
        async for job in scheduler.events(job_id):
            yield ": still here\n\n" if job is None else f"event: job\ndata: {job.model_dump_json()}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


@jobs.get("/jobs/{job_id}/results.h5r", dependencies=[VIEWER])
async def download_results(job_id: str, scheduler: Scheduler) -> FileResponse:
    """Send the result file of a job that has ended."""
    path = finished_file(scheduler, job_id)
    return FileResponse(path, media_type="application/x-hdf5", filename=path.name)


@jobs.get("/jobs/{job_id}/results.csv", dependencies=[VIEWER])
async def download_csv(job_id: str, scheduler: Scheduler) -> StreamingResponse:
    """Send the localisations of a job that has ended as ThunderSTORM's table."""
    path = finished_file(scheduler, job_id)
    name = re.sub(r"[^\w.-]", "_", path.stem, flags=re.ASCII)
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(pictures.csv_of(path), media_type="text/csv; charset=utf-8", headers=headers)


@jobs.get("/jobs/{job_id}/results.{kind}", dependencies=[VIEWER])
async def download_table(
    job_id: str, kind: Literal["hdf5", "yaml", "parquet", "smlm"], scheduler: Scheduler
) -> FileResponse:
    """Send the localisations of a job that has ended: Picasso's (hdf5, and the yaml that belongs to it), Parquet, SMLM."""
    path = finished_file(scheduler, job_id)
    made = await to_thread.run_sync(pictures.table_of, path, kind)
    return FileResponse(
        made.path, media_type=made.media_type, filename=made.path.name, background=BackgroundTask(made.remove)
    )


@jobs.get("/jobs/{job_id}/localisations", dependencies=[VIEWER])
def download_rows(job_id: str, scheduler: Scheduler, from_row: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Send the rows so far (npy), in the order of their commits; X-Next-Row says where to go on."""
    rows, after = scheduler.results.rows_from(scheduler.state.job(job_id).sheet, from_row)
    body = io.BytesIO()
    np.save(body, rows, allow_pickle=False)
    return Response(body.getvalue(), media_type="application/x-npy", headers={"x-next-row": str(after)})


@jobs.get("/jobs/{job_id}/render.png", dependencies=[VIEWER])
def render_job(job_id: str, scheduler: Scheduler, query: Annotated[PictureQuery, Query()]) -> Response:
    """Draw the localisations so far."""
    look = pictures.look_of(query)
    picture = scheduler.looks.picture(job_id, query, look)
    return Response(png(picture, look.tones), media_type="image/png")


@jobs.get("/jobs/{job_id}/render.tif", dependencies=[VIEWER])
def render_tiff(job_id: str, scheduler: Scheduler, query: Annotated[PictureQuery, Query()]) -> Response:
    """Draw the localisations so far as grey values to measure in, for ImageJ and others."""
    picture = scheduler.looks.picture(job_id, query, pictures.look_of(query))
    return Response(pictures.tiff_of(picture), media_type="image/tiff")


@jobs.get("/jobs/{job_id}/histograms", dependencies=[VIEWER])
def count_localisations(
    job_id: str,
    scheduler: Scheduler,
    filters: Annotated[str | None, Query(max_length=1024)] = None,
    bins: Annotated[int, Query(ge=2, le=1000)] = 60,
) -> JobHistograms:
    """Count the localisations so far by photons, width, precision, background, z and frame: all, and those that the filters choose."""
    return scheduler.looks.histograms(job_id, filters, bins)


@jobs.get("/jobs/{job_id}/drift", dependencies=[VIEWER])
def show_drift(job_id: str, scheduler: Scheduler, method: DriftMethod = "correlation") -> JobDrift:
    """Estimate by how much the sample moved, from the localisations so far or from the markers of a job that has ended; no row is changed."""
    return scheduler.looks.drift(job_id, method).message()


@jobs.get("/jobs/{job_id}/spec", dependencies=[WORKER])
async def show_spec(job_id: str, scheduler: Scheduler) -> JobSpec:
    """Return all that a worker must know of a job."""
    return scheduler.spec(job_id)


@jobs.post("/preview", dependencies=[SUBMITTER])
async def preview(request: PreviewRequest, scheduler: Scheduler) -> Preview:
    """Localise a few frames and return what was found: the Test button."""
    return await scheduler.previews.run(request)


@jobs.get("/fits", dependencies=[VIEWER])
async def list_fits(scheduler: Scheduler) -> list[FitInfo]:
    """List the types of fit with the JSON schemas of their settings."""
    return fit_infos(one.fit for one in scheduler.foreign_fits().values())


@jobs.get("/presets", dependencies=[VIEWER])
async def list_presets(scheduler: Scheduler) -> list[PresetInfo]:
    """List the presets, built-in and the lab's own, with their settings."""
    return await scheduler.presets()


@jobs.get("/profiles", dependencies=[VIEWER])
async def list_profiles(
    scheduler: Scheduler, series: Annotated[str | None, Query(max_length=1024)] = None
) -> ProfileListing:
    """List the microscope profiles; with a series, which are for it and what it would get."""
    return await scheduler.profiles(series)


# --- calibrations -----------------------------------------------------------------------------------------------


@calibrations.get("/kinds", dependencies=[VIEWER])
async def list_calibration_kinds() -> list[CalibrationKindInfo]:
    """List the kinds of calibration with the JSON schemas of their options."""
    return kind_infos()


@calibrations.post("", status_code=201, dependencies=[SUBMITTER])
async def start_calibration(
    request: CalibrationRequest, scheduler: Scheduler, response: Response
) -> CalibrationRun:
    """Make a calibration of series: a PSF, a shift field or camera maps."""
    run = await scheduler.calibrations.start(request)
    response.headers["location"] = f"/api/v1/calibrations/{run.id}"
    return run


@calibrations.get("", dependencies=[VIEWER])
async def list_calibrations(scheduler: Scheduler) -> CalibrationRuns:
    """List the calibrations that data servers know of, newest first, without their numbers."""
    return CalibrationRuns(calibrations=await scheduler.calibrations.all())


@calibrations.get("/{calibration_id}", dependencies=[VIEWER])
async def show_calibration(calibration_id: str, scheduler: Scheduler) -> CalibrationRun:
    """Return a calibration: its state, what was found, and the files."""
    return await scheduler.calibrations.one(calibration_id)


@calibrations.delete("/{calibration_id}", dependencies=[SUBMITTER])
async def cancel_calibration(calibration_id: str, scheduler: Scheduler) -> CalibrationRun:
    """Cancel a calibration that is queued or running; one that has ended stays as it is."""
    return await scheduler.calibrations.cancel(calibration_id)


@calibrations.get("/{calibration_id}/report.png", dependencies=[VIEWER])
async def show_calibration_report(calibration_id: str, scheduler: Scheduler) -> Response:
    """Send the report of a calibration that is done."""
    return Response(await scheduler.calibrations.report(calibration_id), media_type="image/png")


# --- the cluster ------------------------------------------------------------------------------------------------


@cluster.get("/identity")
async def identity(scheduler: Scheduler) -> Identity:
    """Say which cluster this is; no token needed."""
    return scheduler.identity()


@cluster.post(
    "/join", response_model=JoinReply, responses={202: {"model": JoinReply}, 403: {"model": JoinReply}}
)
async def ask_to_join(ask: JoinRequest, request: Request, scheduler: Scheduler) -> JSONResponse:
    """Ask to be let in; no token needed. 202 while a person has not decided."""
    address = request.client.host if request.client else "unknown"
    reply = await scheduler.joins.ask(ask, address)
    return JSONResponse(reply.model_dump(mode="json"), status_code=JOIN_STATUS[reply.state])


@cluster.get("/join", dependencies=[OWNER])
async def list_joins(scheduler: Scheduler) -> PendingJoins:
    """List the machines that wait to be let in."""
    return scheduler.joins.waiting()


@cluster.post("/join/{join_id}", status_code=204, dependencies=[OWNER])
async def decide_join(join_id: str, decision: JoinDecision, scheduler: Scheduler) -> None:
    """Let a machine in, or not."""
    await scheduler.joins.decide(join_id, decision)


@cluster.post("/dataservers", dependencies=[OWNER])
async def register_dataserver(
    registration: DataServerRegistration, scheduler: Scheduler
) -> DataServerRegistered:
    """Note where a data server is."""
    return await scheduler.register_dataserver(registration)


@cluster.post("/pages", status_code=204, dependencies=[OWNER])
async def register_page(registration: PageRegistration, scheduler: Scheduler) -> None:
    """Note where the page is, for `identity` to say."""
    scheduler.page_url = registration.url


# --- workers ----------------------------------------------------------------------------------------------------


@workers.get("", dependencies=[VIEWER])
async def list_workers(scheduler: Scheduler) -> list[Worker]:
    """List the workers."""
    return scheduler.workers.all()


@workers.post("", dependencies=[WORKER])
async def register_worker(card: WorkerRegistration, scheduler: Scheduler) -> WorkerRegistered:
    """Take in a worker."""
    return await scheduler.workers.register(card)


@workers.post("/{worker_id}/tasks", dependencies=[WORKER])
async def lease_tasks(worker_id: str, ask: LeaseRequest, request: Request, scheduler: Scheduler) -> Leases:
    """Lease tasks; the request is held until there is work."""
    return await scheduler.workers.lease(worker_id, ask, request.is_disconnected)


@workers.post("/{worker_id}/keepalive", dependencies=[WORKER])
async def keep_alive(worker_id: str, message: KeepAlive, scheduler: Scheduler) -> KeptAlive:
    """Renew the leases a worker still works on."""
    return await scheduler.workers.keep_alive(worker_id, message)


@workers.post("/{worker_id}/tasks/{job_id}/{task_id}/result", dependencies=[WORKER])
async def commit_result(
    worker_id: str,
    job_id: str,
    task_id: int,
    request: Request,
    scheduler: Scheduler,
    attempt: Annotated[int, Query(ge=1)],
    x_content_sha256: Annotated[str, Header(pattern="^[0-9a-fA-F]{64}$")],
    wanted: Annotated[int, Query(alias="next", ge=0, le=64)] = 0,
) -> Committed:
    """Hand in the result of a task, and lease the next ones."""
    body = await request.body()
    return await scheduler.workers.commit(worker_id, job_id, task_id, attempt, body, x_content_sha256, wanted)


@workers.post("/{worker_id}/tasks/{job_id}/{task_id}/failure", status_code=204, dependencies=[WORKER])
async def fail_task(
    worker_id: str, job_id: str, task_id: int, failure: TaskFailure, scheduler: Scheduler
) -> None:
    """Say that an attempt came to nothing."""
    await scheduler.workers.fail(worker_id, job_id, task_id, failure)


@workers.delete("/{worker_id}", status_code=204, dependencies=[WORKER])
async def leave(worker_id: str, scheduler: Scheduler) -> None:
    """Leave as planned; leases are handed back at once."""
    await scheduler.workers.leave(worker_id)


# --- the app ----------------------------------------------------------------------------------------------------


def create_app(service: Service, gate: Gate) -> FastAPI:
    """Build the app around a service that exists; its life is the app's."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="clusterofone scheduler",
        version=service.cluster.versions.clusterofone,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service = service
    gate.body_limits = {**gate.body_limits, "/result": MAX_RESULT_BYTES}
    install(app, gate, role="scheduler")
    for router in (jobs, calibrations, cluster, workers):
        app.include_router(router)
    install_documentation(app)
    return app


def finished_file(scheduler: Service, job_id: str) -> Path:
    """Return the result file of a job; raises `Conflict` while there is none."""
    job = scheduler.state.view(job_id)
    if job.output is None:
        raise Conflict(f"job {job_id} is {job.state}: it has no result file yet", state=job.state)
    path = Path(job.output)
    if not path.is_file():
        raise Conflict(f"{path} is not where job {job_id} put it", state=job.state)
    return path
