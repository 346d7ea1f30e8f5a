"""The settings: a form that is made of the fit's own description of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import Any, Final

from nicegui import events, ui

from cluster.errors import ClusterError, Invalid
from cluster.presets import PRESETS
from cluster.web.models.draft import Draft
from cluster.web.models.setting_fields import SettingField
from cluster.web.views.shell import complain

_OPEN: Final = frozenset({"Detection", "Background"})
_MOST_BYTES: Final = 256 << 10


class SettingsPanel:
    """The widgets. `changed` is awaited when a setting was changed."""

    def __init__(self, draft: Draft, changed: Callable[[], Awaitable[None]]) -> None:
        self._draft = draft
        self._changed = changed

    def build(self) -> None:
        """Make the widgets."""
        with ui.row().classes("full-width items-center").style("gap: 10px"):
            fits = {fit.name: f"{fit.name}: {fit.title}" for fit in self._draft.fits}
            self._fit = (
                ui.select(fits, value=self._draft.fit, label="Fit", on_change=self._choose_fit)
                .props("dense")
                .classes("col")
            )
            presets = {name: preset.title for name, preset in PRESETS.items()}
            self._preset = ui.select(
                presets, label="Begin with a preset", on_change=self._choose_preset, clearable=True
            )
            self._preset.props("dense").classes("col")
        with ui.row().classes("full-width items-center").style("gap: 4px"):
            ui.button("Save", icon="save", on_click=self._save).props("flat dense no-caps").tooltip(
                "Settings and typed metadata, as a file"
            )
            upload = (
                ui.upload(on_upload=self._load, auto_upload=True, max_file_size=_MOST_BYTES)
                .props('accept=".json" flat')
                .classes("hidden")
            )
            ui.button("Load", icon="folder_open", on_click=lambda: upload.run_method("pickFiles")).props(
                "flat dense no-caps"
            )
            ui.button("Defaults", icon="restart_alt", on_click=self._reset).props("flat dense no-caps")
        self._said = ui.label().classes("tone-bad")
        self._said.set_visibility(False)
        self._body = ui.column().classes("scroll").style("gap: 4px")
        self.show()

    def show(self) -> None:
        """Show the settings as they are."""
        self._body.clear()
        with self._body:
            for group, fields in groupby(self._draft.fields, key=lambda field: field.group):
                listed = list(fields)
                differing = sum(self._draft.values[one.name] != one.default for one in listed)
                title = f"{group} ({differing} changed)" if differing else group
                is_open = group in _OPEN or bool(differing) or any(one.needed for one in listed)
                group_of = ui.expansion(title, value=is_open).classes("full-width").props("dense")
                with group_of, ui.element("div").classes("fields"):
                    for field in listed:
                        self._field(field)

    def complain(self, said: str) -> None:
        """Say what is wrong with the settings, nothing if nothing is."""
        self._said.set_text(said)
        self._said.set_visibility(bool(said))

    def _field(self, field: SettingField) -> None:
        value = self._draft.values[field.name]
        needed = " *" if field.needed else ""
        widget: Any
        if field.kind == "boolean":
            widget = ui.checkbox(
                field.label, value=bool(value), on_change=lambda e: self._set(field, e.value)
            )
        elif field.kind == "choice":
            choices = ["", *field.choices] if field.nullable else list(field.choices)
            widget = ui.select(
                choices,
                value=value or choices[0],
                label=field.title + needed,
                on_change=lambda e: self._set(field, e.value),
            ).props("dense")
        else:
            widget = ui.input(
                field.title + needed, value=field.text_of(value), placeholder=_placeholder(field)
            ).props("dense")
            widget.on("change", lambda: self._set(field, widget.value))
        widget.tooltip(f"{field.help} (default: {_default(field)})")

    async def _set(self, field: SettingField, given: Any) -> None:
        try:
            self._draft.values[field.name] = field.parsed(given)
        except Invalid as error:
            complain(error)
            return
        await self._changed()

    async def _choose_fit(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self._draft.choose_fit(event.value)
        self.show()
        await self._changed()

    async def _choose_preset(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if event.value is not None:
            self._draft.choose_preset(event.value)
            self.show()
            await self._changed()

    async def _reset(self) -> None:
        self._draft.values = {field.name: field.default for field in self._draft.fields}
        self._preset.set_value(None)
        self.show()
        await self._changed()

    def _save(self) -> None:
        ui.download.content(
            json.dumps(self._draft.saved(), indent=2, ensure_ascii=False).encode(),
            "settings.json",
            "application/json",
        )

    async def _load(self, event: events.UploadEventArguments) -> None:
        try:
            self._draft.load(json.loads(await event.file.read()))
        except (ValueError, UnicodeDecodeError):
            complain(Invalid(f"{event.file.name} is not a file of settings"))
            return
        except ClusterError as error:
            complain(error)
            return
        self._fit.set_value(self._draft.fit)
        self.show()
        await self._changed()


def _placeholder(field: SettingField) -> str:
    if field.default is None:
        return "a path beside the series or under the data folder" if field.group == "Files" else "automatic"
    return ""


def _default(field: SettingField) -> str:
    return "none" if field.default is None else field.text_of(field.default)
