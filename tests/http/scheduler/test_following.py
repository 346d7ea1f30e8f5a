"""A job that follows a series which is still being acquired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from cluster.protocol import SeriesFacts
from cluster.results import h5r
from cluster.scheduler.following import Pauses
from cluster.scheduler.service import Service

pytestmark = pytest.mark.anyio

SERIES = "day 1/cells.tif"
Facts = Callable[..., SeriesFacts]


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service(follow=Pauses(0.0, 0.0))


@pytest.fixture
def grow(source: Any, facts: Facts) -> Callable[..., None]:
    def set_to(frames: int, *, complete: bool = False, **changes: Any) -> None:
        source.series[SERIES] = facts(frames=frames, complete=complete, fingerprint="its own", **changes)

    set_to(0)
    return set_to


async def test_frames_are_localised_as_they_come_and_the_job_ends_with_the_series(
    hands: Any, service: Any, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True)
    worker = await hands.register()
    assert (await hands.job(job_id))["state"] == "waiting"

    grow(70)
    await until(lambda: service.state.core.job(job_id).total == 70)
    await hands.work_off(worker)
    halfway = await hands.job(job_id)
    grow(95, complete=True)
    await until(lambda: not service.state.core.job(job_id).is_growing)
    await hands.work_off(worker)
    job = await hands.ended(job_id)

    assert halfway["state"] == "running"
    assert halfway["frames"] == {"total": 70, "localised": 70, "skipped": 0, "failed": 0}
    assert "the series is still growing" in halfway["notes"]
    assert job["state"] == "done"
    assert job["frames"] == {"total": 95, "localised": 95, "skipped": 0, "failed": 0}
    with h5py.File(Path(job["output"])) as file:
        assert len(file["FitResults"]) == 2 * 95


async def test_a_gap_holds_back_what_comes_after_it_until_it_is_filled(
    hands: Any, service: Any, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True)
    worker = await hands.register()

    grow(80, missing=[(40, 50)])
    await until(lambda: service.state.core.job(job_id).total == 40)
    await hands.work_off(worker)
    before = (await hands.job(job_id))["frames"]["localised"]
    grow(80)
    await until(lambda: service.state.core.job(job_id).total == 80)
    await hands.work_off(worker)

    assert before == 40
    assert (await hands.job(job_id))["frames"]["localised"] == 80


async def test_frames_that_need_later_ones_wait_for_these_or_for_the_end(
    hands: Any, service: Any, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True, analysis={"background": "-10:11", "background_percentile": 0})
    worker = await hands.register()

    grow(60)
    await until(lambda: service.state.core.job(job_id).total == 60)
    await hands.work_off(worker)
    before = (await hands.job(job_id))["frames"]["localised"]
    grow(60, complete=True)
    await until(lambda: not service.state.core.job(job_id).is_growing)
    await hands.work_off(worker)

    assert before == 50
    assert (await hands.ended(job_id))["frames"]["localised"] == 60


async def test_a_gap_that_was_there_at_the_submit_is_not_missing_for_good(
    hands: Any, grow: Callable[..., None]
) -> None:
    grow(80, missing=[(40, 50)])
    followed = await hands.submitted(follow=True)
    as_it_is = await hands.submitted(follow=False)

    specs = [(await hands.http.get(f"/api/v1/jobs/{job_id}/spec")).json() for job_id in (followed, as_it_is)]

    assert [spec["missing"] for spec in specs] == [[], [[40, 50]]]


async def test_an_acquisition_that_dies_ends_the_job_after_the_idle_limit_with_what_is_missing(
    hands: Any, service: Any, clock: Any, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True, analysis={"idle_limit_s": 60})
    worker = await hands.register()
    grow(40, missing=[(30, 35)])
    await until(lambda: service.state.core.job(job_id).total == 30)

    clock.seconds += 59
    await hands.work_off(worker)
    assert service.state.core.job(job_id).is_growing
    clock.seconds += 2
    await until(lambda: not service.state.core.job(job_id).is_growing)
    await hands.work_off(await hands.register())
    job = await hands.ended(job_id)

    assert job["state"] == "done_with_errors"
    assert job["frames"]["total"] == 40
    assert "never completed: it stopped growing at 40 frames, 5 of them never came" in job["error"]


async def test_a_series_that_is_replaced_meanwhile_ends_the_job_and_says_so(
    hands: Any, service: Any, source: Any, facts: Facts, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True)
    worker = await hands.register()
    grow(40)
    await until(lambda: service.state.core.job(job_id).total == 40)
    await hands.work_off(worker)

    source.series[SERIES] = facts(frames=90, complete=False, fingerprint="another")
    await until(lambda: not service.state.core.job(job_id).is_growing)
    job = await hands.ended(job_id)

    assert job["state"] == "done_with_errors"
    assert "was replaced by another series" in job["error"]


async def test_a_series_that_nobody_can_tell_of_any_more_ends_its_job_after_the_idle_limit(
    hands: Any, service: Any, source: Any, clock: Any, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True, analysis={"idle_limit_s": 60})
    worker = await hands.register()
    grow(40)
    await until(lambda: service.state.core.job(job_id).total == 40)
    await hands.work_off(worker)

    source.series.clear()
    clock.seconds += 61
    await until(lambda: not service.state.core.job(job_id).is_growing)
    job = await hands.ended(job_id)

    assert (job["state"], job["frames"]["localised"]) == ("done_with_errors", 40)
    assert "no data server could tell of it for" in job["error"]


async def test_it_goes_on_after_a_restart(
    make_service: Any, connect: Any, grow: Callable[..., None], until: Any
) -> None:
    service = make_service(follow=Pauses(0.0, 0.0))
    async with connect(service) as hands:
        job_id = await hands.submitted(follow=True)
        worker = await hands.register()
        grow(40)
        await until(lambda: service.state.core.job(job_id).total == 40)
        await hands.work_off(worker)
    grow(70, complete=True)
    service = make_service(follow=Pauses(0.0, 0.0))
    async with connect(service) as hands:
        worker = await hands.register()
        await until(lambda: not service.state.core.job(job_id).is_growing)
        await hands.work_off(worker)
        job = await hands.ended(job_id)

    assert (job["state"], job["frames"]["localised"]) == ("done", 70)


async def test_what_is_there_of_a_growing_series_can_be_localised_without_following(
    hands: Any, grow: Callable[..., None]
) -> None:
    grow(40)

    job_id = await hands.submitted()
    await hands.work_off(await hands.register())
    job = await hands.ended(job_id)

    assert job["frames"]["total"] == 40
    assert "the series is still growing: these are its first 40 frames" in job["notes"]


async def test_following_a_series_that_is_complete_is_an_ordinary_job(hands: Any) -> None:
    job_id = await hands.submitted(follow=True)
    await hands.work_off(await hands.register())

    assert (await hands.ended(job_id))["state"] == "done"


async def test_files_of_which_nothing_says_their_end_are_whole_when_they_rest_and_the_result_is_of_these(
    hands: Any, service: Any, source: Any, facts: Facts, clock: Any, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True, analysis={"rest_s": 20})
    worker = await hands.register()
    grow(39, growing={"torn": False})
    await until(lambda: service.state.core.job(job_id).total == 39)
    source.final = facts(frames=40, events=2, fingerprint="of the whole files")

    clock.seconds += 19
    await hands.work_off(worker)
    assert service.state.core.job(job_id).is_growing
    clock.seconds += 2
    await until(lambda: not service.state.core.job(job_id).is_growing)
    await hands.work_off(await hands.register())
    job = await hands.ended(job_id)

    assert (job["state"], job["frames"]["localised"]) == ("done", 40)
    assert "it was taken as whole when it had not grown for 21 s" in job["notes"][-1]
    provenance = h5r.read(Path(job["output"])).provenance
    assert provenance is not None
    assert provenance.input["fingerprint"] == "of the whole files"
    with h5py.File(Path(job["output"])) as file:
        assert len(file["Events"]) == 2


async def test_files_that_are_torn_or_promise_more_end_by_the_idle_limit_with_what_is_missing(
    hands: Any, service: Any, source: Any, facts: Facts, clock: Any, grow: Callable[..., None], until: Any
) -> None:
    job_id = await hands.submitted(follow=True, analysis={"rest_s": 20, "idle_limit_s": 60})
    worker = await hands.register()
    grow(40, growing={"promised": 100, "marked": True})
    await until(lambda: service.state.core.job(job_id).total == 40)
    source.final = facts(frames=100, missing=[(40, 100)])

    clock.seconds += 59
    await hands.work_off(worker)
    assert service.state.core.job(job_id).is_growing
    clock.seconds += 2
    await until(lambda: not service.state.core.job(job_id).is_growing)
    await hands.work_off(await hands.register())
    job = await hands.ended(job_id)

    assert job["state"] == "done_with_errors"
    assert job["frames"]["total"] == 100
    assert "it stopped growing at 40 of 100 frames, 60 never came" in job["error"]


async def test_what_a_series_became_outlives_a_restart_of_the_scheduler(
    make_service: Any, connect: Any, source: Any, facts: Facts, grow: Callable[..., None], until: Any
) -> None:
    service = make_service(follow=Pauses(0.0, 0.0))
    async with connect(service) as hands:
        job_id = await hands.submitted(follow=True)
        source.final = facts(frames=40, events=1, fingerprint="of the whole files")
        grow(40, complete=True, growing={"marked": True})
        await until(lambda: not service.state.core.job(job_id).is_growing)
    async with connect(make_service(follow=Pauses(0.0, 0.0))) as hands:
        worker = await hands.register()
        await hands.work_off(worker)
        job = await hands.ended(job_id)

    provenance = h5r.read(Path(job["output"])).provenance
    assert provenance is not None
    assert (job["state"], provenance.input["fingerprint"]) == ("done", "of the whole files")
    with h5py.File(Path(job["output"])) as file:
        assert len(file["Events"]) == 1
