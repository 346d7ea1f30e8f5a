"""A fit of another package goes to workers that have the same version of it, and to no other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fitting.fits import FITS

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "radial-symmetry"


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("packages")
    noted = folder / "radial_symmetry-0.1.0.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: radial-symmetry\nVersion: 0.1.0\n", encoding="utf-8"
    )
    entry = "[clusterofone.fits]\nradial-symmetry = radial_symmetry:FIT\n"
    (noted / "entry_points.txt").write_text(entry, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(folder), str(EXAMPLE), *sys.path])


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
    assert "must be installed here and on every worker" in reply.json()["detail"]
