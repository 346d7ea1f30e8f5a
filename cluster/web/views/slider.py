"""A slider that stays where it was put."""

from __future__ import annotations

from nicegui import ui


class Slider(ui.slider):
    """A slider whose moves are not sent back to it: by the time they come back, a quick hand has moved on."""

    LOOPBACK = False
