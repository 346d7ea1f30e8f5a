"""A form from a fit's JSON schema."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Invalid
from cluster.web.models.setting_fields import GROUPS, SettingField, changed, fields_of, filled
from fitting.fits import known_fits
from fitting.schema import json_schema


def fields(fit: str = "LatGaussFitFR") -> dict[str, SettingField]:
    return {field.name: field for field in fields_of(json_schema(known_fits()[fit]))}


@pytest.mark.parametrize("fit", sorted(known_fits()))
def test_every_setting_that_a_fit_uses_has_a_field_and_defaults_change_nothing(fit: str) -> None:
    schema: dict[str, Any] = json_schema(known_fits()[fit])
    found = fields_of(schema)
    used = {name for name, one in schema["properties"].items() if not one.get("x-unused")}

    assert {field.name for field in found if not field.owner} == used - {"fit", "options"}
    assert {field.name for field in found if field.owner} == set(
        schema["properties"]["options"]["properties"]
    )
    assert changed(found, filled(found, {})) == {}
    assert [GROUPS.index(field.group) for field in found] == sorted(
        GROUPS.index(field.group) for field in found
    )
    assert all(field.help for field in found)


@pytest.mark.parametrize("fit", sorted(known_fits()))
def test_what_stands_in_a_field_is_read_back_as_it_was(fit: str) -> None:
    for field in fields(fit).values():
        if field.kind in {"choice", "boolean"}:
            continue
        read = field.parsed(field.text_of(field.default))
        assert read == field.default or read == pytest.approx(field.default, rel=1e-5)


def test_fields_know_their_kind_unit_and_limits() -> None:
    known = fields()

    assert known["threshold"].kind == "number"
    assert (known["threshold"].minimum, known["threshold"].unit) == (0.01, "")
    assert known["psf_sigma_nm"].title == "PSF sigma [nm]"
    assert (known["estimator"].kind, known["estimator"].choices) == ("choice", ("mle", "wls"))
    assert known["subtract_background"].kind == "boolean"
    assert (known["roi_half_size"].kind, known["roi_half_size"].nullable) == ("integer", True)
    assert known["roi"].kind == "text"
    assert "shifts" not in known


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("threshold", "1,5", 1.5),
        ("threshold", " 2 ", 2.0),
        ("roi_half_size", "", None),
        ("roi_half_size", "7", 7),
        ("roi", "[0, 0, 20, 20]", [0, 0, 20, 20]),
        ("roi", "", None),
        ("start_at", "auto", "auto"),
        ("start_at", "12", 12),
        ("start_at", "", "auto"),
        ("background", "-10:0", "-10:0"),
        ("variance_map", "maps/var.tif", "maps/var.tif"),
        ("track_fiducials", True, True),
    ],
)
def test_what_is_typed_becomes_a_value(name: str, given: Any, value: Any) -> None:
    assert fields()[name].parsed(given) == value


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("threshold", "much", "number"),
        ("threshold", "0", "from 0.01 to 1000"),
        ("threshold", "", "default is 1"),
        ("roi_half_size", "2.5", "whole"),
        ("roi_half_size", "51", "from 1 to 50"),
    ],
)
def test_what_cannot_be_a_value_is_refused_by_name(name: str, given: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        fields()[name].parsed(given)

    assert refused.value.facts["field"] == name


def test_only_what_differs_is_said_and_a_fits_own_settings_go_under_options() -> None:
    schema = {
        "properties": {
            "threshold": {"type": "number", "default": 1.0, "description": "d"},
            "options": {"properties": {"order": {"type": "integer", "default": 2, "description": "d"}}},
        },
        "x-needs": ["threshold"],
    }
    found = fields_of(schema)

    said = changed(found, {"threshold": 1.0, "order": 3})

    assert said == {"options": {"order": 3}}
    assert filled(found, said) == {"threshold": 1.0, "order": 3}
    assert found[0].needed
