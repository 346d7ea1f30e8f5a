"""By how much the sample moved, and the picture without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from nicegui import events, ui

from cluster.errors import ClusterError
from cluster.protocol import DriftMethod, JobDrift
from cluster.web.models.svg import curves, figure
from cluster.web.visitors import Visitor

_AS_IT_IS: Final = ""


class DriftPanel:
    """The widgets. `on_choose` is told which drift to take off the picture."""

    def __init__(
        self, visitor: Visitor, job_id: str, on_choose: Callable[[DriftMethod | None], None], *, markers: bool
    ) -> None:
        self._visitor = visitor
        self._job_id = job_id
        self._on_choose = on_choose
        self._markers = markers

    def build(self) -> None:
        """Make the widgets."""
        choices = {_AS_IT_IS: "as it is", "correlation": "corrected, from the localisations"}
        if self._markers:
            choices["markers"] = "corrected, from the markers"
        with ui.row().classes("full-width items-center no-wrap").style("gap: 10px"):
            ui.label("Drift").classes("text-weight-bold")
            self._choice = ui.select(choices, value=_AS_IT_IS, on_change=self._choose)
            self._choice.props('dense aria-label="Drift"').classes("col")
            self._spinner = ui.spinner(size="20px")
            self._spinner.set_visibility(False)
        self._curve = ui.html(sanitize=False).classes("full-width")
        self._said = ui.label().classes("small quiet")
        for part in (self._curve, self._said):
            part.set_visibility(False)

    async def _choose(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if event.value == _AS_IT_IS:
            self._on_choose(None)
            for part in (self._curve, self._said):
                part.set_visibility(False)
            return
        method = cast("DriftMethod", event.value)
        self._spinner.set_visibility(True)
        try:
            found = await self._visitor.ask(self._visitor.client.drift, self._job_id, method)
        except ClusterError as error:
            self._said.set_text(error.detail)
            self._said.set_visibility(True)
            self._choice.set_value(_AS_IT_IS)
            self._said.set_visibility(True)
            return
        finally:
            self._spinner.set_visibility(False)
        self._show(found)
        self._on_choose(method)

    def _show(self, drift: JobDrift) -> None:
        self._curve.set_content(curves(drift.frame, {"x": drift.x_nm, "y": drift.y_nm}, unit="nm"))
        error = f" Uncertain by about {figure(drift.error_nm)} nm." if drift.error_nm is not None else ""
        self._said.set_text(
            f"{' '.join(drift.notes)}{error} The picture is shown without it; the rows stay as they are."
        )
        for part in (self._curve, self._said):
            part.set_visibility(True)
