"""All jobs, newest first."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from nicegui import ui

from cluster.web.models.job_lines import JobLine, line_of
from cluster.web.views.downloads import download_menu
from cluster.web.views.shell import attempt, empty, shell
from cluster.web.visitors import Overview, Visitor, visitor_of

_SHOWN: Final = 100
_HEADINGS: Final = ("Job", "State", "Frames", "Localisations", "Frames/s", "Time", "")


@ui.page("/jobs", title="Jobs · clusterofone", response_timeout=30.0)
def jobs(request: Request) -> None:
    """Show the jobs."""
    visitor = visitor_of(request.scope)
    listed = JobTable(visitor)
    with shell(visitor, "/jobs", listed.show):
        ui.label("Jobs").classes("view-title").props("role=heading aria-level=1")
        listed.build()


class JobTable:
    """The lines, changed in place, so that nothing flickers and the keyboard's focus stays."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._lines: dict[str, JobRow] = {}

    def build(self) -> None:
        """Make the widgets."""
        self._body = ui.column().classes("full-width").style("gap: 0")

    def show(self, overview: Overview) -> None:
        """Show the jobs as they are now."""
        shown = [line_of(job, overview.seen) for job in overview.jobs[:_SHOWN]]
        if [line.id for line in shown] != list(self._lines) or not shown:
            self._rebuild(shown, len(overview.jobs) - len(shown))
        for line in shown:
            self._lines[line.id].show(line)

    def _rebuild(self, shown: list[JobLine], hidden: int) -> None:
        self._lines = {}
        self._body.clear()
        with self._body:
            if not shown:
                empty(
                    "No jobs yet.",
                    "Choose a series, test it, and press Go. Or from a terminal:",
                    "clusterofone submit SERIES",
                )
                ui.link("Choose a series", "/")
                return
            with ui.element("div").classes("line jobs-line head"):
                for heading in _HEADINGS:
                    ui.label(heading)
            for line in shown:
                self._lines[line.id] = JobRow(self._visitor, line)
            if hidden:
                ui.label(f"{hidden:,} older jobs are not shown; clusterofone jobs lists them all").classes(
                    "quiet small"
                )


class JobRow:
    """One job."""

    def __init__(self, visitor: Visitor, line: JobLine) -> None:
        self._visitor = visitor
        self._id = line.id
        with ui.element("div").classes("line jobs-line"):
            with ui.element("div"):
                ui.link(line.name, f"/job/{line.id}").classes("text-weight-medium")
                ui.label(f"{line.series} · {line.owner}").classes("quiet small")
            with ui.element("div"):
                self._state = ui.label().classes("state")
                self._note = ui.label().classes("small")
            with ui.element("div"):
                self._bar = ui.linear_progress(show_value=False).props(
                    'rounded animation-speed=300 aria-label="frames done"'
                )
                self._frames = ui.label().classes("small quiet")
            self._localisations = ui.label()
            self._rate = ui.label()
            self._left = ui.label()
            with ui.row().classes("no-wrap").style("gap: 2px"):
                self._cancel = ui.button(icon="stop", on_click=self._ask_to_cancel).props(
                    'flat dense round aria-label="Cancel"'
                )
                self._cancel.tooltip("Cancel; finished frames are kept")
                self._retry = ui.button(icon="replay", on_click=self._retry_it).props(
                    'flat dense round aria-label="Retry failed frames"'
                )
                self._retry.tooltip("Retry the failed frames")
                with ui.button(icon="download").props(
                    'flat dense round aria-label="Download"'
                ) as self._download:
                    download_menu(line.id)
        self._tone = ""

    def show(self, line: JobLine) -> None:
        """Show a job as it is now."""
        self._state.set_text(line.state)
        self._state.classes(replace=f"state tone-{line.tone}")
        self._note.set_text(line.note)
        self._note.set_visibility(bool(line.note))
        self._bar.set_value(round(line.fraction, 4))
        self._frames.set_text(line.frames)
        self._localisations.set_text(line.localisations)
        self._rate.set_text(line.rate)
        self._left.set_text(line.left)
        self._cancel.set_visibility(line.open and self._visitor.may_submit)
        self._retry.set_visibility(line.can_retry and self._visitor.may_submit)
        self._download.set_visibility(line.has_result)

    async def _ask_to_cancel(self) -> None:
        await cancel_dialog(self._visitor, self._id)

    async def _retry_it(self) -> None:
        await attempt(self._visitor, self._visitor.client.retry, self._id)


async def cancel_dialog(visitor: Visitor, job_id: str) -> None:
    """Cancel a job, if that is what is meant."""
    with ui.dialog() as dialog, ui.card():
        ui.label("Cancel this job?").classes("text-weight-bold")
        ui.label("The frames that are finished are kept, in a file whose name ends in _partial.h5r.")
        with ui.row().classes("justify-end full-width"):
            ui.button("Go on", on_click=lambda: dialog.submit(False)).props("flat")
            ui.button("Cancel the job", on_click=lambda: dialog.submit(True)).props("color=negative")
    if await dialog and await attempt(visitor, visitor.client.cancel, job_id):
        ui.notify("The job is cancelled; what was finished is kept.")
    dialog.delete()
