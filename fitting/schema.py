"""The settings of a fit as a JSON schema, from which forms are made and values checked before they are sent."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from fitting.fit_types import Fit
from fitting.settings import Setting


def json_schema(fit: Fit) -> dict[str, object]:
    """Describe the settings of a fit as a JSON schema (draft 2020-12)."""
    properties = {setting.name: _property(setting) for setting in fit.settings}
    properties["fit"]["default"] = fit.name
    for setting in fit.settings:
        if setting.name in fit.defaults:
            properties[setting.name]["default"] = copy.copy(fit.defaults[setting.name])
    properties["estimator"]["enum"] = list(fit.estimators)
    for setting in fit.settings:
        if setting.name in fit.unused:
            properties[setting.name] = _unused(setting)
    properties["options"] |= _object_schema({option.name: _property(option) for option in fit.options})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": fit.title,
        "description": fit.description,
        **_object_schema(properties),
        **({"x-needs": list(fit.needs)} if fit.needs else {}),
    }


def options_schema(title: str, description: str, settings: Sequence[Setting]) -> dict[str, object]:
    """Describe any set of options as a JSON schema (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        **_object_schema({setting.name: _property(setting) for setting in settings}),
    }


def _unused(setting: Setting) -> dict[str, object]:
    default = copy.copy(setting.default)
    return {"const": default, "default": default, "description": setting.description, "x-unused": True}


_JSON_TYPES: dict[str, dict[str, object]] = {
    "fit": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "choice": {"type": "string"},
    "text": {"type": "string"},
    "start": {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}]},
    "window": {
        "anyOf": [
            {"type": "string", "pattern": r"^\s*[+-]?\d+\s*:\s*[+-]?\d+\s*$"},
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        ]
    },
    "fraction": {"type": "number"},
    "box": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4},
    "rectangle": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4},
    "rectangles": {
        "type": "array",
        "minItems": 1,
        "maxItems": 16,
        "items": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4},
    },
    "numbers": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 16},
    "flags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 16},
    "map": {"type": "string"},
    "psf": {"type": "string"},
    "curves": {"anyOf": [{"type": "string"}, {"type": "object"}]},
    "field": {
        "anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array", "items": {"type": "object"}}]
    },
    "options": {"type": "object"},
}
_WITH_RANGE = ("number", "integer", "fraction")


def _property(setting: Setting) -> dict[str, object]:
    schema = copy.deepcopy(_JSON_TYPES[setting.type])
    if setting.type in _WITH_RANGE:
        limits = {"minimum": setting.minimum, "maximum": setting.maximum}
        schema |= {name: limit for name, limit in limits.items() if limit is not None}
    if setting.type == "numbers":
        schema["items"] = {"type": "number", "minimum": setting.minimum, "maximum": setting.maximum}
    if setting.choices:
        schema["enum"] = list(setting.choices)
    if setting.nullable:
        schema = {"anyOf": [*_alternatives(schema), {"type": "null"}]}
    schema |= {"default": copy.copy(setting.default), "description": setting.description}
    if setting.unit:
        schema["x-unit"] = setting.unit
    if setting.pyme_key:
        schema["x-pyme-key"] = setting.pyme_key
    return schema


def _alternatives(schema: dict[str, object]) -> list[object]:
    several = schema.get("anyOf")
    return several if isinstance(several, list) else [schema]


def _object_schema(properties: Mapping[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}
