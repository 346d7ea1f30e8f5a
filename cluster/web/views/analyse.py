"""One series, or several alike, from the first look to Go: frames on the left; metadata, settings and Test on the right."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Query, Request
from nicegui import events, ui

from cluster.errors import ClusterError
from cluster.protocol import JobCheck, PresetInfo, ProfileListing, SeriesFacts
from cluster.web.models.draft import Draft, Rectangle
from cluster.web.models.metadata_rows import OFFSET_KEY, offset_doubt
from cluster.web.models.series_lines import sentence
from cluster.web.models.wording import plural
from cluster.web.views.metadata_panel import MetadataPanel
from cluster.web.views.settings_panel import SettingsPanel
from cluster.web.views.shell import attempt, complain, empty, shell
from cluster.web.views.test_panel import TestPanel
from cluster.web.views.viewer import Viewer
from cluster.web.visitors import Visitor, visitor_of

_TURNS: Final = {10: "before others", 0: "in turn", -10: "after others"}  # priorities of jobs


@ui.page("/analyse", title="Analyse · clusterofone", response_timeout=30.0)
async def analyse(
    request: Request, series: Annotated[list[str] | None, Query()] = None, like: str = ""
) -> None:
    """Show a series and what would be done with it; `like` takes over the settings of a job."""
    visitor = visitor_of(request.scope)
    try:
        draft = await _draft(visitor, series or [], like)
        presets = await visitor.ask(visitor.client.presets)
        facts = await visitor.ask(visitor.client.facts, draft.series[0])
        profiles = await visitor.ask(visitor.client.profiles, draft.series[0])
    except ClusterError as error:
        with shell(visitor, ""):
            empty("This series cannot be shown.", error.detail)
            ui.link("All series", "/")
        return
    with shell(visitor, ""):
        if facts.frames == 0:
            empty("This series holds no frames yet.", "Reload the page when the camera has taken some.")
            return
        workbench = Workbench(visitor, draft, facts, presets, profiles)
        workbench.build()
    await workbench.check()


async def _draft(visitor: Visitor, series: list[str], like: str) -> Draft:
    fits = await visitor.ask(visitor.client.fits)
    if like:
        return Draft.like(await visitor.ask(visitor.client.job, like), fits, series)
    return Draft.begin(series, fits)


class Workbench:
    """The widgets, and the one draft that all of them change."""

    def __init__(
        self,
        visitor: Visitor,
        draft: Draft,
        facts: SeriesFacts,
        presets: list[PresetInfo],
        profiles: ProfileListing,
    ) -> None:
        self._visitor = visitor
        self._draft = draft
        self._facts = facts
        self._viewer = Viewer(visitor, facts, self._frame_shown, self._choose_roi)
        self._metadata = MetadataPanel(draft, profiles, self.check)
        self._settings = SettingsPanel(visitor, draft, presets, self.check)
        self._test = TestPanel(visitor, draft, self._viewer, self._threshold_moved)

    def build(self) -> None:
        """Make the widgets."""
        others = len(self._draft.series) - 1
        with ui.row().classes("full-width items-center no-wrap"):
            with ui.column().style("gap: 0"):
                title = self._facts.path + (f" and {others} more with the same settings" if others else "")
                ui.label(title).classes("view-title").props("role=heading aria-level=1")
                ui.label(sentence(self._facts)).classes("quiet small")
            ui.space()
            self._said = ui.label().classes("small").style("text-align: right; max-width: 380px")
            if not self._facts.complete:
                follow = ui.checkbox("also frames to come", value=True, on_change=self._turn_follow)
                follow.tooltip("The series is still growing: the job goes on until it is whole")
                self._draft.follow = True
            turn = ui.select(
                _TURNS,
                value=0,
                label="In the queue",
                on_change=lambda e: setattr(self._draft, "priority", e.value),
            )
            turn.props("dense options-dense").style("width: 120px")
            self._go = ui.button(
                "Go" if not others else f"Go ({others + 1} jobs)", icon="rocket_launch", on_click=self._submit
            ).props("size=lg no-wrap")
            self._go.set_enabled(False)
        with ui.element("div").classes("workbench"):
            with ui.column().classes("full-width").style("gap: 8px"):
                self._viewer.build()
            with ui.column().classes("full-width").style("gap: 0"):
                with ui.tabs().props("dense align=left no-caps").classes("full-width") as tabs:
                    metadata = ui.tab("Metadata")
                    settings = ui.tab("Settings")
                    test = ui.tab("Test")
                self._tabs, self._test_tab, self._metadata_tab = tabs, test, metadata
                with (
                    ui.tab_panels(tabs, value=metadata)
                    .classes("full-width")
                    .props("keep-alive") as self._panels
                ):
                    with ui.tab_panel(metadata):
                        self._metadata.build()
                    with ui.tab_panel(settings):
                        self._settings.build()
                    with ui.tab_panel(test):
                        self._test.build()
        self._viewer.mark(self._draft.roi)

    async def check(self) -> None:
        """Ask what the job would be, and show it everywhere."""
        request = self._draft.request(self._draft.series[0])
        if not self._visitor.may_submit:
            self._said.set_text("Your token may look, not start jobs.")
            return
        check = await attempt(self._visitor, self._visitor.client.check, request)
        if check is None:
            return
        fault = check.fault
        about_metadata = fault is not None and bool(
            fault.keys or fault.field in check.metadata or fault.field == "metadata"
        )
        self._metadata.show(check, await self._doubts(check))
        self._settings.complain("" if fault is None or about_metadata else fault.detail)
        self._viewer.mark(self._draft.roi)
        self._test.settings_changed()
        self._go.set_enabled(fault is None and not self._draft.mistakes)
        self._say(check)

    def _say(self, check: JobCheck) -> None:
        if self._draft.mistakes:
            said, tone = self._draft.mistake, "tone-bad"
        elif check.missing:
            said, tone = f"{plural(len(check.missing), 'value')} missing, red in the metadata", "tone-bad"
        elif check.fault is not None:
            said, tone = check.fault.detail, "tone-bad"
        elif check.start is not None and check.stop is not None:
            said, tone = (
                f"{check.stop - check.start:,} frames, from {check.start} to {check.stop - 1}, with {self._draft.fit}",
                "quiet",
            )
        else:
            said, tone = "", "quiet"
        self._said.set_text(said)
        self._said.classes(replace=f"small {tone}")

    async def _doubts(self, check: JobCheck) -> dict[str, str]:
        values = {key: entry.value for key, entry in check.metadata.items()}
        noted = [note for note in check.notes if note.startswith(f"{OFFSET_KEY} looks wrong")]
        if OFFSET_KEY not in values:
            return {}
        frame = await attempt(self._visitor, self._visitor.frames.get, self._facts.path, self._viewer.frame)
        if frame is None:
            return {}
        noise, gain = values.get("Camera.ReadNoise"), values.get("Camera.ElectronsPerCount")
        known = isinstance(noise, int | float) and isinstance(gain, int | float) and gain > 0
        noise_adu = noise / gain if known and noise and gain else 0.0
        doubt = noted[0] if noted else offset_doubt(frame, values[OFFSET_KEY], noise_adu)
        return {OFFSET_KEY: doubt} if doubt else {}

    async def _threshold_moved(self) -> None:
        self._settings.refresh()
        await self.check()

    async def _turn_follow(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self._draft.follow = bool(event.value)
        await self.check()

    def _frame_shown(self, number: int) -> None:
        self._test.draw(number)

    async def _choose_roi(self, roi: Rectangle | None) -> None:
        self._draft.values["roi"] = None if roi is None else list(roi)
        self._settings.refresh()
        await self.check()

    async def _submit(self) -> None:
        self._go.set_enabled(False)
        made = []
        for series in self._draft.series:
            try:
                made.append(
                    await self._visitor.ask(
                        self._visitor.client.submit_request, self._draft.request(series, self._visitor.owner)
                    )
                )
            except ClusterError as error:
                complain(error)
        if len(made) == len(self._draft.series) == 1:
            ui.navigate.to(f"/job/{made[0].id}")
        elif made:
            ui.navigate.to("/jobs")
        else:
            self._go.set_enabled(True)
