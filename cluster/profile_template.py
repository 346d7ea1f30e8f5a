"""A profile to begin with, from what a series says of itself: TOML with comments, for a person to complete."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cluster.profiles import EXPOSURE, KEY, SERIAL
from fitting import fits

_CAMERA: Final = (SERIAL, "Camera.Model", "Camera.Name")


def template(name: str, said: Mapping[str, Any]) -> str:
    """Return the text of a profile of this name; `said` are the metadata of a series, by key."""
    return "\n".join([*_head(name), "", *_when(name, said), "", *_values(said), "", *_maps(name, said), ""])


def _head(name: str) -> list[str]:
    return [
        "# A microscope profile: what holds where neither the job, nor a sidecar, nor the file of a series says otherwise.",
        "# Which series it is for stands under [when]. More in docs/metadata.md.",
        f"title = {_toml(name)}",
    ]


def _when(name: str, said: Mapping[str, Any]) -> Iterator[str]:
    yield "[when]  # every line must hold: a text, a number, a list of these, or { from = …, to = … }"
    known = next((key for key in _CAMERA if _is_plain(said.get(key)) and said[key] != ""), None)
    if known is None:
        yield f'# "{SERIAL}" = "…"  # the series does not say it; without any line it is used where a job says {KEY}={name}'
    else:
        yield f'"{known}" = {_toml(said[known])}'
    yield f'# "{EXPOSURE}" = {{ from = 0.01, to = 0.05 }}  # s'


def _values(said: Mapping[str, Any]) -> Iterator[str]:
    yield "[values]"
    for key, wanted in fits.KEYS.items():
        unit = f"{wanted.unit}, " if wanted.unit else ""
        if _is_plain(said.get(key)):
            yield f'"{key}" = {_toml(said[key])}  # {unit}{wanted.meaning}'
        else:
            yield f'# "{key}" = …  # {unit}{wanted.meaning}, such as {wanted.example}; the series does not say it'


def _maps(name: str, said: Mapping[str, Any]) -> Iterator[str]:
    exposure = said.get(EXPOSURE)
    ms = round(1000 * exposure) if isinstance(exposure, int | float) and exposure > 0 else 10
    yield "# Camera maps, for exposures in a range; paths from the folder of this file, or from a root."
    yield "# [[maps]]"
    yield f"# exposure_s = [{0.9 * ms / 1000:g}, {1.1 * ms / 1000:g}]"
    for kind in ("dark", "variance"):
        yield f"# {kind}_map = {_toml(f'{name}/{kind}_{ms}ms.tif')}"


def _toml(value: Any) -> str:
    """A text, a number or a boolean of JSON is one of TOML."""
    return json.dumps(value, ensure_ascii=False)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
