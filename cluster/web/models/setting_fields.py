"""A form from the JSON schema of a fit's settings: which fields, what they are called, what may be typed, and what was changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cluster.errors import Invalid

Kind = Literal["number", "integer", "choice", "boolean", "text"]
GROUPS: Final = ("Detection", "Background", "Fit", "Range", "Files", "Fiducials", "This fit's own", "More")
_GROUP_OF: Final = {
    "threshold": "Detection",
    "debounce_radius": "Detection",
    "psf_sigma_nm": "Detection",
    "lowpass_sigma": "Detection",
    "highpass_sigma": "Detection",
    "background": "Background",
    "background_percentile": "Background",
    "subtract_background": "Background",
    "estimator": "Fit",
    "roi_half_size": "Fit",
    "interpolator": "Fit",
    "start_at": "Range",
    "stop_at": "Range",
    "roi": "Range",
    "variance_map": "Files",
    "dark_map": "Files",
    "flatfield_map": "Files",
    "psf": "Files",
    "sigma_curves": "Files",
    "shifts": "Files",
    "track_fiducials": "Fiducials",
    "fiducial_threshold": "Fiducials",
    "fiducial_diameter_nm": "Fiducials",
    "fiducial_roi_half_size": "Fiducials",
}
_NO_FIELD: Final = frozenset({"fit", "options"})
_OPTIONS: Final = "options"


@dataclass(frozen=True)
class SettingField:
    """One setting as a field of the form. `owner` is "options" for the fit's own settings."""

    name: str
    label: str
    kind: Kind
    group: str
    default: Any
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    nullable: bool = False
    choices: tuple[str, ...] = ()
    needed: bool = False
    owner: str = ""

    @property
    def is_file(self) -> bool:
        """Return whether the value is the name of a file under a root."""
        return self.group == "Files"

    @property
    def title(self) -> str:
        """Return the label with the unit."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label

    def text_of(self, value: Any) -> str:
        """Return a value as it stands in the field; nothing for null."""
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:.6g}"
        return value if isinstance(value, str) else json.dumps(value)

    def parsed(self, given: Any) -> Any:
        """Return the value that was typed or chosen.

        Raises
        ------
        Invalid
            If it cannot be one; says which field, and what it takes.
        """
        if self.kind == "boolean":
            return bool(given)
        text = given.strip() if isinstance(given, str) else given
        if text is None or text == "":
            if self.nullable:
                return None
            if self.kind == "text" and isinstance(self.default, str):
                return self.default
            raise Invalid(f"{self.label} must not be empty (its default is {self.default})", field=self.name)
        if self.kind in {"number", "integer"}:
            return self._number(text)
        if self.kind == "choice":
            return text
        return _json_or_text(str(text))

    def _number(self, given: Any) -> float | int:
        try:
            value = float(str(given).replace(",", "."))
        except ValueError:
            raise Invalid(f"{self.label} must be a number, not {given!r}", field=self.name) from None
        if self.kind == "integer":
            if value != int(value):
                raise Invalid(f"{self.label} must be a whole number, not {given}", field=self.name)
            value = int(value)
        if (self.minimum is not None and value < self.minimum) or (
            self.maximum is not None and value > self.maximum
        ):
            raise Invalid(
                f"{self.label} must lie from {self.minimum:g} to {self.maximum:g}"
                if self.minimum is not None and self.maximum is not None
                else f"{self.label} is beyond its limit {self.minimum if self.maximum is None else self.maximum:g}",
                field=self.name,
            )
        return value


def fields_of(schema: Mapping[str, Any]) -> list[SettingField]:
    """Return the fields of a fit's form, in the order of the groups; what the fit does not use is left out."""
    needs = set(schema.get("x-needs", []))
    properties: Mapping[str, Any] = schema["properties"]
    fields = [
        _field(name, described, needs)
        for name, described in properties.items()
        if name not in _NO_FIELD and not described.get("x-unused")
    ]
    own: Mapping[str, Any] = properties.get(_OPTIONS, {}).get("properties", {})
    fields += [_field(name, described, needs, owner=_OPTIONS) for name, described in own.items()]
    return sorted(fields, key=lambda field: GROUPS.index(field.group))


def changed(fields: list[SettingField], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the defaults, as a job says them."""
    analysis: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for field in fields:
        if field.name in values and values[field.name] != field.default:
            (own if field.owner else analysis)[field.name] = values[field.name]
    return {**analysis, _OPTIONS: own} if own else analysis


def filled(fields: list[SettingField], analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each field: that of `analysis`, as a job or a preset says it, else the default."""
    own = analysis.get(_OPTIONS) or {}
    return {field.name: (own if field.owner else analysis).get(field.name, field.default) for field in fields}


def _field(name: str, described: Mapping[str, Any], needs: set[str], owner: str = "") -> SettingField:
    kinds = described.get("anyOf", [described])
    nullable = any(kind.get("type") == "null" for kind in kinds)
    real = [kind for kind in kinds if kind.get("type") != "null"]
    first = real[0] if len(real) == 1 else {}
    choices = tuple(first.get("enum", described.get("enum", ())))
    return SettingField(
        name=name,
        label=_label(name),
        kind=_kind(first, choices),
        group="This fit's own" if owner else _GROUP_OF.get(name, "More"),
        default=described.get("default"),
        help=str(described.get("description", "")),
        unit="" if described.get("x-unit") == "1" else str(described.get("x-unit", "")),
        minimum=first.get("minimum"),
        maximum=first.get("maximum"),
        nullable=nullable,
        choices=choices,
        needed=name in needs,
        owner=owner,
    )


def _kind(described: Mapping[str, Any], choices: tuple[str, ...]) -> Kind:
    if choices:
        return "choice"
    match described.get("type"):
        case "number":
            return "number"
        case "integer":
            return "integer"
        case "boolean":
            return "boolean"
        case _:
            return "text"


def _label(name: str) -> str:
    words = name.replace("_", " ")
    for word, proper in (("psf", "PSF"), ("roi", "ROI"), (" nm", ""), (" s", "")):
        if proper:
            words = words.replace(word, proper)
        elif words.endswith(word):
            words = words.removesuffix(word)
    return words[0].upper() + words[1:]


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
