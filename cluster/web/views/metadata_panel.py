"""The metadata: every value with where it is from, to be put right where it stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import events, ui

from cluster.protocol import JobCheck, ProfileListing
from cluster.web.models.draft import Draft
from cluster.web.models.metadata_rows import BY_ITSELF, MetadataRow, profile_choices, rows_of, typed


class MetadataPanel:
    """The widgets. `changed` is awaited when a value was typed."""

    def __init__(
        self, draft: Draft, profiles: ProfileListing, changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._draft = draft
        self._profiles = profiles
        self._changed = changed
        self._shown: list[MetadataRow] = []

    def build(self) -> None:
        """Make the widgets."""
        if self._profiles.profiles:
            self._profile = ui.select(
                profile_choices(self._profiles),
                value=self._draft.microscope or BY_ITSELF,
                label="Microscope profile",
                on_change=self._choose_profile,
            )
            self._profile.props("dense").classes("full-width")
        else:
            with ui.row().classes("quiet small").style("gap: 0 6px"):
                ui.label("What is true of this microscope every day can stand in a profile:")
                ui.label("clusterofone profiles SERIES --new NAME").classes("mono text-no-wrap")
        self._said = ui.label().classes("tone-bad text-weight-medium")
        self._body = ui.column().classes("scroll").style("gap: 0")
        with ui.row().classes("items-center full-width").style("gap: 8px"):
            self._key = (
                ui.input(placeholder="Another key, e.g. Sample.Name")
                .props('dense aria-label="Another key"')
                .classes("col")
            )
            self._value = ui.input(placeholder="value").props('dense aria-label="Its value"').classes("col")
            ui.button("Add", on_click=self._add).props("flat dense")

    def show(self, check: JobCheck, doubts: dict[str, str]) -> None:
        """Show what the metadata are now."""
        if self._profiles.profiles:
            self._profile.set_value(self._draft.microscope or BY_ITSELF)
        missing = len(check.missing)
        said = (
            f"{missing} value{'s' * (missing != 1)} missing: type {'them' if missing != 1 else 'it'} below"
            if missing
            else ""
        )
        if check.fault is not None and not missing:
            said = check.fault.detail
        self._said.set_text(said)
        self._said.set_visibility(bool(said))
        rows = rows_of(check, self._draft.edits, doubts)
        if rows == self._shown:
            return
        self._shown = rows
        self._body.clear()
        with self._body:
            for row in rows:
                self._row(row)

    def _row(self, row: MetadataRow) -> None:
        tone = "urgent" if row.urgent else "doubtful" if row.doubt else ""
        with ui.element("div").classes(f"line metadata-line {tone}"):
            with ui.element("div"):
                ui.label(row.key).classes("mono small" + (" text-weight-bold" if row.required else ""))
                if row.meaning:
                    ui.label(row.meaning).classes("quiet small")
                if row.doubt:
                    ui.label(row.doubt).classes("tone-warning small")
            field = ui.input(value=row.value, placeholder="needed" if row.urgent else "").props(
                f'dense aria-label="{row.key}"'
            )
            field.on("change", lambda _, key=row.key, field=field: self._edit(key, field.value))
            with ui.row().classes("items-center no-wrap").style("gap: 4px"):
                ui.label(row.source).classes("small " + ("tone-busy" if row.edited else "quiet"))
                if row.edited:
                    ui.button(icon="undo", on_click=lambda _, key=row.key: self._edit(key, "")).props(
                        'flat dense round size=sm aria-label="Take back"'
                    )

    async def _choose_profile(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if (event.value or None) != self._draft.microscope:
            self._draft.microscope = event.value or None
            await self._changed()

    async def _edit(self, key: str, text: Any) -> None:
        self._draft.edit(key, typed(str(text or "")))
        await self._changed()

    async def _add(self) -> None:
        key = (self._key.value or "").strip()
        if key and (self._value.value or "").strip():
            await self._edit(key, self._value.value)
            self._key.set_value("")
            self._value.set_value("")
