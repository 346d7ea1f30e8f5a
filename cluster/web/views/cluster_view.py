"""The machines: workers, who waits at the door, data servers, and how another one joins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Request
from nicegui import background_tasks, ui

from cluster.errors import ClusterError, Unavailable
from cluster.protocol import Identity, PendingJoin
from cluster.web.models.machines import WorkerLine, headline, join_lines, space_said, worker_lines
from cluster.web.models.wording import ago, plural
from cluster.web.views.shell import attempt, empty, shell
from cluster.web.visitors import Overview, Visitor, visitor_of

_HEADINGS: Final = ("Machine", "State", "Doing", "Frames", "Frames/s", "CPU and memory", "Last seen", "")
_SLOWLY_S: Final = 5.0


@ui.page("/cluster", title="Cluster · clusterofone", response_timeout=30.0)
def cluster(request: Request) -> None:
    """Show the machines."""
    visitor = visitor_of(request.scope)
    view = ClusterView(visitor)
    with shell(visitor, "/cluster", view.show):
        view.build()


class ClusterView:
    """The widgets; each part is made anew only when what it shows has changed."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._workers: list[WorkerLine] | None = None
        self._joins: list[PendingJoin] | None = None
        self._identity: Identity | None = None
        self._rooms: dict[str, ui.column] = {}
        self._room_shown: dict[str, Sequence[tuple[str, str]]] = {}

    def build(self) -> None:
        """Make the widgets."""
        with ui.row().classes("items-baseline full-width"):
            ui.label("Cluster").classes("view-title").props("role=heading aria-level=1")
            self._headline = ui.label().classes("quiet")
        self._door = ui.column().classes("full-width").style("gap: 0")
        self._table = ui.column().classes("full-width").style("gap: 0")
        with ui.row().classes("full-width").style("gap: 14px"):
            self._join = ui.column().classes("panel col").style("gap: 6px; min-width: 360px")
            self._data = ui.column().classes("panel col").style("gap: 6px; min-width: 300px")
        self._build_log()
        ui.timer(_SLOWLY_S, self._look_slowly)

    def show(self, overview: Overview) -> None:
        """Show the machines as they are now."""
        self._headline.set_text(headline(overview.workers))
        lines = worker_lines(overview.workers, overview.jobs, overview.seen)
        if lines != self._workers:
            self._workers = lines
            self._show_workers(lines)
        if overview.joins != self._joins:
            self._joins = overview.joins
            self._show_door(overview.joins, overview.seen)
        if overview.identity != self._identity:
            self._identity = overview.identity
            self._show_identity(overview.identity)
            background_tasks.create(self._look_slowly())

    def _show_workers(self, lines: list[WorkerLine]) -> None:
        self._table.clear()
        with self._table:
            if not lines:
                empty(
                    "No workers.",
                    "Without one nothing is localised. On this or another machine:",
                    "clusterofone worker",
                )
                return
            with ui.element("div").classes("line workers-line head"):
                for heading in _HEADINGS:
                    ui.label(heading)
            for line in lines:
                with ui.element("div").classes("line workers-line"):
                    with ui.element("div"):
                        ui.label(line.machine).classes("text-weight-medium")
                        ui.label(line.process).classes("quiet small")
                    ui.label(line.state).classes(f"state tone-{line.tone}")
                    for text in (line.doing, line.frames, line.rate):
                        ui.label(text)
                    ui.label(line.load).classes("small lines-kept")
                    ui.label(line.seen)
                    with ui.row().classes("items-center").style("gap: 4px"):
                        self._last_cell(line)

    def _last_cell(self, line: WorkerLine) -> None:
        if line.why:
            ui.label(line.why).classes("small")
        if line.can_drain and self._visitor.is_owner:
            ui.button("Drain", on_click=lambda: self._drain(line)).props(
                f'flat dense no-caps size=sm aria-label="Drain {line.machine}, {line.process}"'
            ).tooltip("No more work for this worker; it finishes what it has begun")
        if line.can_be_used_again and self._visitor.is_owner:
            ui.button("Use again", on_click=lambda: self._undrain(line)).props(
                f'flat dense no-caps size=sm aria-label="Use {line.machine}, {line.process} again"'
            ).tooltip("Give this worker work again, within ten seconds")

    async def _drain(self, line: WorkerLine) -> None:
        await attempt(self._visitor, self._visitor.client.drain, line.id)

    async def _undrain(self, line: WorkerLine) -> None:
        await attempt(self._visitor, self._visitor.client.undrain, line.id)

    def _build_log(self) -> None:
        if not self._visitor.is_owner:
            return
        with ui.expansion("Log of the scheduler", icon="subject", on_value_change=self._look_slowly).classes(
            "full-width"
        ) as self._log_part:
            self._log = ui.label().classes("log mono small").props('tabindex=0 role=log aria-label="Log"')

    async def _look_slowly(self) -> None:
        """Ask for what changes slowly, or is long."""
        client = self._visitor.client
        if self._visitor.is_owner and self._log_part.value:
            lines = await attempt(self._visitor, client.log, 200)
            if lines is not None:
                self._log.set_text("\n".join(reversed(lines)) or "nothing yet")
        for server in self._identity.dataservers if self._identity is not None else ():
            try:
                roots = await self._visitor.ask(client.roots, server.id)
            except Unavailable:
                self._show_room(
                    server.id, [("does not answer; its series wait until it is started again", "bad")]
                )
                continue
            except ClusterError as error:
                self._show_room(server.id, [(error.detail, "bad")])
                continue
            said = [(f"{root.path}: {space_said(root)[0]}", space_said(root)[1]) for root in roots]
            self._show_room(server.id, said)

    def _show_room(self, server: str, lines: Sequence[tuple[str, str]]) -> None:
        if server not in self._rooms or self._room_shown.get(server) == lines:
            return
        self._room_shown[server] = lines
        self._rooms[server].clear()
        with self._rooms[server]:
            for text, tone in lines:
                ui.label(text).classes(f"small tone-{tone} output")

    def _show_door(self, joins: list[PendingJoin], now: float) -> None:
        self._door.clear()
        with self._door:
            for join in joins:
                with ui.row().classes("panel items-center"):
                    ui.icon("meeting_room", size="24px").classes("tone-warning")
                    with ui.column().style("gap: 0"):
                        ui.label(f"{join.host} asks to join").classes("text-weight-bold")
                        ui.label(
                            f"{join.address} · {plural(join.cores, 'core')} · {join.version} · {ago(join.asked, now)}"
                        ).classes("quiet small")
                    ui.space()
                    ui.button(
                        "Refuse", on_click=lambda _, join=join: self._decide(join, approve=False)
                    ).props("flat")
                    ui.button("Approve", on_click=lambda _, join=join: self._decide(join, approve=True))

    async def _decide(self, join: PendingJoin, *, approve: bool) -> None:
        client = self._visitor.client
        await attempt(self._visitor, lambda: client.decide_join(join.id, approve=approve))

    def _show_identity(self, identity: Identity) -> None:
        self._join.clear()
        said, lines = join_lines(identity, self._visitor.client.url)
        with self._join:
            ui.label("More machines").classes("text-weight-bold")
            ui.label(said).classes("quiet")
            for line in lines:
                with ui.row().classes("items-center full-width no-wrap"):
                    ui.label(line).classes("mono")
                    ui.space()
                    ui.button(icon="content_copy", on_click=lambda _, line=line: self._copy(line)).props(
                        'flat dense round aria-label="Copy"'
                    )
        self._data.clear()
        with self._data:
            ui.label("Data servers").classes("text-weight-bold")
            if not identity.dataservers:
                ui.label("None has registered. Start one: clusterofone dataserver --root FOLDER").classes(
                    "tone-warning"
                )
            self._room_shown = {}
            for server in identity.dataservers:
                ui.label(f"{server.host} · port {server.port}")
                ui.label(", ".join(server.addresses)).classes("quiet small mono")
                self._rooms[server.id] = ui.column().style("gap: 0")
            ui.label(f"{identity.name} · clusterofone {identity.version}").classes("quiet small q-mt-sm")

    def _copy(self, line: str) -> None:
        ui.clipboard.write(line)
        ui.notify("Copied.")
