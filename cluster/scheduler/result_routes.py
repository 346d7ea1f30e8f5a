"""The scheduler's routes to what a job found: files, rows, pictures, counts, drift."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from cluster.errors import Conflict
from cluster.openapi import raw_reply
from cluster.protocol import DriftMethod, JobDrift, JobHistograms, PictureQuery
from cluster.scheduler import pictures
from cluster.scheduler.access import VIEWER, Scheduler
from cluster.scheduler.service import Service

TABLE_MEDIA_TYPES = (
    "application/x-hdf5",
    "application/yaml",
    "application/vnd.apache.parquet",
    "application/zip",
)
results = APIRouter(prefix="/api/v1", tags=["jobs"])


@results.get("/jobs/{job_id}/results.h5r", dependencies=[VIEWER], **raw_reply("application/x-hdf5"))
async def download_results(job_id: str, scheduler: Scheduler) -> FileResponse:
    """Send the result file of a job that has ended."""
    path = finished_file(scheduler, job_id)
    return FileResponse(path, media_type="application/x-hdf5", filename=path.name)


@results.get("/jobs/{job_id}/results.csv", dependencies=[VIEWER], **raw_reply("text/csv"))
async def download_csv(job_id: str, scheduler: Scheduler) -> StreamingResponse:
    """Send the localisations of a job that has ended as ThunderSTORM's table."""
    path = finished_file(scheduler, job_id)
    name = re.sub(r"[^\w.-]", "_", path.stem, flags=re.ASCII)
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(pictures.csv_of(path), media_type="text/csv; charset=utf-8", headers=headers)


@results.get("/jobs/{job_id}/results.{kind}", dependencies=[VIEWER], **raw_reply(*TABLE_MEDIA_TYPES))
async def download_table(
    job_id: str, kind: Literal["hdf5", "yaml", "parquet", "smlm"], scheduler: Scheduler
) -> FileResponse:
    """Send the localisations of a job that has ended: Picasso's (hdf5, and the yaml that belongs to it), Parquet, SMLM."""
    path = finished_file(scheduler, job_id)
    made = await to_thread.run_sync(pictures.table_of, path, kind)
    return FileResponse(
        made.path, media_type=made.media_type, filename=made.path.name, background=BackgroundTask(made.remove)
    )


@results.get(
    "/jobs/{job_id}/localisations",
    dependencies=[VIEWER],
    **raw_reply("application/x-npy", X_Next_Row="the row to go on from"),
)
def download_rows(
    job_id: str, scheduler: Scheduler, from_row: Annotated[int, Query(ge=0, lt=2**63)] = 0
) -> Response:
    """Send the rows so far (npy), in the order of their commits; X-Next-Row says where to go on."""
    rows, after = scheduler.results.rows_from(scheduler.state.sheet_now(job_id), from_row)
    body = io.BytesIO()
    np.save(body, rows, allow_pickle=False)
    return Response(body.getvalue(), media_type="application/x-npy", headers={"x-next-row": str(after)})


@results.get("/jobs/{job_id}/render.png", dependencies=[VIEWER], **raw_reply("image/png"))
def render_job(job_id: str, scheduler: Scheduler, query: Annotated[PictureQuery, Query()]) -> Response:
    """Draw the localisations so far."""
    return Response(scheduler.looks.png(job_id, query), media_type="image/png")


@results.get("/jobs/{job_id}/render.tif", dependencies=[VIEWER], **raw_reply("image/tiff"))
def render_tiff(job_id: str, scheduler: Scheduler, query: Annotated[PictureQuery, Query()]) -> Response:
    """Draw the localisations so far as grey values to measure in, for ImageJ and others."""
    return Response(scheduler.looks.tiff(job_id, query), media_type="image/tiff")


@results.get("/jobs/{job_id}/histograms", dependencies=[VIEWER])
def count_localisations(
    job_id: str,
    scheduler: Scheduler,
    filters: Annotated[str | None, Query(max_length=1024)] = None,
    bins: Annotated[int, Query(ge=2, le=1000)] = 60,
) -> JobHistograms:
    """Count the localisations so far by photons, width, precision, background, z and frame: all, and those that the filters choose."""
    return scheduler.looks.histograms(job_id, filters, bins)


@results.get("/jobs/{job_id}/drift", dependencies=[VIEWER])
def show_drift(job_id: str, scheduler: Scheduler, method: DriftMethod = "correlation") -> JobDrift:
    """Estimate by how much the sample moved, from the localisations so far or from the markers of a job that has ended; no row is changed."""
    return scheduler.looks.drift(job_id, method).message()


def finished_file(scheduler: Service, job_id: str) -> Path:
    """Return the result file of a job; raises `Conflict` while there is none."""
    job = scheduler.state.view(job_id)
    if job.output is None:
        raise Conflict(f"job {job_id} is {job.state}: it has no result file yet", state=job.state)
    path = Path(job.output)
    if not path.is_file():
        raise Conflict(f"{path} is not where job {job_id} put it", state=job.state)
    return path
