"""The settings: a form that is made of the fit's own description of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import Any, Final

from nicegui import events, ui

from cluster.errors import ClusterError, Invalid
from cluster.protocol import PresetInfo
from cluster.web.models.draft import Draft
from cluster.web.models.series_lines import parent_of
from cluster.web.models.setting_fields import SettingField
from cluster.web.views.file_chooser import FileChooser
from cluster.web.views.shell import complain
from cluster.web.visitors import Visitor

_OPEN: Final = frozenset({"Detection", "Background"})
_MOST_BYTES: Final = 256 << 10


class SettingsPanel:
    """The widgets. `changed` is awaited when a setting was changed."""

    def __init__(
        self,
        visitor: Visitor,
        draft: Draft,
        presets: list[PresetInfo],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._visitor = visitor
        self._draft = draft
        self._presets = {preset.name: preset for preset in presets if preset.problem is None}
        self._changed = changed
        self._widgets: list[tuple[SettingField, Any]] = []
        self._groups: list[tuple[str, list[SettingField], ui.expansion]] = []

    def build(self) -> None:
        """Make the widgets."""
        with ui.row().classes("full-width items-center").style("gap: 10px"):
            fits = {fit.name: f"{fit.name}: {fit.title}" for fit in self._draft.fits}
            self._fit = (
                ui.select(fits, value=self._draft.fit, label="Fit", on_change=self._choose_fit)
                .props("dense")
                .classes("col")
            )
            presets = {name: preset.title for name, preset in self._presets.items()}
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
        """Build the form of the fit that is chosen."""
        self._body.clear()
        self._widgets.clear()
        self._groups.clear()
        with self._body:
            for group, fields in groupby(self._draft.fields, key=lambda field: field.group):
                listed = list(fields)
                is_open = group in _OPEN or self._differing(listed) > 0 or any(one.needed for one in listed)
                expansion = ui.expansion(group, value=is_open).classes("full-width").props("dense")
                self._groups.append((group, listed, expansion))
                with expansion, ui.element("div").classes("fields"):
                    for field in listed:
                        self._field(field)
        self.refresh()

    def refresh(self) -> None:
        """Show the values as they are, in the form that is there."""
        for field, widget in self._widgets:
            mistake = self._draft.mistakes.get(field.name)
            if isinstance(widget, ui.input):
                widget.error = mistake
            if mistake is None:  # else what was typed stands, to be mended
                widget.set_value(_shown(field, self._draft.values[field.name]))
        for group, listed, expansion in self._groups:
            differing = self._differing(listed)
            expansion.set_text(f"{group} ({differing} changed)" if differing else group)

    def _differing(self, fields: list[SettingField]) -> int:
        return sum(self._draft.values[one.name] != one.default for one in fields)

    def complain(self, said: str) -> None:
        """Say what is wrong with the settings, nothing if nothing is."""
        self._said.set_text(said)
        self._said.set_visibility(bool(said))

    def _field(self, field: SettingField) -> None:
        value = self._draft.values[field.name]
        needed = " *" if field.needed else ""
        shown = _shown(field, value)
        widget: Any
        if field.kind == "boolean":
            widget = ui.checkbox(field.label, value=shown, on_change=lambda e: self._set(field, e.value))
        elif field.kind == "choice":
            choices = ["", *field.choices] if field.nullable else list(field.choices)
            title = field.title + needed
            widget = ui.select(
                choices, value=shown, label=title, on_change=lambda e: self._set(field, e.value)
            )
        else:
            widget = ui.input(field.title + needed, value=shown, placeholder=_placeholder(field))
            widget.on("change", lambda: self._set(field, widget.value))
            if field.is_file:
                self._add_chooser(field, widget)
        widget.props("dense")
        self._widgets.append((field, widget))
        widget.tooltip(f"{field.help} (default: {_default(field)})")

    def _add_chooser(self, field: SettingField, widget: ui.input) -> None:
        chooser = FileChooser(self._visitor, field.name, parent_of(self._draft.series[0]))

        async def choose() -> None:
            path = await chooser.ask(field.label)
            if path is not None:
                await self._set(field, path)

        with widget.add_slot("append"):
            ui.button(icon="folder_open", on_click=choose).props(
                f'flat dense round size=sm aria-label="Choose {field.label}"'
            )

    async def _set(self, field: SettingField, given: Any) -> None:
        if self._draft.set(field, given):
            self.refresh()
            await self._changed()

    async def _choose_fit(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if event.value != self._draft.fit:
            self._draft.choose_fit(event.value)
            self.show()
            await self._changed()

    async def _choose_preset(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if event.value is None:
            return
        try:
            self._draft.choose_preset(self._presets[event.value])
        except ClusterError as error:
            complain(error)
            return
        self._fit.set_value(self._draft.fit)
        self.show()
        await self._changed()

    async def _reset(self) -> None:
        self._draft.reset()
        self._preset.set_value(None)
        self.refresh()
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


def _shown(field: SettingField, value: Any) -> Any:
    """Return a value as its widget takes it."""
    if field.kind == "boolean":
        return bool(value)
    if field.kind == "choice":
        return value or ("" if field.nullable else field.choices[0])
    return field.text_of(value)


def _placeholder(field: SettingField) -> str:
    if field.default is None:
        return "a path beside the series or under the data folder" if field.group == "Files" else "automatic"
    return ""


def _default(field: SettingField) -> str:
    return "none" if field.default is None else field.text_of(field.default)
