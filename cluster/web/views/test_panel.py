"""The Test: what would be found on a few frames, drawn, counted, and redrawn when the threshold moves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nicegui import events, ui

from cluster.errors import ClusterError
from cluster.protocol import Preview
from cluster.web.models.draft import Draft
from cluster.web.models.findings import ACCEPTED, CROWDED, REJECTED, findings, overlay, redraws, summary
from cluster.web.models.svg import histogram
from cluster.web.views.slider import Slider
from cluster.web.views.viewer import Viewer
from cluster.web.visitors import Visitor

_SPREAD: Final = 12
_KEY: Final = (
    (ACCEPTED, '<circle cx="7" cy="7" r="5"/>', "localised"),
    (REJECTED, '<path d="M2 2L12 12M2 12L12 2"/>', "fit did not converge"),
    (CROWDED, '<rect x="2" y="2" width="10" height="10"/>', "too near a brighter one"),
)


class TestPanel:
    """The widgets. `changed` is awaited when the threshold was moved."""

    def __init__(
        self, visitor: Visitor, draft: Draft, viewer: Viewer, changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._visitor = visitor
        self._draft = draft
        self._viewer = viewer
        self._changed = changed
        self._preview: Preview | None = None
        self._tested_at = 1.0
        self._stale = False
        self._buttons: list[ui.button] = []

    def build(self) -> None:
        """Make the widgets."""
        with ui.row().classes("items-center full-width").style("gap: 10px"):
            self._spread = ui.button(
                f"Test {_SPREAD} frames", icon="science", on_click=lambda: self._test(_SPREAD)
            )
            self._current = ui.button(
                "Test this frame", on_click=lambda: self._test([self._viewer.frame])
            ).props("outline")
            self._spinner = ui.spinner(size="24px")
            self._spinner.set_visibility(False)
        with ui.row().classes("items-center full-width no-wrap").style("gap: 12px"):
            ui.label("Threshold")
            self._slider = Slider(
                min=0.3,
                max=10.0,
                step=0.05,
                value=self._draft.threshold,
                on_change=lambda e: self._move(float(e.value)),
            )
            self._slider.props('aria-label="Threshold"').on(
                "change", self._let_go
            )  # when it is let go, not while it moves
            self._value = ui.label(f"{self._draft.threshold:g}").classes("mono").style("width: 40px")
        self._said = ui.label("Press Test: it does on a few frames what the job will do on all.").classes(
            "quiet"
        )
        self._advice = ui.label().classes("tone-warning text-weight-medium")
        self._advice.set_visibility(False)
        marks = (
            f'<span class="key"><svg width="14" height="14" fill="none" stroke="{colour}" stroke-width="2">{shape}</svg>{word}</span>'
            for colour, shape, word in _KEY
        )
        ui.html("".join(marks), sanitize=False).classes("small")
        self._frames = ui.row().classes("full-width").style("gap: 4px")
        with ui.row().classes("full-width no-wrap"):
            self._photons = ui.html(sanitize=False).classes("col")
            self._sigma = ui.html(sanitize=False).classes("col")

    def settings_changed(self) -> None:
        """Note that what was tested is no longer what would run; the threshold alone is redrawn."""
        if abs(self._slider.value - self._draft.threshold) > 1e-9:
            self._slider.set_value(self._draft.threshold)
        self._stale = self._preview is not None and not self._still_holds()
        self.show()

    def show(self) -> None:
        """Draw what is known at the threshold as it is now."""
        self._value.set_text(f"{self._draft.threshold:g}")
        preview = self._preview
        if preview is None:
            return
        threshold = max(self._draft.threshold, self._tested_at)
        facts = self._viewer.facts
        found = summary(preview, threshold, facts.height * facts.width)
        self._said.set_text(found.text)
        advice = found.advice
        if self._stale:
            advice = "Settings were changed since: press Test again."
        elif not redraws(self._tested_at, self._draft.threshold):
            advice = f"This is what {self._tested_at:g} finds: press Test to see what a lower threshold adds."
        self._advise(advice)
        self._photons.set_content(histogram(found.photons, title="photons", unit=""))
        self._sigma.set_content(histogram(found.sigma_px, title="σ of the PSF", unit="px"))
        self._show_frames(preview, threshold)
        self.draw(self._viewer.frame)

    def _advise(self, said: str) -> None:
        self._advice.set_text(said)
        self._advice.set_visibility(bool(said))

    def draw(self, number: int) -> None:
        """Lay what was found in a frame over it, if it was tested."""
        preview = self._preview
        frame = (
            None if preview is None else next((one for one in preview.frames if one.frame == number), None)
        )
        if preview is None or frame is None:
            self._viewer.draw("")
            return
        threshold = max(self._draft.threshold, self._tested_at)
        self._viewer.draw(overlay(findings(frame, threshold), preview.channels))

    async def _test(self, frames: int | list[int]) -> None:
        if self._draft.mistakes:
            self._advise(self._draft.mistake)
            return
        request = self._draft.preview(frames)
        for button in (self._spread, self._current):
            button.set_enabled(False)
        self._spinner.set_visibility(True)
        try:
            preview = await self._visitor.ask(
                self._visitor.client.preview,
                request.series,
                analysis=request.analysis,
                metadata=request.metadata,
                frames=request.frames,
            )
        except ClusterError as error:
            self._advise(error.detail)
            return
        finally:
            self._spinner.set_visibility(False)
            for button in (self._spread, self._current):
                button.set_enabled(True)
        self._preview, self._stale = preview, False
        self._tested_at = float(request.analysis.get("threshold", 1.0))
        self._asked = (request.analysis, request.metadata)
        self._build_frames(preview)
        self._viewer.go(
            min(
                (frame.frame for frame in preview.frames), key=lambda number: abs(number - self._viewer.frame)
            )
        )
        self.show()

    def _still_holds(self) -> bool:
        analysis, metadata = self._asked
        now = self._draft.analysis
        return {**now, "threshold": 0} == {**analysis, "threshold": 0} and self._draft.edits == metadata

    def _move(self, threshold: float) -> None:
        if abs(threshold - self._draft.threshold) > 1e-9:
            self._draft.values["threshold"] = round(threshold, 3)
            self.show()

    async def _let_go(self, event: events.GenericEventArguments) -> None:
        """Take the value from this event: those of the moves before come late, as they are throttled."""
        self._move(float(event.args))
        await self._changed()

    def _build_frames(self, preview: Preview) -> None:
        self._frames.clear()
        with self._frames:
            self._buttons = [
                ui.button(on_click=lambda _, number=frame.frame: self._viewer.go(number)).props(
                    "outline dense no-caps size=sm"
                )
                for frame in preview.frames
            ]

    def _show_frames(self, preview: Preview, threshold: float) -> None:
        for frame, button in zip(preview.frames, self._buttons, strict=True):
            found = findings(frame, threshold)
            button.set_text(f"{frame.frame}: {'!' if found.reason else len(found.accepted)}")
            counts = f"{len(found.accepted)} localised of {found.candidates} candidates"
            button.props["title"] = found.reason or counts
            button.update()
