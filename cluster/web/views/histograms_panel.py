"""How a job's localisations are distributed; a drag over a histogram leaves only that range in the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import events, ui

from cluster.errors import ClusterError
from cluster.protocol import Histogram, JobHistograms
from cluster.web.models.brushes import Brushes
from cluster.web.models.svg import brushed_histogram, figure
from cluster.web.models.wording import count
from cluster.web.visitors import Visitor


class HistogramsPanel:
    """The widgets. `on_filter` is told what is chosen now."""

    def __init__(self, visitor: Visitor, job_id: str, on_filter: Callable[[str | None], None]) -> None:
        self._visitor = visitor
        self._job_id = job_id
        self._on_filter = on_filter
        self._brushes = Brushes()
        self._known: dict[str, Histogram] = {}
        self._parts: dict[str, _Part] = {}
        self._asking = False

    def build(self) -> None:
        """Make the widgets."""
        with ui.row().classes("full-width items-center no-wrap").style("gap: 8px"):
            ui.label("Localisations").classes("text-weight-bold")
            self._said = ui.label("none yet").classes("small quiet")
            ui.space()
            self._clear = ui.button("Show all", icon="filter_alt_off", on_click=self._show_all).props(
                "flat dense no-caps size=sm"
            )
            self._clear.set_visibility(False)
        self._body = ui.element("div").classes("histograms")
        ui.on("brushed", self._brushed)

    async def refresh(self) -> None:
        """Count anew."""
        if self._asking:
            return
        self._asking = True
        try:
            found = await self._visitor.ask(
                self._visitor.client.histograms, self._job_id, self._brushes.query, bins=50
            )
        except ClusterError as error:
            self._said.set_text(error.detail)
            return
        finally:
            self._asking = False
        self._show(found)

    def _show(self, found: JobHistograms) -> None:
        self._known = {one.name: one for one in found.histograms}
        if list(self._known) != list(self._parts):
            self._body.clear()
            with self._body:
                self._parts = {name: _Part(one, self._ranged) for name, one in self._known.items()}
        for name, part in self._parts.items():
            part.show(self._known[name], self._brushes)
        if self._brushes:
            share = found.chosen / max(1, found.localisations)
            self._said.set_text(f"{count(found.chosen)} of {count(found.localisations)} shown ({share:.0%})")
        else:
            self._said.set_text("drag over a histogram to show only a part" if self._known else "none yet")
        self._clear.set_visibility(bool(self._brushes))

    async def _brushed(self, event: events.GenericEventArguments) -> None:
        histogram = self._known.get(str(event.args["name"]))
        if histogram is not None:
            first, second = float(event.args["from"]), float(event.args["to"])
            whole = abs(first - second) < 0.01  # a click takes the range away
            await self._choose(
                self._brushes.ranged(histogram.name, None, None)
                if whole
                else self._brushes.brushed(histogram, first, second)
            )

    async def _ranged(self, name: str, low: float | None, high: float | None) -> None:
        await self._choose(self._brushes.ranged(name, low, high))

    async def _show_all(self) -> None:
        await self._choose(Brushes())

    async def _choose(self, brushes: Brushes) -> None:
        if brushes == self._brushes:
            return
        self._brushes = brushes
        self._on_filter(brushes.query)
        await self.refresh()


class _Part:
    """One histogram: its title with the median, its bars, and the range as numbers for who has no mouse."""

    def __init__(
        self, histogram: Histogram, ranged: Callable[[str, float | None, float | None], Any]
    ) -> None:
        self._name = histogram.name
        self._ranged = ranged
        with ui.element("div").classes("histogram"):
            with ui.row().classes("full-width items-center no-wrap").style("gap: 4px"):
                self._title = ui.label().classes("small")
                ui.space()
                button = ui.button(icon="tune").props(
                    f'flat dense round size=xs aria-label="Range of {histogram.title}"'
                )
            with button, ui.menu() as self._menu, ui.column().classes("q-pa-sm").style("gap: 4px"):
                unit = f" [{histogram.unit}]" if histogram.unit else ""
                what = "frame" if histogram.name == "frame" else histogram.title
                self._low = ui.number(f"{what} from{unit}").props("dense clearable").style("width: 190px")
                self._high = ui.number(f"{what} to{unit}").props("dense clearable").style("width: 190px")
                ui.button("Show this range", on_click=self._take).props("dense no-caps")
            self._bars = ui.html(sanitize=False).classes("brush").props(f'data-brush="{histogram.name}"')
            with ui.row().classes("full-width no-wrap").style("gap: 4px"):
                self._from = ui.label().classes("small quiet")
                ui.space()
                self._to = ui.label().classes("small quiet")

    def show(self, histogram: Histogram, brushes: Brushes) -> None:
        """Show it as it is now."""
        chosen = brushes.of(histogram.name)
        self._bars.set_content(brushed_histogram(histogram, chosen))
        self._title.set_text(_title(histogram))
        self._from.set_text(figure(histogram.low))
        self._to.set_text(f"{figure(histogram.high)} {histogram.unit}".rstrip())
        self._low.set_value(chosen[0])
        self._high.set_value(chosen[1])

    async def _take(self) -> None:
        self._menu.close()
        low, high = (None if one.value is None else float(one.value) for one in (self._low, self._high))
        await self._ranged(self._name, low, high)


def _title(histogram: Histogram) -> str:
    if histogram.name == "frame":
        per_frame = sum(histogram.chosen) / max(1.0, histogram.high - histogram.low)
        return f"{histogram.title}: {figure(per_frame)}"
    if histogram.median is None:
        return histogram.title
    return f"{histogram.title}: {figure(histogram.median)} {histogram.unit}".rstrip()
