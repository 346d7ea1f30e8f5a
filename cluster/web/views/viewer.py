"""The frames of a series: slider and keys, contrast, colours, zoom, the value under the cursor, a part to analyse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import events, ui

from cluster.errors import ClusterError
from cluster.protocol import SeriesFacts
from cluster.web.models.contrast import AUTO_PERCENT, COLOUR_MAPS, limits_of, value_at
from cluster.web.models.draft import Rectangle, rectangle_px
from cluster.web.models.svg import rectangle
from cluster.web.views.slider import Slider
from cluster.web.views.viewport import viewport
from cluster.web.visitors import Visitor

_ROI_COLOUR: Final = "#f0e442"
_PERCENTS: Final = {
    "normal": AUTO_PERCENT,
    "strong": (5.0, 99.0),
    "full range": (0.0, 100.0),
    "by hand": None,
}
_PLAY_S: Final = 0.15
_STEPS: Final = {"ArrowLeft": -1, "ArrowRight": 1, "PageUp": -100, "PageDown": 100}


class Viewer:
    """The widgets. `on_frame` is told which frame is shown, `on_roi` which part was drawn."""

    def __init__(
        self,
        visitor: Visitor,
        facts: SeriesFacts,
        on_frame: Callable[[int], None],
        on_roi: Callable[[Rectangle | None], Any],
    ) -> None:
        self.facts = facts
        self.frame = facts.frames // 2
        self._visitor = visitor
        self._on_frame = on_frame
        self._on_roi = on_roi
        self._roi: Rectangle | None = None
        self._overlay = ""
        self._limits: tuple[float, float] | None = None

    def build(self) -> None:
        """Make the widgets."""
        self._build_tools()
        shape = self.facts.width / self.facts.height
        with viewport("Frame; wheel zooms, drag moves", "here", shape) as (self._port, _):
            self._image = ui.interactive_image(events=["mousemove"], sanitize=False).classes("full-width")
            self._image.on("mouse", self._point, throttle=0.08)
        with ui.row().classes("full-width items-center no-wrap").style("gap: 8px"):
            self._play = ui.button(icon="play_arrow", on_click=self._turn_play).props(
                'flat dense round aria-label="Play"'
            )
            last = max(0, self.facts.frames - 1)
            self._slider = Slider(
                min=0, max=last, step=1, value=self.frame, on_change=lambda e: self._follow(int(e.value))
            )
            self._slider.props('aria-label="Frame"')
            self._number = ui.number(
                value=self.frame, min=0, max=last, step=1, on_change=self._type_frame
            ).props('dense aria-label="Frame number"')
            self._number.style("width: 90px")
            ui.label(f"of {self.facts.frames:,}").classes("quiet text-no-wrap")
        self._where = ui.label().classes("small quiet mono")
        self._timer = ui.timer(
            _PLAY_S, lambda: self.go((self.frame + 1) % max(1, self.facts.frames)), active=False
        )
        ui.on("frame_key", lambda e: self._key(str(e.args["key"])))
        ui.on("rectangle_drawn", self._drawn)
        self._show()

    def _build_tools(self) -> None:
        with ui.row().classes("items-center full-width").style("gap: 10px"):
            self._contrast = (
                ui.select(list(_PERCENTS), value="normal", label="Contrast", on_change=self._choose_contrast)
                .props("dense")
                .style("width: 110px")
            )
            with ui.row().classes("items-center no-wrap").style("gap: 6px") as self._by_hand:
                self._low = ui.number(label="black", on_change=self._hand).props("dense").style("width: 80px")
                self._high = (
                    ui.number(label="white", on_change=self._hand).props("dense").style("width: 80px")
                )
                self._ends = ui.range(min=0, max=1, value={"min": 0, "max": 1}).props(
                    'dense left-thumb-color=grey-8 aria-label="black and white"'
                )
                self._ends.style("width: 120px").on("update:model-value", self._drag_ends, throttle=0.1)
            self._by_hand.set_visibility(False)
            self._colours = (
                ui.select(list(COLOUR_MAPS), value="grey", label="Colours", on_change=self._show)
                .props("dense")
                .style("width: 100px")
            )
            ui.space()
            self._draw = ui.button("Draw ROI", icon="crop", on_click=self._turn_drawing).props(
                "flat dense no-caps"
            )
            self._clear = ui.button(
                "Whole frame", icon="crop_free", on_click=lambda: self._on_roi(None)
            ).props("flat dense no-caps")

    def go(self, number: int) -> None:
        """Show a frame."""
        bounded = min(max(0, number), max(0, self.facts.frames - 1))
        self._slider.set_value(bounded)

    def draw(self, overlay: str) -> None:
        """Lay SVG over the frame, in its pixels."""
        self._overlay = overlay
        self._show_overlay()

    def mark(self, roi: Rectangle | None) -> None:
        """Outline the part to analyse."""
        self._roi = roi
        self._clear.set_visibility(roi is not None)
        self._show_overlay()

    def _show_overlay(self) -> None:
        outline = "" if self._roi is None else rectangle(*self._roi, colour=_ROI_COLOUR)
        self._image.set_content(self._overlay + outline)

    def _follow(self, number: int) -> None:
        if number == self.frame:
            return
        self.frame = number
        self._number.set_value(number)
        self._show()
        self._on_frame(number)

    def _type_frame(self) -> None:
        if self._number.value is not None:
            self.go(int(self._number.value))

    def _show(self) -> None:
        asked: dict[str, Any] = {
            "series": self.facts.path,
            "number": self.frame,
            "colours": self._colours.value,
        }
        if self._limits is not None:
            asked |= {"low": self._limits[0], "high": self._limits[1]}
        self._image.set_source(f"/data/frame.png?{urlencode(asked)}")

    async def _choose_contrast(self) -> None:
        percent = _PERCENTS[self._contrast.value]
        self._by_hand.set_visibility(percent is None)
        try:
            frame = await self._visitor.ask(self._visitor.frames.get, self.facts.path, self.frame)
        except ClusterError as error:
            ui.notify(error.detail, type="negative")
            return
        if self._contrast.value == "normal":
            self._limits = None
        else:
            self._limits = limits_of(frame, percent or AUTO_PERCENT)
        low, high = self._limits or limits_of(frame)
        least, most = limits_of(frame, (0.0, 100.0))
        self._ends.props["min"], self._ends.props["max"] = min(low, least), max(high, most)
        self._ends.props["step"] = max((most - least) / 200, 1e-6)
        self._ends.update()
        self._ends.set_value({"min": low, "max": high})
        self._low.set_value(round(low, 1))
        self._high.set_value(round(high, 1))
        self._show()

    def _hand(self) -> None:
        if self._contrast.value == "by hand" and self._low.value is not None and self._high.value is not None:
            self._limits = (float(self._low.value), float(self._high.value))
            self._show()

    def _drag_ends(self, event: events.GenericEventArguments) -> None:
        self._low.set_value(round(float(event.args["min"]), 1))
        self._high.set_value(round(float(event.args["max"]), 1))

    def _turn_play(self) -> None:
        self._timer.active = not self._timer.active
        self._play.props("icon=pause" if self._timer.active else "icon=play_arrow")

    def _turn_drawing(self) -> None:
        self._port.classes(toggle="drawing")
        self._draw.props("color=warning" if "drawing" in self._port.classes else "color=primary")

    async def _drawn(self, event: events.GenericEventArguments) -> None:
        roi = rectangle_px(event.args, self.facts.height, self.facts.width)
        self._turn_drawing()
        if roi is None:
            ui.notify("That is smaller than 8 pixels: too small to analyse.", type="warning")
            return
        await self._on_roi(roi)

    def _point(self, event: events.GenericEventArguments) -> None:
        frame = self._visitor.frames.peek(self.facts.path, self.frame)
        found = None if frame is None else value_at(frame, event.args["image_x"], event.args["image_y"])
        self._where.set_text("" if found is None else f"x {found[0]} · y {found[1]} · {found[2]:g} ADU")

    def _key(self, name: str) -> None:
        if name in _STEPS:
            self.go(self.frame + _STEPS[name])
        elif name in {"Home", "End"}:
            self.go(0 if name == "Home" else self.facts.frames)
        elif name == " ":
            self._turn_play()
