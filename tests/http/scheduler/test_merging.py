"""Making the result file: twice at once, behind locks that fail, of more rows than memory holds."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cluster.results import h5r
from fitting.localisations import LAT_GAUSS_DTYPE

pytestmark = pytest.mark.anyio


async def test_two_merges_of_a_job_at_once_make_one_file(
    service: Any, hands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    make = service.results.make

    def counted(plan: Any) -> Path:
        made.append(plan.path)
        path: Path = make(plan)
        return path

    monkeypatch.setattr(service.results, "make", counted)
    settled = service.state.on_settled

    def twice(job_id: str) -> None:
        settled(job_id)
        settled(job_id)

    service.state.on_settled = twice
    job = await hands.submitted()
    await hands.work_off(await hands.register())

    ended = await hands.ended(job)

    assert ended["state"] == "done"
    assert len(made) == 1
    assert [file.name for file in Path(ended["output"]).parent.iterdir()] == ["cells.h5r"]


async def peak_bytes(
    make_service: Any, connect: Any, result_body: Any, frames: int, facts: Any, source: Any
) -> int:
    """The most memory that was held at a time while a job of so many frames was merged and pruned."""
    source.series["long.tif"] = facts("long.tif", frames=frames)
    service = make_service(keep_blobs=True)
    peaks: list[int] = []
    make = service.results.make

    def measured(plan: Any) -> Path:
        tracemalloc.start()
        try:
            path: Path = make(plan)
            assert service.results.difference(plan.sheet, path) is None
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        return path

    service.results.make = measured
    async with connect(service) as hands:
        job = await hands.submitted(series="long.tif")
        worker = await hands.register()
        while leases := await hands.lease(worker, 8):
            for lease in leases:
                await hands.commit(worker, lease, result_body(lease, rows_per_frame=40))
        ended = await hands.ended(job)
    assert ended["localisations"] == 40 * frames
    with h5r.Reader(Path(ended["output"])) as reader:
        assert len(reader) == 40 * frames
    return peaks[0]


async def test_the_memory_of_a_merge_does_not_grow_with_the_number_of_rows(
    make_service: Any, connect: Any, result_body: Any, facts: Any, source: Any, root: Path
) -> None:
    (root / "long.tif").touch()
    few = await peak_bytes(make_service, connect, result_body, 800, facts, source)
    many = await peak_bytes(make_service, connect, result_body, 3200, facts, source)

    rows_bytes = 2400 * 40 * LAT_GAUSS_DTYPE.itemsize
    assert many - few < rows_bytes / 20


@pytest.fixture
def locks_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 as on a share without locks: whoever asks for one is refused."""
    opened = h5py.File.__init__

    def without_locks(self: Any, name: Any, mode: str = "r", *arguments: Any, **named: Any) -> None:
        if isinstance(name, str | Path) and named.get("locking") is not False:
            raise BlockingIOError(
                11, "unable to lock file, errno = 11, error message = 'Resource temporarily unavailable'"
            )
        opened(self, name, mode, *arguments, **named)

    monkeypatch.setattr(h5py.File, "__init__", without_locks)


@pytest.mark.usefixtures("locks_fail")
async def test_results_are_written_and_read_on_a_share_without_locks(hands: Any) -> None:
    job = await hands.submitted()
    await hands.work_off(await hands.register())

    ended = await hands.ended(job)
    replies = {
        kind: (await hands.http.get(f"/api/v1/jobs/{job}/results.{kind}")).status_code
        for kind in ("h5r", "csv", "hdf5", "parquet")
    }

    assert ended["state"] == "done", ended["error"]
    assert replies == dict.fromkeys(replies, 200)
    assert len(np.asarray(h5r.read(Path(ended["output"])).rows)) == 200
