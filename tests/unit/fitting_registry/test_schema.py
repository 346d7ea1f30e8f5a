"""What the published schema of a fit admits, validation accepts; what it forbids, validation refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitting.errors import InvalidSettings
from fitting.fits import FITS, SETTINGS, json_schema, resolve
from fitting.parsing import parse
from fitting.settings import Setting

METADATA = {"voxelsize.x": 0.1, "voxelsize.y": 0.1}
ALL = [*SETTINGS, *{option.name: option for fit in FITS.values() for option in fit.options}.values()]
PLAIN = [
    s for s in ALL if s.type in ("number", "integer", "fraction", "boolean", "choice", "numbers", "flags")
]


def described(setting: Setting) -> dict[str, Any]:
    """The schema of a setting, from a fit that uses it."""
    for fit in FITS.values():
        schema: dict[str, Any] = json_schema(fit)["properties"]  # type: ignore[assignment]
        if setting in fit.options:
            return schema["options"]["properties"][setting.name]
        if setting in SETTINGS and setting.name not in fit.unused:
            return schema[setting.name]
    raise AssertionError(f"no fit uses {setting.name}")


def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return schema.get("anyOf", [schema])


def admitted(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema admits, from the few words that ours are made of."""
    if "anyOf" in schema:
        return st.one_of([admitted(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(admitted(schema["items"]), min_size=schema["minItems"], max_size=schema["maxItems"])
    return {
        "null": st.none,
        "boolean": st.booleans,
        "number": lambda: st.floats(schema["minimum"], schema["maximum"]),
        "integer": lambda: st.integers(int(schema["minimum"]), int(schema["maximum"])),
    }[schema["type"]]()


@pytest.mark.parametrize("setting", PLAIN, ids=lambda s: s.name)
@given(data=st.data())
def test_what_the_schema_admits_is_accepted(setting: Setting, data: st.DataObject) -> None:
    value = data.draw(admitted(described(setting)))

    parsed = parse(setting, value)

    assert parse(setting, parsed) == parsed
    assert parsed == value or value == 0  # PYME writes 0 for no percentile


@pytest.mark.parametrize("setting", PLAIN, ids=lambda s: s.name)
@given(data=st.data())
def test_what_the_schema_forbids_is_refused(setting: Setting, data: st.DataObject) -> None:
    schema = described(setting)
    wrong: list[Any] = [{"an": "object"}, "no such word"]
    for one in alternatives(schema):
        if one.get("type") in ("number", "integer"):
            wrong += [one["maximum"] + abs(one["maximum"]) + 1, one["minimum"] - abs(one["minimum"]) - 1]
        if one.get("type") == "array":
            wrong += [[], [data.draw(st.text())], 3]
    if not setting.nullable:
        wrong.append(None)

    for value in wrong:
        with pytest.raises(InvalidSettings):
            parse(setting, value)


@pytest.mark.parametrize("name", FITS)
def test_a_schema_is_json_and_its_defaults_are_what_nothing_resolves_to(name: str) -> None:
    fit = FITS[name]
    schema: dict[str, Any] = json.loads(json.dumps(json_schema(fit)))
    needs = dict.fromkeys(fit.needs, "psf.tif")
    resolved = resolve({"fit": name, **needs}, METADATA)

    assert schema["x-needs" if fit.needs else "title"]
    assert set(schema["properties"]) == {setting.name for setting in SETTINGS}
    for key, said in schema["properties"].items():
        if key not in ("roi_half_size", "start_at", "options", "fit", "background", *needs):
            assert resolved[key] == said["default"], key
    assert resolved["options"] == {
        key: said["default"] for key, said in schema["properties"]["options"]["properties"].items()
    }


@pytest.mark.parametrize("name", FITS)
def test_a_resolved_analysis_of_any_fit_resolves_to_itself(name: str) -> None:
    fit = FITS[name]
    resolved = resolve({"fit": name, **dict.fromkeys(fit.needs, "psf.tif")}, METADATA)

    assert resolve(json.loads(json.dumps(resolved)), METADATA) == resolved


@pytest.mark.parametrize("name", FITS)
def test_a_schema_says_which_settings_a_fit_does_not_use(name: str) -> None:
    fit = FITS[name]
    schema: dict[str, Any] = json_schema(fit)["properties"]  # type: ignore[assignment]

    assert {key for key, said in schema.items() if said.get("x-unused")} == fit.unused
    assert all("const" in schema[key] for key in fit.unused)
