"""A dialog that walks through the data server's folders, for settings that name a file."""

from __future__ import annotations

from nicegui import ui

from cluster.errors import ClusterError
from cluster.web.models.series_lines import SeriesLine, files_for, trail
from cluster.web.visitors import Visitor


class FileChooser:
    """Chooses a file for a setting, beginning in a folder."""

    def __init__(self, visitor: Visitor, setting: str, under: str) -> None:
        self._visitor = visitor
        self._setting = setting
        self._under = under

    async def ask(self, title: str) -> str | None:
        """Return the path of the file that was chosen, None if the dialog was closed."""
        with ui.dialog() as dialog, ui.card().classes("chooser"):
            ui.label(title).classes("view-title").props("role=heading aria-level=2")
            self._trail = ui.row().style("gap: 4px")
            self._body = ui.column().classes("scroll full-width").style("gap: 0; max-height: 50vh")
            with ui.row().classes("full-width"):
                ui.space()
                ui.button("Close", on_click=lambda: dialog.submit(None)).props("flat no-caps")
        self._dialog = dialog
        await self._go(self._under)
        found: str | None = await dialog
        dialog.delete()
        return found

    async def _go(self, under: str) -> None:
        trouble = ""
        lines: list[SeriesLine] = []
        try:
            listing = await self._visitor.ask(self._visitor.client.series, under, calibrations=True)
            lines = files_for(listing, self._setting, self._visitor.wall())
            self._under = under
        except ClusterError as error:
            trouble = error.detail
        self._trail.clear()
        with self._trail:
            for name, path in trail(under):
                ui.button(name, on_click=lambda _, path=path: self._go(path)).props(
                    "flat dense no-caps size=sm"
                )
        self._body.clear()
        with self._body:
            if trouble or not lines:
                ui.label(trouble or "There is no file for this setting here.").classes("quiet q-pa-sm")
            for line in lines:
                self._line(line)

    def _line(self, line: SeriesLine) -> None:
        act = (
            (lambda _, path=line.path: self._go(path))
            if line.is_folder
            else (lambda _, path=line.path: self._dialog.submit(path))
        )
        button = ui.button(on_click=act).props("flat no-caps align=left").classes("full-width")
        with button, ui.row().classes("full-width items-center no-wrap").style("gap: 10px"):
            ui.icon("folder" if line.is_folder else "description", size="20px")
            ui.label(line.name)
            ui.space()
            ui.label(f"{line.size} {line.changed}").classes("quiet small")
