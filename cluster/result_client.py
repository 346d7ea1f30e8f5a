"""The part of the public client that is about what a job found: rows, files, pictures, counts, drift."""

from __future__ import annotations

import io
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import numpy as np

from cluster import held_files
from cluster.calibration_client import API
from cluster.errors import Conflict, Internal, Unavailable
from cluster.protocol import DriftMethod, JobDrift, JobHistograms, Message, PictureQuery
from cluster.transport import BlockingLink, Reply

T = TypeVar("T")

_ROWS_LIMIT_BYTES: Final = 2 << 30
_PICTURE_LIMIT_BYTES: Final = 1 << 30
_DRIFT_S: Final = 150.0


class ResultCalls(ABC):
    """The calls, over a link that the client has."""

    _link: BlockingLink

    @abstractmethod
    def _again(self, method: str, path: str, body: Message | None = None, **options: Any) -> Reply:
        """Make a request of the API, again while the cluster is away."""

    @abstractmethod
    def _persist(self, call: Callable[[], T]) -> T:
        """Make a call, again while the cluster is away."""

    def localisations(self, job_id: str, from_row: int = 0) -> np.ndarray[Any, Any]:
        """Return the rows so far, in the order of their commits, from one on; go on at `from_row + len(rows)`."""
        reply = self._again(
            "GET",
            job_route(job_id, "/localisations"),
            params={"from_row": from_row},
            limit_bytes=_ROWS_LIMIT_BYTES,
        )
        try:
            rows: np.ndarray[Any, Any] = np.lib.format.read_array(
                io.BytesIO(reply.content), allow_pickle=False
            )
        except (ValueError, EOFError) as error:
            raise Internal(f"{reply.url} did not send a table") from error
        return rows

    def download(self, job_id: str, kind: str, path: Path | str, *, overwrite: bool = False) -> Path:
        """Save a job's result under a name, whole or not at all: "h5r", "csv", "parquet", "hdf5", "yaml" or "smlm".

        Raises
        ------
        Conflict
            If the job has not finished, or there is a file of that name and `overwrite` is false.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise Conflict(f"{target} exists already")
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            self._persist(lambda: self._save(job_route(job_id, f"/results.{kind}"), partial))
            held_files.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def render(
        self, job_id: str, *, kind: Literal["png", "tif"] = "png", pixel_nm: float = 10.0, **look: Any
    ) -> bytes:
        """Return the picture so far; `look` is what `PictureQuery` has: region, colour_by, gamma, filters, drift …"""
        query = PictureQuery(pixel_nm=pixel_nm, **look).model_dump(exclude_defaults=True)
        reply = self._again(
            "GET", job_route(job_id, f"/render.{kind}"), params=query, limit_bytes=_PICTURE_LIMIT_BYTES
        )
        return reply.content

    def histograms(self, job_id: str, filters: str | None = None, *, bins: int = 60) -> JobHistograms:
        """Return how the localisations so far are distributed, all and those that "photons=300..,precision_nm=..20" choose."""
        params: dict[str, str | int] = {"bins": bins} | ({"filters": filters} if filters else {})
        return self._again("GET", job_route(job_id, "/histograms"), params=params).message(JobHistograms)

    def drift(self, job_id: str, method: DriftMethod = "correlation") -> JobDrift:
        """Return by how much the sample moved, from the localisations or from markers; no row is changed."""
        params = {"method": method}
        route = job_route(job_id, "/drift")
        return self._again("GET", route, params=params, timeout_s=_DRIFT_S).message(JobDrift)

    def _save(self, path: str, partial: Path) -> None:
        with self._link.stream("GET", f"{API}{path}") as response, partial.open("wb") as file:
            written = 0
            for part in response.iter_bytes():
                written += file.write(part)
            promised = response.headers.get("content-length")
            if promised is not None and int(promised) != written:
                raise Unavailable(f"{written} bytes arrived of {promised}")
            file.flush()
            os.fsync(file.fileno())


def job_route(job_id: str, tail: str = "") -> str:
    """Return the route of a job, and of what hangs on it."""
    return f"/jobs/{quote(job_id, safe='')}{tail}"
