"""The page's own routes for what browsers load by address: frames, pictures of jobs, downloads. All are fetched with the visitor's token."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from cluster.errors import Invalid
from cluster.protocol import PictureQuery
from cluster.web.models.contrast import COLOUR_MAPS, limits_of, png_of, thumbnail
from cluster.web.visitors import Visitor, visitor_of

router = APIRouter(prefix="/data", include_in_schema=False)

Kind = Literal["h5r", "csv", "hdf5", "yaml", "parquet", "smlm"]
_THUMBNAIL_PX: Final = 96
_PICTURE_TYPES: Final = {"png": "image/png", "tif": "image/tiff"}


@router.get("/frame.png")
def frame(
    request: Request,
    series: Annotated[str, Query(max_length=1024)],
    number: Annotated[int, Query(ge=0, lt=2**31)],
    low: float | None = None,
    high: float | None = None,
    colours: str = "grey",
) -> Response:
    """Send one frame with a contrast and a colour map."""
    if colours not in COLOUR_MAPS:
        raise Invalid(f"colours: there are {', '.join(COLOUR_MAPS)}", field="colours")
    pixels = visitor_of(request.scope).frames.get(series, number)
    limits = limits_of(pixels) if low is None or high is None else (low, high)
    return Response(png_of(pixels, limits, colours), media_type="image/png")


@router.get("/thumbnail.png")
def small_frame(request: Request, series: Annotated[str, Query(max_length=1024)]) -> Response:
    """Send a frame from the middle of a series, small; it does not change, unless the series grows."""
    visitor = visitor_of(request.scope)
    facts = visitor.client.facts(series)
    if facts.frames == 0:
        raise Invalid(f"{series} holds no frames yet", field="series")
    pixels = visitor.frames.get(series, facts.frames // 2)
    headers = {"cache-control": "private, max-age=60"}
    return Response(thumbnail(pixels, _THUMBNAIL_PX), media_type="image/png", headers=headers)


class NumberedPicture(PictureQuery):
    """A picture, with a number that makes the browser ask again for what has grown meanwhile."""

    n: int = 0


@router.get("/jobs/{job_id}/render.{kind}")
def picture(
    job_id: str, kind: Literal["png", "tif"], request: Request, query: Annotated[NumberedPicture, Query()]
) -> Response:
    """Send the picture of a job as the cluster draws it."""
    wanted = query.model_dump(exclude_none=True, exclude={"n"})
    body = visitor_of(request.scope).client.render(job_id, kind=kind, **wanted)
    return Response(body, media_type=_PICTURE_TYPES[kind])


@router.get("/jobs/{job_id}/results.{kind}")
def download(job_id: str, kind: Kind, request: Request) -> FileResponse:
    """Send a job's result as a file to keep."""
    visitor: Visitor = visitor_of(request.scope)
    name = re.sub(r"[^\w.-]", "_", visitor.client.job(job_id).name, flags=re.ASCII) or job_id
    folder = Path(tempfile.mkdtemp(prefix="clusterofone-page-"))
    try:
        path = visitor.client.download(job_id, kind, folder / f"{name}.{kind}")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    gone = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(path, filename=path.name, media_type="application/octet-stream", background=gone)
