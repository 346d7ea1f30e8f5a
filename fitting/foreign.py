"""Fits of packages that are not installed here, as those who have them declare them: plain values, from which settings are validated.

A declaration holds no code: what makes rows, and a check of its own that a fit may have, stay where its package is. Its rows must have one layout,
whatever its settings. Import-light.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

import numpy as np

from fitting import plugins
from fitting.errors import InvalidSettings
from fitting.fit_types import Fit
from fitting.schema import json_schema
from fitting.settings import Setting, SettingType

_NUMBER = re.compile(r"[<>|=]?[biuf][1248]|\|b1")
_MOST_FIELDS = 256
_DEEPEST = 4
_WIDEST_ROW = 1 << 16
_PLAIN = ("name", "title", "description", "channels", "neighbours", "roi_widths")
_LISTS = ("aliases", "needs", "estimators")


def declaration(fit: Fit) -> dict[str, Any] | None:
    """Return a fit as plain values; None for one that needs to be installed wherever its settings are checked."""
    layout = _layout(fit.dtype)
    if layout is None or any(fit.layout(settings) != fit.dtype for settings in _other_settings(fit)):
        return None
    return {
        **{name: getattr(fit, name) for name in _PLAIN},
        **{name: list(getattr(fit, name)) for name in _LISTS},
        "unused": sorted(fit.unused),
        "defaults": dict(fit.defaults),
        "options": [
            {**asdict(option), "choices": list(option.choices), "synonyms": dict(option.synonyms)}
            for option in fit.options
        ],
        "layout": layout,
    }


def declared(facts: Mapping[str, Any], taken: frozenset[str]) -> Fit:
    """Make a fit of a declaration; it validates, and cannot be run here.

    Parameters
    ----------
    taken : frozenset of str
        Names and aliases, in lower case, that it may not use.

    Raises
    ------
    InvalidSettings
        If it is not what `declaration` returns, or not sound.
    """
    try:
        dtype = _dtype(facts["layout"])
        values: dict[str, Any] = {name: facts[name] for name in _PLAIN}
        values |= {name: tuple(facts[name]) for name in _LISTS}
        fit = Fit(
            **values,
            unused=frozenset(facts["unused"]),
            defaults=dict(facts["defaults"]),
            options=tuple(_setting(option) for option in facts["options"]),
            layout=lambda _: dtype,
            run="",
        )
        json_schema(fit)
        fault = plugins.fault(fit, set(taken))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidSettings("fit", f"is no declaration of a fit: {error!r}") from error
    if fault:
        raise InvalidSettings("fit", f"{fit.name} is declared by a worker, but {fault}")
    return fit


def _other_settings(fit: Fit) -> list[Mapping[str, Any]]:
    """Settings with one option each changed, as far as its values can be listed: those a layout might hang on."""
    defaults = {option.name: option.default for option in fit.options}
    changed: list[Mapping[str, Any]] = []
    for option in fit.options:
        values: Sequence[object] = (True, False) if option.type == "boolean" else option.choices
        changed += [{"options": {**defaults, option.name: value}} for value in values]
    return changed


def _setting(facts: Mapping[str, Any]) -> Setting:
    setting = Setting(**{**facts, "choices": tuple(facts["choices"]), "synonyms": dict(facts["synonyms"])})
    if setting.type not in get_args(SettingType):
        raise ValueError(f"there is no type of settings {setting.type!r}")
    return setting


def _layout(dtype: np.dtype[Any], deepest: int = _DEEPEST) -> list[Any] | None:
    """A packed row of numbers as [[name, type or fields, shape], …]; None for any other."""
    fields = []
    for name in dtype.names or ():
        base, shape = dtype[name].base, list(dtype[name].shape)
        inner = base.str if base.names is None else (_layout(base, deepest - 1) if deepest else None)
        if inner is None or (isinstance(inner, str) and not _NUMBER.fullmatch(inner)):
            return None
        fields.append([name, inner, shape])
    return fields if fields and _dtype(fields) == dtype else None


def _dtype(layout: Any, deepest: int = _DEEPEST) -> np.dtype[np.void]:
    if not isinstance(layout, list) or not 1 <= len(layout) <= _MOST_FIELDS or deepest < 0:
        raise ValueError("its layout is no list of fields")
    fields: list[Any] = []
    for name, inner, shape in layout:
        if isinstance(inner, str) and not _NUMBER.fullmatch(inner):
            raise ValueError(f"its field {name} is of type {inner}")
        base = np.dtype(inner) if isinstance(inner, str) else _dtype(inner, deepest - 1)
        if (
            not all(isinstance(side, int) and 1 <= side <= _WIDEST_ROW for side in shape)
            or len(shape) > _DEEPEST
        ):
            raise ValueError(f"its field {name} has the shape {shape}")
        fields.append((str(name), base, tuple(shape)))
    dtype: np.dtype[np.void] = np.dtype(fields)
    if dtype.itemsize > _WIDEST_ROW:
        raise ValueError(f"its rows are of {dtype.itemsize} bytes")
    return dtype
