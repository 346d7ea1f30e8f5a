"""One job: how far it is, the picture that grows, what failed and why, what to take home."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request
from nicegui import background_tasks, ui

from cluster.errors import ClusterError, Conflict
from cluster.protocol import Job, JobDetail
from cluster.web.desktop import NAME
from cluster.web.desktop_routes import desktop_of
from cluster.web.models.job_lines import JobLine, failures, line_of, nothing_happens, pyme_command
from cluster.web.models.machines import usable
from cluster.web.models.picture_choice import PictureChoice, field_of
from cluster.web.models.wording import moment
from cluster.web.views.downloads import download_links
from cluster.web.views.drift_panel import DriftPanel
from cluster.web.views.histograms_panel import HistogramsPanel
from cluster.web.views.jobs import cancel_dialog
from cluster.web.views.picture import PictureView
from cluster.web.views.shell import complain, empty, shell
from cluster.web.visitors import Overview, Visitor, visitor_of

_FIGURES: Final = (
    ("Frames", "frames"),
    ("Localisations", "localisations"),
    ("Frames/s", "rate"),
    ("Localisations/s", "localisation_rate"),
    ("Time", "left"),
)
_OPENING_S: Final = 15.0
_ASK_TO_OPEN: Final = (
    "const reply = await fetch('/data/jobs/%s/open', {method: 'POST'}); "
    "return reply.ok ? '' : (await reply.json()).detail"
)


@ui.page("/job/{job_id}", title="Job · clusterofone", response_timeout=30.0)
async def job(request: Request, job_id: str) -> None:
    """Show a job."""
    visitor = visitor_of(request.scope)
    try:
        detail = await visitor.ask(visitor.client.job, job_id)
    except ClusterError as error:
        with shell(visitor, ""):
            empty("This job cannot be shown.", error.detail)
            ui.link("All jobs", "/jobs")
        return
    view = JobView(visitor, detail, at_screen=desktop_of(request) is not None)
    with shell(visitor, "", view.show):
        view.build()


class JobView:
    """The widgets of one job."""

    def __init__(self, visitor: Visitor, detail: JobDetail, *, at_screen: bool) -> None:
        self._visitor = visitor
        self._at_screen = at_screen
        self._detail = detail
        self._failed: Any = None
        values = {key: entry.value for key, entry in detail.metadata.items()}
        pixels = [1000 * float(values[f"voxelsize.{axis}"]) for axis in "xy"]
        facts = detail.facts
        whole = PictureChoice(field_of(facts.height, facts.width, pixels[0], pixels[1]))
        self._picture = PictureView(
            detail.id,
            whole,
            has_z="z" in detail.fit.lower() or "Astig" in detail.fit or "Interp" in detail.fit,
        )
        self._histograms = HistogramsPanel(visitor, detail.id, self._picture.filter)
        markers = bool(detail.analysis.get("track_fiducials"))
        self._drift = DriftPanel(visitor, detail.id, self._picture.take_off, markers=markers)

    def build(self) -> None:
        """Make the widgets."""
        detail = self._detail
        with ui.row().classes("full-width items-center no-wrap"):
            with ui.column().style("gap: 0"):
                ui.label(detail.name).classes("view-title").props("role=heading aria-level=1")
                ui.label(
                    f"{detail.series} · {detail.fit} · {detail.owner} · {moment(detail.created)}"
                ).classes("quiet small")
            ui.space()
            self._state = ui.label().classes("state")
            may = self._visitor.may_submit
            self._cancel = ui.button(
                "Cancel", icon="stop", on_click=lambda: cancel_dialog(self._visitor, detail.id)
            ).props("outline")
            self._retry = ui.button("Retry failed frames", icon="replay", on_click=self._retry_it).props(
                "outline"
            )
            again = ui.button(
                "Same settings again",
                icon="tune",
                on_click=lambda: ui.navigate.to(f"/analyse?like={detail.id}"),
            ).props("flat")
            for button in (self._cancel, self._retry, again):
                button.set_visibility(may)
        self._bar = ui.linear_progress(show_value=False).props(
            'rounded animation-speed=300 aria-label="frames done"'
        )
        self._note = ui.label().classes("tone-warning")
        with ui.element("div").classes("result"):
            with ui.column().classes("full-width").style("gap: 8px"):
                self._picture.build()
                with ui.column().classes("panel").style("gap: 6px"):
                    self._drift.build()
            with ui.column().classes("full-width").style("gap: 10px"):
                self._build_figures()

    def _build_figures(self) -> None:
        self._figures: dict[str, ui.label] = {}
        with ui.element("div").classes("panel figures"):
            for word, name in _FIGURES:
                with ui.column():
                    ui.label(word).classes("small quiet")
                    self._figures[name] = ui.label()
        with ui.column().classes("panel").style("gap: 6px") as self._failures:
            ui.label("Failed frames").classes("text-weight-bold tone-warning")
            self._failed_rows = ui.column().classes("full-width").style("gap: 2px")
        with ui.column().classes("panel").style("gap: 6px"):
            self._histograms.build()
        self._build_take_home()
        with ui.expansion("How it was done", icon="settings").classes("full-width"):
            for note in self._detail.notes:
                ui.label(note).classes("small")
            with ui.element("div").classes("facts small"):
                for name, value in self._detail.analysis.items():
                    ui.label(name)
                    ui.label(json.dumps(value, ensure_ascii=False)).classes("mono")

    def _build_take_home(self) -> None:
        with ui.column().classes("panel").style("gap: 6px"):
            ui.label("Take it home").classes("text-weight-bold")
            self._picture.build_links()
            with ui.column().classes("full-width").style("gap: 6px") as self._take:
                download_links(self._detail.id)
                self._output = ui.label().classes("small quiet mono output")
                with ui.row().classes("items-center full-width").style("gap: 6px"):
                    if self._at_screen:
                        self._opener = ui.button(
                            f"Open in {NAME}", icon="open_in_new", on_click=self._open_here
                        ).props("outline dense no-caps")
                    else:
                        ui.label(f"In {NAME}, on the cluster's machine:").classes("small")
                    ui.button("Copy the command", icon="content_copy", on_click=self._copy_command).props(
                        "flat dense no-caps size=sm"
                    )

    def _copy_command(self) -> None:
        ui.clipboard.write(pyme_command(self._output.text))
        ui.notify("Copied: paste it into a terminal on the machine that has the file.")

    async def _open_here(self) -> None:
        """Have the browser ask for it, as it says that it is this page that asks."""
        self._opener.set_enabled(False)
        try:
            said = await ui.run_javascript(_ASK_TO_OPEN % quote(self._detail.id), timeout=_OPENING_S)
        except TimeoutError:
            said = "the page does not answer"
        finally:
            self._opener.set_enabled(True)
        if said:
            ui.notify(said, type="negative", multi_line=True, timeout=10_000, close_button="Close")
        else:
            ui.notify(f"{NAME} starts; its window takes some seconds.")

    def show(self, overview: Overview) -> None:
        """Show the job as it is now."""
        found = next((one for one in overview.jobs if one.id == self._detail.id), None)
        if found is None:
            return
        line = line_of(found, overview.seen)
        self._state.set_text(line.state)
        self._state.classes(replace=f"state tone-{line.tone}")
        self._bar.set_value(round(line.fraction, 4))
        note = line.note or nothing_happens(found, usable(overview.workers))
        self._note.set_text(note)
        self._note.set_visibility(bool(note))
        for name, label in self._figures.items():
            label.set_text(str(getattr(line, name)))
        self._cancel.set_visibility(line.open and self._visitor.may_submit)
        self._retry.set_visibility(line.can_retry and self._visitor.may_submit)
        self._take.set_visibility(line.has_result)
        self._output.set_text(found.output or "")
        self._show_failures(found)
        self._show_picture(line, overview.seen)

    def _show_failures(self, found: Job) -> None:
        self._failures.set_visibility(bool(found.failed_frames))
        if found.failed_frames == self._failed:
            return
        self._failed = found.failed_frames
        self._failed_rows.clear()
        with self._failed_rows:
            for frames, why in failures(found.failed_frames):
                ui.label(frames).classes("text-weight-medium")
                ui.label(why).classes("small")

    def _show_picture(self, line: JobLine, now: float) -> None:
        """Draw it anew while rows come, now and then, and once more at the end."""
        if self._picture.grow(line.localisations != "0", now, line.localisations, ended=not line.open):
            background_tasks.create(self._histograms.refresh())

    async def _retry_it(self) -> None:
        try:
            await self._visitor.ask(self._visitor.client.retry, self._detail.id)
        except Conflict:  # these frames are part of tasks that are done: the same file gives the same again
            ui.notify(
                "These frames cannot be read, so to try again changes nothing. Mend the file, then choose Same settings again.",
                type="warning",
                multi_line=True,
                timeout=10_000,
                close_button="Close",
            )
        except ClusterError as error:
            complain(error)
        else:
            ui.notify("The failed frames are queued again.")
