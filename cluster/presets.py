"""Named settings to begin with: a job may say `preset`, and whatever it says beside that wins.

They are starting points, not truths: `clusterofone test` shows what they find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.errors import Invalid

KEY: Final = "preset"


@dataclass(frozen=True)
class Preset:
    """Settings under a name, and for whom they are."""

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset("dstorm", "dSTORM: bright, blinking fast", {"threshold": 1.0, "background": "-30:0"}),
        Preset("palm", "PALM: dim fluorescent proteins", {"threshold": 0.8, "background": "-30:0"}),
        Preset(
            "dna-paint",
            "DNA-PAINT: bright, bound for many frames, which a background of earlier frames would subtract",
            {"threshold": 2.0, "background": "0:0"},
        ),
        Preset(
            "beads",
            "beads: there in every frame, far apart",
            {"threshold": 2.0, "background": "0:0", "debounce_radius": 8},
        ),
    )
}


def with_preset(analysis: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the settings with those of the preset they name under them, and what to note of it.

    Raises
    ------
    Invalid
        If there is no such preset; names those there are.
    """
    given = dict(analysis)
    name = given.pop(KEY, None)
    if name is None:
        return given, None
    preset = PRESETS.get(str(name).lower())
    if preset is None:
        raise Invalid(
            f"preset: there is no {str(name)[:50]!r}; there are {', '.join(PRESETS)}", field="analysis.preset"
        )
    said = ", ".join(
        f"{key} {value}" + (f" (but {given[key]} was given)" if key in given and given[key] != value else "")
        for key, value in preset.settings.items()
    )
    return {**preset.settings, **given}, f"preset {preset.name}: {said}"
