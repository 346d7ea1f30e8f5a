"""A job's picture: drawn by the cluster, looked at with wheel, drag and a few choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from nicegui import events, ui

from cluster.protocol import DriftMethod
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
        with ui.row().classes("items-center full-width").style("gap: 10px"):
            self._build_choices()
            ui.space()
            for icon, word, act in (
                ("zoom_in", "Zoom in", lambda: self._look(self._choice.zoomed(0.5, 0.5, 1.5))),
                ("zoom_out", "Zoom out", lambda: self._look(self._choice.zoomed(0.5, 0.5, 1 / 1.5))),
                ("fit_screen", "Everything", lambda: self._look(self._choice.whole())),
            ):
                ui.button(icon=icon, on_click=act).props(f'flat dense round aria-label="{word}"').tooltip(
                    word
                )
        with viewport("The picture so far; wheel zooms, drag moves", "server", 1.0) as (port, self._stage):
            self._image = ui.interactive_image(events=["mousemove"], sanitize=False).classes("full-width")
            self._image.on("mouse", self._point, throttle=0.1)
        with port:
            self._waiting = ui.label("The picture appears with the first results.").classes("waiting")
        with ui.row().classes("items-center full-width").style("gap: 6px 18px"):
            self._slider("Brightness", 0.5, lambda value: {"brightest": round(1 - 10 ** (-4 + 4 * value), 5)})
            self._slider("Lift what is dim", 0.5, lambda value: {"gamma": round(1.0 - value, 3) or 0.05})
            ui.space()
            self._where = ui.label(
                "wheel or two fingers: zoom · drag: move · double click: everything"
            ).classes("small quiet")
        ui.on(
            "picture_zoom",
            lambda e: self._look(self._choice.zoomed(e.args["x"], e.args["y"], e.args["factor"])),
        )
        ui.on("picture_move", lambda e: self._look(self._choice.moved(e.args["dx"], e.args["dy"])))
        ui.on("picture_window", lambda e: self._window(float(e.args["width"]), float(e.args["height"])))
        ui.on("picture_whole", lambda: self._look(self._choice.whole()))
        self._fit()

    def build_links(self) -> None:
        """Make the links to the picture as it is seen."""
        with ui.element("div").classes("downloads") as self._links:
            self._png = ui.link("PNG as seen", self._kept).props("download")
            self._tif = ui.link("TIFF of it, to measure in", self._counted).props("download")

    def filter(self, filters: str | None) -> None:
        """Show only what is chosen."""
        self._choose(filters=filters)

    def take_off(self, drift: DriftMethod | None) -> None:
        """Show it without a drift, or as the rows are."""
        self._choose(drift=drift)

    def _build_choices(self) -> None:
        colours = {"": "one colour", "frame": "by time"} | ({"z": "by depth"} if self._has_z else {})
        styles = {"gaussian": "Gaussians", "histogram": "counts"}
        for choices, value, label, width, change in (
            (_PIXELS, 0, "Pixel", 80, lambda value: {"pixel_nm": value or None}),
            (colours, "", "Colour", 110, lambda value: {"colour_by": value or None}),
            (styles, "gaussian", "Each as", 110, lambda value: {"style": value}),
        ):
            ui.select(
                choices,
                value=value,
                label=label,
                on_change=lambda e, change=change: self._choose(**change(e.value)),
            ).props("dense").style(f"width: {width}px")

    def _slider(self, word: str, value: float, change: Callable[[float], dict[str, Any]]) -> None:
        with ui.row().classes("items-center no-wrap").style("gap: 8px"):
            ui.label(word).classes("small quiet text-no-wrap")
            slider = Slider(
                min=0.0,
                max=0.95,
                step=0.05,
                value=value,
                on_change=lambda e: self._choose(**change(float(e.value))),
            )
            slider.props(f'dense aria-label="{word}"').style("width: 110px")

    @property
    def _counted(self) -> str:
        return f"/data/jobs/{self._job_id}/render.tif?{self._choice.to_keep().counted()}"

    @property
    def _kept(self) -> str:
        return self._address(self._choice.to_keep())

    def _address(self, choice: PictureChoice) -> str:
        return f"/data/jobs/{self._job_id}/render.png?{choice.query()}"

    @property
    def drawn(self) -> bool:
        """Whether there is a picture yet."""
        return self._drawn is not None

    def grow(self, anything: bool, now: float, version: str, *, ended: bool) -> bool:
        """Draw it anew if there is more to see, now and then, and once more at the end; return whether that was done."""
        self._waiting.set_visibility(not anything)
        self._links.set_visibility(anything)
        if ended:
            self._waiting.set_text(
                "Nothing was localised. A Test says whether the offset or the threshold is why."
            )
        self._stage.set_visibility(anything)
        version = f"{version}, ended" if ended else version
        if not anything or version == self._drawn or (not ended and now - self._drawn_at < _REDRAW_S):
            return False
        self._drawn, self._drawn_at = version, now
        self._draw()
        return True

    def _window(self, width_px: float, height_px: float) -> None:
        """Draw as many pixels as the screen shows; a little more or less is not worth drawing anew."""
        choice = self._choice.in_window(width_px, height_px)
        if abs(choice.side_px - self._choice.side_px) > 0.05 * self._choice.side_px:
            self._look(choice)

    def _choose(self, **changes: Any) -> None:
        self._look(replace(self._choice, **changes))

    def _look(self, choice: PictureChoice) -> None:
        self._choice = choice
        self._fit()
        if self.drawn:
            self._draw()

    def _draw(self) -> None:
        self._number += 1
        self._image.set_source(f"{self._address(self._choice)}&n={self._number}")
        self._png.props(f"href={self._kept}")
        self._tif.props(f"href={self._counted}")

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
