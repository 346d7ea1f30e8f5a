"""What every view has around it: navigation, dark and light, what is said when the cluster is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

from nicegui import ui

from cluster.errors import ClusterError
from cluster.web.models.wording import moment
from cluster.web.visitors import Overview, Visitor

P = ParamSpec("P")
T = TypeVar("T")
LOOK_S: Final = 1.0
_PLACES: Final = (("Series", "/"), ("Jobs", "/jobs"), ("Cluster", "/cluster"))
_DARK_WORDS: Final = {None: "as the system is", True: "dark", False: "light"}
_DARK_ICONS: Final = {None: "brightness_auto", True: "dark_mode", False: "light_mode"}
_NEXT_DARK: Final = {None: True, True: False, False: None}


@contextmanager
def shell(
    visitor: Visitor, here: str, refresh: Callable[[Overview], None] | None = None
) -> Iterator[ui.column]:
    """Build the frame of a view, and give the column that the view fills.

    `refresh` gets the cluster as it is, again and again; while the cluster is away, the column is greyed and a banner says since when.
    """
    ui.add_head_html('<link rel="stylesheet" href="/page/page.css"><script src="/page/viewport.js"></script>')
    ui.colors(primary="#0b63c4")
    dark = ui.dark_mode(visitor.dark)
    with ui.header().classes("items-center q-py-xs"), ui.row().classes("items-center full-width no-wrap"):
        ui.html('<img src="/page/icon.svg" alt="" width="28" height="28">', sanitize=False)
        name = ui.label("clusterofone").classes("text-weight-bold")
        with ui.element("nav").classes("nav row q-gutter-xs"):
            for word, path in _PLACES:
                link = ui.link(word, path).classes("here" if path == here else "")
                if path == here:
                    link.props('aria-current="page"')
        ui.space()
        _dark_button(visitor, dark)
        ui.button(icon="logout", on_click=_log_out).props(
            'flat dense round color=white aria-label="Log out"'
        ).tooltip("Log out")
    banner = ui.label().classes("banner").props('role="alert"')
    banner.set_visibility(False)
    content = ui.column().classes("full-width q-gutter-none").style("gap: 10px")

    async def look() -> None:
        overview = await visitor.look()
        away = visitor.trouble is not None
        banner.set_visibility(away)
        if away:
            seen = f" What you see is from {moment(overview.seen)[11:]}." if overview is not None else ""
            banner.set_text(f"Connection to the cluster lost: {visitor.trouble}.{seen} Trying again …")
        content.classes(add="stale") if away else content.classes(remove="stale")
        if overview is not None:
            name.set_text(overview.identity.name)
            if refresh is not None and not away:
                refresh(overview)

    with content:
        yield content
    ui.timer(LOOK_S, look)


async def attempt(visitor: Visitor, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
    """Ask the cluster, and say what it says when it refuses; None then."""
    try:
        return await visitor.ask(call, *arguments, **named)
    except ClusterError as error:
        complain(error)
        return None


def complain(error: ClusterError) -> None:
    """Say an error where everybody sees it."""
    ui.notify(error.detail, type="negative", multi_line=True, timeout=10_000, close_button="Close")


def empty(title: str, what_to_do: str, command: str = "") -> None:
    """Say that there is nothing, and what to do about it."""
    with ui.column().classes("empty"):
        ui.label(title).classes("text-weight-bold")
        ui.label(what_to_do).classes("quiet")
        if command:
            ui.label(command).classes("mono")


def _dark_button(visitor: Visitor, dark: ui.dark_mode) -> None:
    button = ui.button(icon=_DARK_ICONS[visitor.dark]).props("flat dense round color=white")

    def show() -> None:
        said = f"Colours: {_DARK_WORDS[visitor.dark]}"
        button.props(f'icon={_DARK_ICONS[visitor.dark]} aria-label="{said}" title="{said}"')

    def turn() -> None:
        visitor.dark = _NEXT_DARK[visitor.dark]
        dark.set_value(visitor.dark)
        show()

    show()
    button.on_click(turn)


def _log_out() -> None:
    ui.run_javascript('fetch("/logout", {method: "POST"}).then(() => location.replace("/login"))')
