"""What the metadata must say before frames can be localised, and whether they say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fitting.errors import InvalidMetadata


@dataclass(frozen=True)
class Key:
    """A number that the metadata must say: its unit ("" for none), what it means, and one that a camera might have."""

    unit: str
    meaning: str
    example: float
    over: float | None = None  # exclusive lower limit
    minimum: float | None = None
    maximum: float | None = None

    def complaint(self, value: object) -> str | None:
        """What is wrong with a value, None if nothing is."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"must be a number{self.unit and f' [{self.unit}]'}, not {value!r}"
        if self._holds(value):
            return None
        return f"is {value:g}: it must be {self._range()} {self.unit}".rstrip()

    def __str__(self) -> str:
        return f"({self.meaning}{self.unit and f', {self.unit}'})"

    def _holds(self, value: float) -> bool:
        return (
            (self.over is None or value > self.over)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
        )

    def _range(self) -> str:
        low = f"over {self.over:g}" if self.over is not None else f"at least {self.minimum:g}"
        return low if self.maximum is None else f"{low} and at most {self.maximum:g}"


KEYS: dict[str, Key] = {
    "voxelsize.x": Key("µm", "size of a pixel", 0.1, over=0.0, maximum=10.0),
    "voxelsize.y": Key("µm", "size of a pixel", 0.1, over=0.0, maximum=10.0),
    "Camera.ElectronsPerCount": Key("e⁻/ADU", "electrons per ADU", 0.47, over=0.0, maximum=1e6),
    "Camera.ADOffset": Key("ADU", "reading of a dark pixel", 100, minimum=-1e6, maximum=1e6),
    "Camera.ReadNoise": Key("e⁻", "read noise, rms", 1.6, minimum=0.0, maximum=1e6),
    "Camera.TrueEMGain": Key("", "gain of the EM register, 1 without", 20, over=0.0, maximum=1e5),
    "Camera.NoiseFactor": Key(
        "", "excess noise factor, 1.41 with EM gain, else 1", 1.41, minimum=1.0, maximum=10.0
    ),
}
"""What may be required, in the order in which a person would say it."""
_ALWAYS = ("voxelsize.x", "voxelsize.y", "Camera.ElectronsPerCount")


def required_metadata(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Metadata keys without which frames cannot be localised with these settings."""
    keys = list(_ALWAYS)
    if settings.get("dark_map") is None:
        keys.append("Camera.ADOffset")
    if settings.get("variance_map") is None:
        keys.append("Camera.ReadNoise")
    return tuple(keys)


def meaning(key: str) -> str:
    """What a required key is, with its unit: "size of a pixel, µm"."""
    return str(KEYS[key])[1:-1]


def missing_metadata(settings: Mapping[str, object], metadata: Mapping[str, object]) -> tuple[str, ...]:
    """Required keys that the metadata do not have.

    A camera whose EM register is on (`Camera.EMGain` over 1) must also say `Camera.TrueEMGain`: taking it for 1 would
    multiply every photon number by the gain.
    """
    required = required_metadata(settings)
    em_setting = metadata.get("Camera.EMGain")
    if isinstance(em_setting, int | float | np.integer | np.floating) and em_setting > 1:
        required += ("Camera.TrueEMGain",)
    return tuple(key for key in required if metadata.get(key) is None)


def check_metadata(settings: Mapping[str, object], metadata: Mapping[str, object]) -> None:
    """Refuse metadata that are incomplete or out of range.

    Raises
    ------
    InvalidMetadata
        Naming every key that is missing or makes no sense, in one message.
    """
    missing = missing_metadata(settings, metadata)
    wrong = complaints(metadata)
    if not missing and not wrong:
        return
    parts = []
    if missing:
        named = ", ".join(f"{key} {KEYS[key]}" for key in missing)
        parts.append(f"the metadata lack {named}")
    parts += [f"{key} {complaint}" for key, complaint in wrong.items()]
    raise InvalidMetadata((*missing, *wrong), "; ".join(parts))


def complaints(metadata: Mapping[str, object]) -> dict[str, str]:
    """What is wrong with the values that are there, by key."""
    return {key: complaint for key in KEYS if (complaint := _complaint(key, metadata)) is not None}


def _complaint(key: str, metadata: Mapping[str, object]) -> str | None:
    value = metadata.get(key)
    return None if value is None else KEYS[key].complaint(value)
