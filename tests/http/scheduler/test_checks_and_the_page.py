"""Asking what a job would be without queueing it, and where the page is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.protocol import MetadataValue

pytestmark = pytest.mark.anyio


async def checked(hands: Any, **request: Any) -> dict[str, Any]:
    reply = await hands.http.post("/api/v1/jobs/check", json={"series": "day 1/cells.tif", **request})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_a_check_says_every_setting_and_value_with_its_source_and_queues_nothing(
    hands: Any, root: Path
) -> None:
    check = await checked(hands, analysis={"start_at": 10}, metadata={"Camera.ADOffset": 90.0})

    assert check["fault"] is None
    assert (check["start"], check["stop"]) == (10, 100)
    assert check["analysis"]["threshold"] == 1.0
    assert check["metadata"]["Camera.ADOffset"] == {"value": 90.0, "source": "job"}
    assert check["metadata"]["voxelsize.x"]["source"] == "file"
    assert check["required"]["voxelsize.x"] == "size of a pixel, µm"
    assert (await hands.http.get("/api/v1/jobs")).json() == {"jobs": []}
    assert not (root / "day 1" / "analysis").exists()


async def test_a_check_of_incomplete_metadata_names_the_keys_and_still_says_the_rest(
    hands: Any, source: Any
) -> None:
    facts = source.series["day 1/cells.tif"]
    kept = {key: value for key, value in facts.metadata.items() if key != "Camera.ReadNoise"}
    source.series["day 1/cells.tif"] = facts.model_copy(
        update={"metadata": {**kept, "Camera.EMGain": MetadataValue(value=100, source="file")}}
    )

    check = await checked(hands)

    assert check["missing"] == ["Camera.ReadNoise", "Camera.TrueEMGain"]
    assert check["fault"]["keys"] == check["missing"]
    assert set(check["missing"]) < set(check["required"])
    assert check["analysis"]["background"] == "-30:0"
    assert check["start"] is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"analysis": {"threshhold": 2}}, "analysis.threshhold"),
        ({"metadata": {"Camera.ADOfset": 2}}, "Camera.ADOfset"),
        ({"analysis": {"roi": [0, 0, 1000, 10]}}, "analysis.roi"),
        ({"analysis": {"start_at": 5000}}, "analysis.start_at"),
        ({"output": "CON.h5r"}, "output"),
        ({"output": "/etc/x.h5r"}, "output"),
        ({"output": "x.tif"}, "output"),
        ({"output": ""}, "output"),
        ({"output": "there.h5r"}, "output"),
    ],
)
async def test_a_check_says_what_a_submit_would_refuse(
    hands: Any, root: Path, request_: dict[str, Any], field: str
) -> None:
    (root / "there.h5r").touch()
    check = await checked(hands, **request_)
    refused = await hands.submit(**request_)

    assert check["fault"]["field"] == field
    assert refused.json()["detail"] == check["fault"]["detail"]


async def test_the_identity_says_where_the_page_is(hands: Any) -> None:
    assert (await hands.http.get("/api/v1/identity")).json()["web"] is None

    said = await hands.http.post("/api/v1/pages", json={"url": "http://127.0.0.1:15480"})

    assert said.status_code == 204
    assert (await hands.http.get("/api/v1/identity")).json()["web"] == "http://127.0.0.1:15480"


async def test_a_page_is_an_address_that_a_browser_opens(hands: Any) -> None:
    said = await hands.http.post("/api/v1/pages", json={"url": "javascript:alert(1)"})

    assert said.status_code == 400
