"""A window onto a picture, with zoom, pan and rectangles by `static/viewport.js`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from nicegui import ui


@contextmanager
def viewport(
    label: str, zoom: Literal["here", "server"], shape: float
) -> Iterator[tuple[ui.element, ui.element]]:
    """Give the window and the stage in it, which is filled in the block.

    `zoom` says who scales: the browser, or the server, by the events picture_zoom, picture_move and picture_whole. `shape` is width over height.
    """
    port = (
        ui.element("div")
        .classes("viewport")
        .props(f'tabindex=0 role=group data-zoom={zoom} aria-label="{label}"')
    )
    with port:
        stage = ui.element("div").classes("stage").style(stage_style(shape))
        with stage:
            yield port, stage


def stage_style(shape: float) -> str:
    """Return what makes a stage as large as fits into its window."""
    return f"aspect-ratio: {shape:.5f}; width: min(100%, calc(max(300px, var(--room)) * {shape:.5f}))"
