"""A job's picture: drawn by the cluster, looked at with wheel, drag and a few choices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from nicegui import events, ui

from cluster.web.models.picture_choice import PictureChoice
from cluster.web.views.slider import Slider
from cluster.web.views.viewport import stage_style, viewport

_REDRAW_S: Final = 3.0
_PIXELS: Final = {0: "auto", 1: "1 nm", 2: "2 nm", 5: "5 nm", 10: "10 nm", 20: "20 nm", 50: "50 nm"}


class PictureView:
    """The widgets of one picture. `whole` is the look at everything."""

    def __init__(self, job_id: str, whole: PictureChoice, *, has_z: bool) -> None:
        self._job_id = job_id
        self._choice = whole
        self._has_z = has_z
        self._drawn: str | None = None
        self._drawn_at = 0.0
        self._number = 0

    def build(self) -> None:
        """Make the widgets."""
        colours = {"": "one colour", "frame": "by time"} | ({"z": "by depth"} if self._has_z else {})
        with ui.row().classes("items-center full-width").style("gap: 10px"):
            ui.select(
                _PIXELS, value=0, label="Pixel", on_change=lambda e: self._choose(pixel_nm=e.value or None)
            ).props("dense").style("width: 90px")
            ui.select(
                colours, value="", label="Colour", on_change=lambda e: self._choose(colour_by=e.value or None)
            ).props("dense").style("width: 120px")
            styles = {"gaussian": "Gaussians", "histogram": "counts"}
            ui.select(
                styles, value="gaussian", label="Each as", on_change=lambda e: self._choose(style=e.value)
            ).props("dense").style("width: 120px")
            with ui.column().style("gap: 0; width: 130px"):
                ui.label("Lift what is dim").classes("small quiet")
                Slider(
                    min=0.2,
                    max=1.2,
                    step=0.05,
                    value=0.7,
                    on_change=lambda e: self._choose(gamma=round(1.4 - e.value, 3)),
                ).props('dense aria-label="Lift what is dim"')
            ui.space()
            for icon, word, act in (
                ("zoom_in", "Zoom in", lambda: self._look(self._choice.zoomed(0.5, 0.5, 1.5))),
                ("zoom_out", "Zoom out", lambda: self._look(self._choice.zoomed(0.5, 0.5, 1 / 1.5))),
                ("fit_screen", "Everything", lambda: self._look(self._choice.whole())),
            ):
                ui.button(icon=icon, on_click=act).props(f'flat dense round aria-label="{word}"').tooltip(
                    word
                )
            self._png = ui.link("PNG", self._address).props("download").classes("button-link")
        with viewport("The picture so far; wheel zooms, drag moves", "server", 1.0) as (port, self._stage):
            self._image = ui.interactive_image(events=["mousemove"], sanitize=False).classes("full-width")
            self._image.on("mouse", self._point, throttle=0.1)
        with port:
            self._waiting = ui.label("The picture appears with the first results.").classes("waiting")
        self._where = ui.label("wheel: zoom · drag: move · double click: everything").classes("small quiet")
        ui.on(
            "picture_zoom",
            lambda e: self._look(self._choice.zoomed(e.args["x"], e.args["y"], e.args["factor"])),
        )
        ui.on("picture_move", lambda e: self._look(self._choice.moved(e.args["dx"], e.args["dy"])))
        ui.on("picture_whole", lambda: self._look(self._choice.whole()))
        self._fit()

    @property
    def _address(self) -> str:
        return f"/data/jobs/{self._job_id}/render.png?{self._choice.query()}"

    @property
    def drawn(self) -> bool:
        """Whether there is a picture yet."""
        return self._drawn is not None

    def grow(self, anything: bool, now: float, version: str, *, ended: bool) -> None:
        """Draw it anew if there is more to see, now and then, and once more at the end."""
        self._waiting.set_visibility(not anything)
        self._stage.set_visibility(anything)
        version = f"{version}, ended" if ended else version
        if not anything or version == self._drawn or (not ended and now - self._drawn_at < _REDRAW_S):
            return
        self._drawn, self._drawn_at = version, now
        self._draw()

    def _choose(self, **changes: Any) -> None:
        self._look(replace(self._choice, **changes))

    def _look(self, choice: PictureChoice) -> None:
        self._choice = choice
        self._fit()
        if self.drawn:
            self._draw()

    def _draw(self) -> None:
        self._number += 1
        self._image.set_source(f"{self._address}&n={self._number}")
        self._png.props(f"href={self._address}")

    def _fit(self) -> None:
        x0, y0, x1, y1 = self._choice.shown_nm
        shape = (x1 - x0) / (y1 - y0)
        self._stage.style(stage_style(shape))

    def _point(self, event: events.GenericEventArguments) -> None:
        x0, y0, x1, y1 = self._choice.shown_nm
        pixel = self._choice.fine_nm
        x, y = x0 + event.args["image_x"] * pixel, y0 + event.args["image_y"] * pixel
        self._where.set_text(
            f"x {x:,.0f} nm · y {y:,.0f} nm · a pixel is {pixel:.3g} nm · {(x1 - x0) / 1000:.3g} × {(y1 - y0) / 1000:.3g} µm shown"
        )
