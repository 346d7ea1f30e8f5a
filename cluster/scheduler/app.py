"""The scheduler's routes: decode, ask the service, encode. Errors rise as themselves; `cluster.http` writes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from cluster.arrays import MAX_RESULT_BYTES
from cluster.calibrating.kinds import kind_infos
from cluster.http import Gate, install
from cluster.metrics import install_metrics
from cluster.openapi import raw_body, raw_reply
from cluster.protocol import (
    CalibrationKindInfo,
    CalibrationRequest,
    CalibrationRun,
    CalibrationRuns,
    Committed,
    DataServerRegistered,
    DataServerRegistration,
    FitInfo,
    Identity,
    Job,
    JobCheck,
    JobDetail,
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
    LogTail,
    PageRegistration,
    PendingJoins,
    PresetInfo,
    Preview,
    PreviewRequest,
    ProfileListing,
    TaskFailure,
    Worker,
    WorkerRegistered,
    WorkerRegistration,
)
from cluster.scheduler.access import OWNER, SUBMITTER, VIEWER, WORKER, Scheduler
from cluster.scheduler.log_lines import KEPT_LINES
from cluster.scheduler.pages import install_documentation
from cluster.scheduler.result_routes import results
from cluster.scheduler.service import Service
from cluster.scheduler.sheets import fit_infos
from cluster.scheduler.shortcut import Shortcut

JOIN_STATUS = {"waiting": 202, "approved": 200, "refused": 403}


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


@jobs.get("/jobs", response_model=JobList, dependencies=[VIEWER])
async def list_jobs(scheduler: Scheduler) -> StreamingResponse:
    """List the jobs, newest first."""
    return StreamingResponse(_list_of(scheduler.jobs()), media_type="application/json")


async def _list_of(pages: Iterable[list[Job]]) -> AsyncIterator[str]:
    """Yield the pages as one `JobList`: all jobs of months at once would hold up everybody else."""
    before = '{"jobs":['
    for page in filter(None, pages):
        yield before + ",".join(job.model_dump_json() for job in page)
        before = ","
        await asyncio.sleep(0)
    yield "]}" if before == "," else before + "]}"


@jobs.get("/jobs/{job_id}", dependencies=[VIEWER])
async def show_job(job_id: str, scheduler: Scheduler) -> JobDetail:
    """Return a job with everything that decides its result."""
    return await scheduler.state.detail(job_id)


@jobs.delete("/jobs/{job_id}", dependencies=[SUBMITTER])
async def cancel_job(job_id: str, scheduler: Scheduler) -> Job:
    """Cancel a job; the finished frames are kept as <stem>_partial.h5r."""
    return await scheduler.cancel(job_id)


@jobs.post("/jobs/{job_id}/retry", dependencies=[SUBMITTER])
async def retry_job(job_id: str, scheduler: Scheduler) -> Job:
    """Put the failed tasks of a job back to work."""
    return await scheduler.retry(job_id)


@jobs.get("/jobs/{job_id}/events", dependencies=[VIEWER], **raw_reply("text/event-stream"))
async def follow_job(job_id: str, scheduler: Scheduler) -> StreamingResponse:
    """Send the job at each change (server-sent events), until it ends."""
    scheduler.state.job(job_id)

    async def lines() -> AsyncIterator[str]:
        async for job in scheduler.events(job_id):
            yield ": still here\n\n" if job is None else f"event: job\ndata: {job.model_dump_json()}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


@jobs.get("/jobs/{job_id}/spec", dependencies=[WORKER])
async def show_spec(job_id: str, scheduler: Scheduler) -> JobSpec:
    """Return all that a worker must know of a job."""
    return await scheduler.spec(job_id)


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


@calibrations.get("/{calibration_id}/report.png", dependencies=[VIEWER], **raw_reply("image/png"))
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


@cluster.get("/log", dependencies=[OWNER])
async def show_log(scheduler: Scheduler, lines: Annotated[int, Query(ge=1, le=KEPT_LINES)] = 200) -> LogTail:
    """Return the last lines of the scheduler's log."""
    return LogTail(lines=scheduler.log.last(lines))


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


@workers.post(
    "/{worker_id}/tasks/{job_id}/{task_id}/result",
    dependencies=[WORKER],
    **raw_body("application/octet-stream"),
)
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


@workers.post("/{worker_id}/drain", status_code=204, dependencies=[OWNER])
async def drain_worker(worker_id: str, scheduler: Scheduler) -> None:
    """Give a worker no more work; it finishes what it has begun. It works again once that is undone, or it is started anew."""
    await scheduler.workers.drain(worker_id)


@workers.delete("/{worker_id}/drain", status_code=204, dependencies=[OWNER])
async def undrain_worker(worker_id: str, scheduler: Scheduler) -> None:
    """Give a drained worker work again."""
    await scheduler.workers.undrain(worker_id)


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
    gate.public = frozenset({"/api/v1/join"})
    gate.body_limits = {**gate.body_limits, "/result": MAX_RESULT_BYTES}
    app.add_middleware(
        Shortcut, gate=gate, service=service
    )  # before the gate is: what is added last is outermost
    install(app, gate, role="scheduler")
    for router in (workers, jobs, results, calibrations, cluster):  # what is asked most is found first
        app.include_router(router)
    install_documentation(app)
    install_metrics(app, service.metrics.registry, only=[VIEWER])
    return app
