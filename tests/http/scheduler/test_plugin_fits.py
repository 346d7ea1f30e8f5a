"""A fit of another package goes to workers that have the same version of it, and to no other."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.protocol import FitDeclaration
from cluster.scheduler.foreign_fits import fit_of
from cluster.worker.engine import fit_declarations
from fitting import foreign
from fitting.fits import FITS
from fitting.settings import Setting

pytestmark = pytest.mark.anyio

IDENTITY = "RadialSymmetryFitR (radial-symmetry 0.1.0)"
EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "radial-symmetry"


def put_on_the_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("packages")
    noted = folder / "radial_symmetry-0.1.0.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: radial-symmetry\nVersion: 0.1.0\n", encoding="utf-8"
    )
    entry = "[clusterofone.fits]\nradial-symmetry = radial_symmetry:FIT\n"
    (noted / "entry_points.txt").write_text(entry, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(folder), str(EXAMPLE), *sys.path])


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_the_path(tmp_path_factory, monkeypatch)


@pytest.fixture
def declared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a worker that has the package declares of it; it is not installed here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        put_on_the_path(tmp_path_factory, monkeypatch)
        told = [one.model_dump(mode="json") for one in fit_declarations()]
    assert [one["identity"] for one in told] == [IDENTITY]
    return json.loads(json.dumps(told))  # type: ignore[no-any-return]


async def leased(hands: Any, host: str, fits: list[str]) -> int:
    worker = await hands.register(host, fits=fits)
    reply = await hands.http.post(f"/api/v1/workers/{worker}/tasks", json={"count": 1})
    return len(reply.json()["leases"])


@pytest.mark.usefixtures("installed")
async def test_only_workers_with_the_same_version_get_its_tasks(hands: Any) -> None:
    await hands.submitted(analysis={"fit": "radial-symmetry", "options": {"smooth": False}})

    assert await leased(hands, "plain", list(FITS)) == 0
    assert await leased(hands, "newer", [*FITS, "RadialSymmetryFitR (radial-symmetry 0.2.0)"]) == 0
    assert await leased(hands, "same", [*FITS, "RadialSymmetryFitR (radial-symmetry 0.1.0)"]) == 1
    published = {fit["name"] for fit in (await hands.http.get("/api/v1/fits")).json()}
    assert "RadialSymmetryFitR" in published


async def test_a_scheduler_without_the_package_says_so(hands: Any) -> None:
    reply = await hands.submit(analysis={"fit": "radial-symmetry"})

    assert reply.status_code == 400
    assert reply.json()["field"] == "analysis.fit"
    assert "must be installed here, or on a worker that is there" in reply.json()["detail"]


async def test_a_fit_that_only_a_worker_has_is_listed_and_validated_and_goes_to_it_alone(
    hands: Any, declared: list[dict[str, Any]]
) -> None:
    await hands.register("plain", fits=list(FITS))
    has_it = await hands.register("has it", fits=[*FITS, IDENTITY], declared=declared)

    listed = {fit["name"]: fit for fit in (await hands.http.get("/api/v1/fits")).json()}
    misspelt = await hands.submit(analysis={"fit": "radial-symmetry", "options": {"smoth": True}})
    unused = await hands.submit(analysis={"fit": "radial-symmetry", "psf": "psf.tif"})
    job_id = await hands.submitted(analysis={"fit": "radial-symmetry", "options": {"smooth": False}})
    leases = await hands.lease(has_it)

    options = listed["RadialSymmetryFitR"]["settings"]["properties"]["options"]["properties"]
    assert options["smooth"]["type"] == "boolean"
    assert (misspelt.status_code, misspelt.json()["field"]) == (400, "analysis.options.smoth")
    assert (unused.status_code, unused.json()["field"]) == (400, "analysis.psf")
    assert [lease["job_id"] for lease in leases] == [job_id]
    assert await leased(hands, "plain too", list(FITS)) == 0


async def test_a_job_of_such_a_fit_outlives_a_restart_and_its_workers(
    make_service: Any, connect: Any, declared: list[dict[str, Any]], result_body: Any
) -> None:
    async with connect(make_service()) as hands:
        worker = await hands.register("has it", fits=[*FITS, IDENTITY], declared=declared)
        job_id = await hands.submitted(analysis={"fit": "radial-symmetry"})
        await hands.http.delete(f"/api/v1/workers/{worker}")
    async with connect(make_service()) as hands:
        worker = await hands.register("has it", fits=[*FITS, IDENTITY], declared=declared)
        while leases := await hands.lease(worker):
            frames = np.arange(leases[0]["start"], leases[0]["stop"])
            rows = np.zeros(len(frames), fit_of(FitDeclaration(**declared[0])).dtype)
            rows["tIndex"] = frames
            reply = await hands.commit(worker, leases[0], result_body(leases[0], rows=rows))
            assert reply.status_code == 200, reply.text
        job = await hands.ended(job_id)

    assert (job["state"], job["fit"], job["localisations"]) == ("done", "RadialSymmetryFitR", 100)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "LatGaussFitFR"},
        {"layout": [["tIndex", "|O", []]]},
        {"layout": [["tIndex", "<i4", [2, 2**20]]]},
        {"layout": []},
        {"options": [{"name": "x"}]},
        {"needs": ["what there is not"]},
        {"estimators": []},
    ],
)
async def test_a_declaration_that_is_not_sound_is_passed_over(
    hands: Any, declared: list[dict[str, Any]], change: dict[str, Any]
) -> None:
    declared[0]["facts"] |= change

    await hands.register("odd", fits=[*FITS, IDENTITY], declared=declared)
    listed = [fit["name"] for fit in (await hands.http.get("/api/v1/fits")).json()]

    assert listed == list(FITS)


async def test_too_many_declarations_are_refused(
    hands: Any, card: Any, declared: list[dict[str, Any]]
) -> None:
    asked = card("odd", fits=[IDENTITY], declared=declared * 65)

    reply = await hands.http.post("/api/v1/workers", json=asked)

    assert reply.status_code == 400


def test_a_fit_whose_rows_depend_on_its_options_is_not_declared() -> None:
    (fit,) = [fit for fit in FITS.values() if fit.name == "AstigGaussFitFR"]
    varying = replace(
        fit,
        options=(Setting("wide", None, "boolean", False, "", "Wider rows."),),
        layout=lambda settings: np.dtype(
            [("tIndex", "<i4"), ("x", "<f4", 2 if settings["options"]["wide"] else 1)]  # type: ignore[index]
        ),
    )

    assert foreign.declaration(varying) is None
    assert foreign.declaration(FITS["GaussMultifitSR"]) is not None
