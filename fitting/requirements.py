"""What the metadata must say before frames can be localised, and whether they say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fitting.errors import InvalidMetadata


@dataclass(frozen=True)
class _Key:
    unit: str
    meaning: str
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


_KEYS: dict[str, _Key] = {
    "voxelsize.x": _Key("µm", "size of a pixel", over=0.0, maximum=10.0),
    "voxelsize.y": _Key("µm", "size of a pixel", over=0.0, maximum=10.0),
    "Camera.ElectronsPerCount": _Key("e⁻/ADU", "electrons per ADU", over=0.0, maximum=1e6),
    "Camera.ADOffset": _Key("ADU", "reading of a dark pixel", minimum=-1e6, maximum=1e6),
    "Camera.ReadNoise": _Key("e⁻", "read noise, rms", minimum=0.0, maximum=1e6),
    "Camera.TrueEMGain": _Key("", "gain of the EM register, 1 without", over=0.0, maximum=1e5),
    "Camera.NoiseFactor": _Key(
        "", "excess noise factor, 1.41 with EM gain, else 1", minimum=1.0, maximum=10.0
    ),
}
_ALWAYS = ("voxelsize.x", "voxelsize.y", "Camera.ElectronsPerCount")


def required_metadata(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Metadata keys without which frames cannot be localised with these settings."""
    keys = list(_ALWAYS)
    if settings.get("dark_map") is None:
        keys.append("Camera.ADOffset")
    if settings.get("variance_map") is None:
        keys.append("Camera.ReadNoise")
    return tuple(keys)


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
    wrong = {key: complaint for key in _KEYS if (complaint := _complaint(key, metadata)) is not None}
    if not missing and not wrong:
        return
    parts = []
    if missing:
        named = ", ".join(f"{key} {_KEYS[key]}" for key in missing)
        parts.append(f"the metadata lack {named}")
    parts += [f"{key} {complaint}" for key, complaint in wrong.items()]
    raise InvalidMetadata((*missing, *wrong), "; ".join(parts))


def _complaint(key: str, metadata: Mapping[str, object]) -> str | None:
    value = metadata.get(key)
    return None if value is None else _KEYS[key].complaint(value)
