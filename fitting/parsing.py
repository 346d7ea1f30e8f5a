"""How a given value becomes a valid one.

Values come from a person, from JSON, from Python or from a file's metadata (numpy scalars, 0/1 for booleans, lists for slices), so each
type has one function that either returns the canonical value or says in a sentence what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.errors import InvalidSettings
from fitting.settings import Setting, SettingType
from fitting.shift_field import ShiftField

_NONE_WORDS = ("", "<none>", "none")
_MOST_NUMBERS = 16


class _Refused(Exception):
    """What is wrong with a value; `parse` adds whose value it was."""


def parse(setting: Setting, value: object, given_as: str | None = None) -> object:
    """Give the canonical form of a value of a setting.

    Parameters
    ----------
    setting : Setting
        The setting.
    value : object
        What was given: from JSON, Python or a metadata file.
    given_as : str, optional
        The metadata key it was given under, for the message.

    Raises
    ------
    InvalidSettings
        If the value has the wrong type or is out of range.
    """
    try:
        plain = _plain(value)
        if plain is None and setting.nullable:
            return None
        return _PARSERS[setting.type](setting, plain)
    except _Refused as error:
        where = f" (given as {given_as})" if given_as not in (None, setting.name) else ""
        raise InvalidSettings(setting.name, f"{error}{where}") from None


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    return value


def _shown(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _parse_number(setting: Setting, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(f"must be a number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise _Refused(f"{_shown(value)} is out of range") from None
    if not math.isfinite(number):
        raise _Refused(f"must be a finite number, not {number}")
    _check_range(setting, number)
    return number


def _parse_integer(setting: Setting, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_whole(value):
        raise _Refused(f"must be a whole number, not {_shown(value)}")
    _check_range(setting, value)
    return int(value)


def _is_whole(value: float) -> bool:
    return isinstance(value, int) or (math.isfinite(value) and value == int(value))


def _check_range(setting: Setting, number: float) -> None:
    low, high = setting.minimum, setting.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        unit = f" {setting.unit}" if setting.unit not in ("", "1") else ""
        raise _Refused(f"{_shown(number)} is out of range: it must be from {low:g} to {high:g}{unit}")


def _parse_boolean(_setting: Setting, value: object) -> bool:
    if isinstance(value, bool | int) and value in (0, 1):
        return bool(value)
    raise _Refused(f"must be true or false, not {_shown(value)}")


def _parse_choice(setting: Setting, value: object) -> str | None:
    if isinstance(value, str):
        word = value.lower()
        if setting.nullable and word in _NONE_WORDS:
            return None
        word = setting.synonyms.get(word, word)
        if word in setting.choices:
            return word
    raise _Refused(f"must be one of {', '.join(setting.choices)}, not {_shown(value)}")


def _parse_text(setting: Setting, value: object) -> str | None:
    if not isinstance(value, str):
        raise _Refused(f"must be text, not {_shown(value)}")
    return None if setting.nullable and value.lower() in _NONE_WORDS else value


def _parse_start(setting: Setting, value: object) -> int | str:
    if isinstance(value, str):
        if value.lower() == "auto":
            return "auto"
        raise _Refused(f'must be a frame number or "auto", not {_shown(value)}')
    return _parse_integer(setting, value)


def _parse_fraction(setting: Setting, value: object) -> float | None:
    try:
        fraction = _parse_number(setting, value)
    except _Refused as error:
        raise _Refused(f"{error} (0.25 is the 25th percentile)") from None
    return fraction or None  # PYME writes 0 for "off"


def _parse_window(setting: Setting, value: object) -> str | None:
    a, b = _window_bounds(setting, value)
    if a > b:
        raise _Refused(f"the window {a}:{b} ends before it starts")
    return f"{a}:{b}" if a < b else None


def _window_bounds(setting: Setting, value: object) -> tuple[int, int]:
    if isinstance(value, str):
        matched = re.fullmatch(r"\s*([+-]?\d{1,9})\s*:\s*([+-]?\d{1,9})\s*", value, re.ASCII)
        value = [int(bound) for bound in matched.groups()] if matched else value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _Refused(f'must be a slice of frames such as "-30:0", not {_shown(value)}')
    return _parse_integer(setting, _plain(value[0])), _parse_integer(setting, _plain(value[1]))


def _parse_box(setting: Setting, value: object) -> list[int]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise _Refused(f"must be [x0, y0, x1, y1] in pixels, not {_shown(value)}")
    x0, y0, x1, y1 = (_parse_integer(setting, _plain(edge)) for edge in value)
    if x1 <= x0 or y1 <= y0:
        raise _Refused(f"[{x0}, {y0}, {x1}, {y1}] is empty: x1 and y1 must be larger than x0 and y0")
    return [x0, y0, x1, y1]


def _parse_rectangle(setting: Setting, value: object) -> list[int]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise _Refused(f"must be [x, y, width, height] in pixels, not {_shown(value)}")
    x, y, width, height = (_parse_integer(setting, _plain(edge)) for edge in value)
    if width < 1 or height < 1:
        raise _Refused(f"[{x}, {y}, {width}, {height}] is empty: width and height must be 1 or more")
    return [x, y, width, height]


def _parse_rectangles(setting: Setting, value: object) -> list[list[int]]:
    boxes = [_parse_rectangle(setting, box) for box in _items(value, "rectangles [x, y, width, height]")]
    if len({(width, height) for _, _, width, height in boxes}) != 1:
        raise _Refused("all rectangles must have the same width and height")
    return boxes


def _parse_numbers(setting: Setting, value: object) -> list[float]:
    return [_parse_number(setting, _plain(number)) for number in _items(value, "numbers")]


def _parse_flags(setting: Setting, value: object) -> list[bool]:
    return [_parse_boolean(setting, _plain(flag)) for flag in _items(value, "true or false")]


def _items(value: object, of_what: str) -> list[object]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_NUMBERS:
        raise _Refused(f"must be a list of 1 to {_MOST_NUMBERS} {of_what}, not {_shown(value)}")
    return list(value)


def _parse_psf(setting: Setting, value: object) -> object:
    return value if isinstance(value, MeasuredPsf) else _parse_path(setting, value)


def _parse_curves(setting: Setting, value: object) -> object:
    if isinstance(value, SigmaCurves):
        return value
    if isinstance(value, Mapping):
        return SigmaCurves.from_dict(value).to_dict()
    return _parse_path(setting, value)


def _parse_field(setting: Setting, value: object) -> object:
    """A field; or a list of them, one for each channel after the first."""
    if isinstance(value, list | tuple):
        if not 1 <= len(value) <= _MOST_NUMBERS:
            raise _Refused(f"must be 1 to {_MOST_NUMBERS} shift fields")
        return [_one_field(setting, one) for one in value]
    if isinstance(value, str):
        return _parse_path(setting, value)
    return _one_field(setting, value)


def _one_field(_setting: Setting, value: object) -> object:
    if isinstance(value, ShiftField):
        return value
    if isinstance(value, Mapping):
        return ShiftField.from_dict(value).to_dict()
    raise _Refused(f"must be a shift field, or the path of its file, not {_shown(value)}")


def _parse_path(_setting: Setting, value: object) -> str | None:
    if isinstance(value, str):
        return None if value.lower() in _NONE_WORDS else value
    raise _Refused(f"must be the path of a file, not {_shown(value)}")


def _parse_map(setting: Setting, value: object) -> object:
    return value if isinstance(value, np.ndarray) else _parse_path(setting, value)


def _parse_options(_setting: Setting, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _Refused(f"must be an object of the fit's own settings, not {_shown(value)}")
    return dict(value)


_PARSERS: dict[SettingType, Callable[[Setting, Any], object]] = {
    "fit": _parse_text,
    "number": _parse_number,
    "integer": _parse_integer,
    "boolean": _parse_boolean,
    "choice": _parse_choice,
    "text": _parse_text,
    "start": _parse_start,
    "window": _parse_window,
    "fraction": _parse_fraction,
    "box": _parse_box,
    "rectangle": _parse_rectangle,
    "rectangles": _parse_rectangles,
    "numbers": _parse_numbers,
    "flags": _parse_flags,
    "map": _parse_map,
    "psf": _parse_psf,
    "curves": _parse_curves,
    "field": _parse_field,
    "options": _parse_options,
}
