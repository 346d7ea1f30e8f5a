"""The data server's folders: what is there, and what to do with it."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote, urlencode

from fastapi import Request
from nicegui import events, ui

from cluster.errors import ClusterError
from cluster.protocol import SeriesListing
from cluster.web.models.series_lines import SeriesLine, is_of_no_use, lines_of, sentence, trail
from cluster.web.views.shell import attempt, empty, shell
from cluster.web.visitors import Visitor, visitor_of

_SHOWN: Final = 200
_HEADINGS: Final = ("", "", "Name", "Size", "Changed", "")


@ui.page("/", title="Series · clusterofone", response_timeout=30.0)
async def series(request: Request, under: str = "") -> None:
    """Show a folder."""
    visitor = visitor_of(request.scope)
    listing, trouble = SeriesListing(under=under, entries=[]), ""
    try:
        listing = await visitor.ask(visitor.client.series, under)
    except ClusterError as error:
        trouble = error.detail
    with shell(visitor, "/"):
        Browser(visitor, listing, trouble).build()


def analyse_link(paths: list[str]) -> str:
    """Return the address at which series are analysed."""
    return "/analyse?" + urlencode([("series", path) for path in paths])


class Browser:
    """The widgets of a folder."""

    def __init__(self, visitor: Visitor, listing: SeriesListing, trouble: str) -> None:
        self._visitor = visitor
        self._listing = listing
        self._trouble = trouble
        self._chosen: list[str] = []

    def build(self) -> None:
        """Make the widgets."""
        with ui.row().classes("full-width items-center"):
            ui.label("Series").classes("view-title").props("role=heading aria-level=1")
            with ui.row().style("gap: 4px"):
                for name, path in trail(self._listing.under):
                    ui.link(name, f"/?under={quote(path)}" if path else "/")
                    ui.label("/").classes("quiet")
            ui.space()
            self._wanted = ui.input(placeholder="Search this folder", on_change=self._show).props(
                'dense clearable aria-label="Search this folder"'
            )
            self._go = ui.button("Analyse the chosen", icon="play_arrow", on_click=self._analyse_chosen)
            self._go.set_enabled(False)
        self._body = ui.column().classes("full-width").style("gap: 0")
        self._show()
        if self._visitor.may_submit and not self._trouble:
            self._build_drop()

    def _build_drop(self) -> None:
        ui.add_body_html('<script src="/page/upload.js" defer></script>')
        with ui.element("div").classes("drop").props(f"data-under={json.dumps(self._listing.under)}"):
            with ui.row().classes("items-center").style("gap: 8px"):
                ui.icon("upload_file", size="24px").classes("quiet")
                ui.label("Files from elsewhere: drop them here, with the sidecar that belongs to them, or")
                ui.button("Choose files").props("flat dense no-caps").classes("drop-choose")
            ui.label("They are copied into this folder of the data server; nothing is written over.").classes(
                "quiet small"
            )
            ui.element("div").classes("drop-list full-width").props('aria-live="polite"')
        ui.on("uploaded", self._reload)

    async def _reload(self, event: events.GenericEventArguments) -> None:
        listing = await attempt(self._visitor, self._visitor.client.series, self._listing.under)
        if listing is None:
            return
        self._listing = listing
        self._show()
        name = str(event.args["name"])
        if is_of_no_use(name, listing):
            ui.notify(
                f"{name} was copied, but holds no frames that open here, so it is not in the list.",
                type="warning",
                timeout=10_000,
                close_button="Close",
            )

    def _show(self) -> None:
        lines = lines_of(self._listing, self._visitor.wall(), self._wanted.value or "")
        self._body.clear()
        with self._body:
            if self._trouble:
                empty("This folder cannot be shown.", self._trouble)
                ui.link("All series", "/").classes("q-mt-sm")
            elif not self._listing.entries:
                empty(
                    "There is no series here.",
                    "Copy raw data (TIFF, OME-TIFF, .h5, Zarr, .dax …) into this folder, or serve the folder where they are:",
                    "clusterofone --root FOLDER",
                )
                ui.label("To try it without data: clusterofone simulate FOLDER/series.tif").classes(
                    "quiet small q-mt-sm"
                )
            elif not lines:
                empty("No name has that in it.", "Clear the search to see everything.")
            else:
                self._show_lines(lines)

    def _show_lines(self, lines: list[SeriesLine]) -> None:
        with ui.element("div").classes("line series-line head"):
            for heading in _HEADINGS:
                ui.label(heading)
        for line in lines[:_SHOWN]:
            with ui.element("div").classes("line series-line"):
                self._folder(line) if line.is_folder else self._series(line)
        if len(lines) > _SHOWN:
            ui.label(f"{len(lines) - _SHOWN:,} more are not shown; search for a name").classes("quiet")

    def _folder(self, line: SeriesLine) -> None:
        ui.element("div")
        ui.icon("folder", size="28px").classes("quiet q-mx-sm")
        ui.link(line.name, f"/?under={quote(line.path)}")
        ui.label(line.size)
        ui.label(line.changed)

    def _series(self, line: SeriesLine) -> None:
        ui.checkbox(
            value=line.path in self._chosen, on_change=lambda e: self._choose(line.path, chosen=e.value)
        ).props('dense aria-label="Choose"')
        ui.html(
            f'<img class="thumb" loading="lazy" alt="" src="/data/thumbnail.png?{urlencode({"series": line.path})}">',
            sanitize=False,
        )
        with ui.element("div"):
            ui.link(line.name, analyse_link([line.path])).classes("text-weight-medium")
            said = ui.label().classes("quiet small")
            self._tell(line.path, said)
        ui.label(line.size)
        ui.label(line.changed)
        ui.link("Analyse", analyse_link([line.path])).classes("button-link")

    def _tell(self, path: str, label: ui.label) -> None:
        """Say what the series is as soon as it is known: opening a large one takes a moment."""

        async def ask() -> None:
            try:
                label.set_text(sentence(await self._visitor.ask(self._visitor.client.facts, path)))
            except ClusterError as error:
                label.set_text(error.detail)
                label.classes("tone-bad")

        ui.timer(0.0, ask, once=True)

    def _choose(self, path: str, *, chosen: bool) -> None:
        self._chosen = [one for one in self._chosen if one != path] + ([path] if chosen else [])
        self._go.set_enabled(bool(self._chosen))
        self._go.set_text(
            f"Analyse the chosen ({len(self._chosen)})" if self._chosen else "Analyse the chosen"
        )

    def _analyse_chosen(self) -> None:
        ui.navigate.to(analyse_link(self._chosen))
