"""`clusterofone` alone: every role on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import threading
import time
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cluster import trust
from cluster.addresses import server_url
from cluster.client import Client
from cluster.commands import console, surroundings
from cluster.commands.program import _show_version
from cluster.config import read_runtime
from cluster.errors import ClusterError
from cluster.local import LocalCluster, Plan
from cluster.protocol import DEFAULT_PORTS, PendingJoin


class Join(StrEnum):
    """How machines of the network get in."""

    APPROVE = "approve"
    OPEN = "open"
    TOKEN = "token"  # noqa: S105 -- a policy, not a secret


def register(app: typer.Typer) -> None:
    """Make this what `clusterofone` does without a command."""
    app.callback(invoke_without_command=True)(start)


def start(
    context: typer.Context,
    workers: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--workers",
            metavar="N",
            min=0,
            max=1024,
            help="Worker processes",
            show_default="cores, two fewer from 8 on",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="The scheduler's port", show_default="15400 or the next free one"
        ),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
    no_page: Annotated[
        bool, typer.Option("--no-page", help="Run without the page; a plain status page remains.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="The cluster's name on the network.")] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of raw data, repeatable", show_default="$PYMEDATADIR, else ~/PYMEData"),
    ] = None,
    lan: Annotated[
        bool, typer.Option("--lan", help="Listen on the network and let other machines find this cluster.")
    ] = False,
    join: Annotated[
        Join, typer.Option(help="With --lan: who lets workers of other machines in.")
    ] = Join.APPROVE,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve everyone, without tokens. Not on a network you share.")
    ] = False,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="Encrypt what goes over the network; the tokens then name this machine's certificate.",
        ),
    ] = False,
    task_frames: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="A fixed task size, for tests.")
    ] = None,
    keep_blobs: Annotated[
        bool,
        typer.Option("--keep-blobs", help="Keep what workers handed in, also once the result file holds it."),
    ] = False,
    let_sleep: Annotated[
        bool, typer.Option("--let-sleep", help="Let this computer fall asleep also while jobs run.")
    ] = False,
    show_version: Annotated[  # noqa: ARG001 -- its callback does the work
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Localise single molecules: raw frames in, a table of positions out, on one machine or many.

    Without a command: run a whole cluster on this machine (scheduler, data server, workers, page) until Ctrl-C.

    Examples: [bold]clusterofone demo[/] · [bold]clusterofone localise series.tif[/] · [bold]clusterofone --root D:/data -n 6[/] ·
    [bold]clusterofone --lan[/] and, on other machines, [bold]clusterofone worker[/]
    """
    if context.invoked_subcommand is not None:
        return
    places = surroundings.places()
    chosen = surroundings.cluster_name(name)
    if _already_running(chosen, root, open_page=not no_browser):
        return
    roots = surroundings.served_roots(root)
    _say_who_else_is_here(port)
    plan = Plan(
        name=chosen,
        places=places,
        roots=roots,
        workers=surroundings.default_workers() if workers is None else workers,
        host="0.0.0.0" if lan else "127.0.0.1",  # noqa: S104 -- --lan asks for exactly this
        port=port,
        lan=lan,
        join=join.value,
        insecure=insecure,
        tls=tls,
        task_frames=task_frames,
        polite=True,
        page=not no_page,
        results_root=surroundings.results_root(roots),
        keep_blobs=keep_blobs,
        let_sleep=let_sleep,
    )
    with LocalCluster(plan, os.environ, on_event=console.say) as cluster:
        _greet(cluster, open_page=not no_browser)
        try:
            _stay(cluster)
        except KeyboardInterrupt:
            console.say(
                "Stopping, which takes some seconds. Jobs that have not ended go on at the next start."
            )
            raise


def _already_running(name: str, asked: list[Path] | None, *, open_page: bool) -> bool:
    runtime = read_runtime(surroundings.places().runtime(name))
    if runtime is None or not surroundings.answers(runtime.url, runtime.cluster_id):
        return False
    token = surroundings.own_token(name)
    identity = surroundings.identity_at(runtime.url)
    page = _page(runtime.url, identity.web if identity is not None else None, token)
    console.say(f"Your cluster {name!r} is already running at {runtime.url} (process {runtime.pid}).")
    for root in surroundings.served_roots(asked) if asked else ():
        if not any(root.is_relative_to(served) for served in runtime.roots):
            console.refuse(
                f"It does not serve {root}, but {', '.join(map(str, runtime.roots))}. "
                "Stop it where it runs, with Ctrl-C, and start it with that folder.",
                console.USAGE,
            )
    console.say(f"  page          {page}")
    if open_page:
        webbrowser.open(page)
    return True


def _say_who_else_is_here(port: int | None) -> None:
    other = surroundings.identity_at(f"http://127.0.0.1:{port or DEFAULT_PORTS['scheduler']}")
    if other is not None:
        console.say(f"The cluster {other.name!r} also runs on this computer and may be holding its cores.")


def _page(scheduler: str, page: str | None, token: str) -> str:
    """Return the link that logs in, to the page or to the scheduler's plain one; the fragment is sent nowhere."""
    return f"{scheduler}/#token={token}" if page is None else f"{page}/login#token={token}"


def _greet(cluster: LocalCluster, *, open_page: bool) -> None:
    plan, page = cluster.plan, _page(cluster.url, cluster.page_url, cluster.token)
    console.say(
        f"clusterofone {plan.name!r} is running with {plan.workers} worker{'s' * (plan.workers != 1)}."
    )
    console.say(f"  scheduler     {cluster.url}   (API: {cluster.url}/docs)")
    console.say(f"  data server   {cluster.dataserver_url}   serving {', '.join(map(str, plan.roots))}")
    console.say(f"  page          {page}")
    console.say("  submit        clusterofone submit SERIES      (token for curl: clusterofone token)")
    if plan.insecure:
        console.say(
            "  INSECURE      no token is asked for: anyone who can reach these ports can use this cluster"
        )
    if plan.tls:
        console.say(
            "  TLS           the certificate is this machine's own: browsers ask once whether you trust it"
        )
    if plan.lan:
        _say_how_to_join(cluster)
    console.say("Ctrl-C stops it.")
    if open_page and sys.stdout.isatty():
        webbrowser.open(page)


def _say_how_to_join(cluster: LocalCluster) -> None:
    addresses = surroundings.lan_addresses()
    port = int(cluster.url.rsplit(":", 1)[1])
    console.say("  workers       on another machine of this network:  clusterofone worker")
    if cluster.plan.join == "token":
        token = trust.own_token(cluster.plan.places.cluster(cluster.plan.name), "worker")
        for address in addresses:
            url = server_url(address, port, tls=cluster.plan.tls)
            console.say(f"                clusterofone worker --scheduler {url} --token {token}")
    else:
        for address in addresses:
            url = server_url(address, port, tls=cluster.plan.tls)
            console.say(
                f"                or, where multicast is blocked:  clusterofone worker --scheduler {url}"
            )
    if cluster.plan.join == "approve":
        console.say(
            "                each new machine waits until you approve it here, or with: clusterofone approve"
        )


def _stay(cluster: LocalCluster) -> None:
    doorkeeper = Doorkeeper(cluster) if cluster.plan.lan and cluster.plan.join == "approve" else None
    while True:
        died = cluster.wait(1.0)
        if died is not None:
            console.refuse(died, console.FAILED)
        if doorkeeper is not None:
            doorkeeper.look()


class Doorkeeper:
    """Asks the person at the terminal about machines that wait to join."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._client = Client(cluster.url, cluster.token)
        self._asked: set[str] = set()
        self._question: PendingJoin | None = None
        if sys.stdin is not None and sys.stdin.isatty():
            threading.Thread(target=self._read_keys, name="keys", daemon=True).start()

    def look(self) -> None:
        """Ask about one machine that has not been asked about."""
        try:
            waiting = self._client.pending_joins()
        except ClusterError:
            return
        if self._question is not None and self._question.id not in {machine.id for machine in waiting}:
            self._question = None
        for machine in waiting:
            if machine.id not in self._asked and self._question is None:
                self._asked.add(machine.id)
                self._question = machine
                console.say(
                    f"Approve {machine.host} ({machine.address}, {machine.cores} cores)?  [y/n, or: clusterofone approve {machine.host}]"
                )

    def _read_keys(self) -> None:
        for line in sys.stdin:
            machine, self._question = self._question, None
            if machine is None:
                continue
            yes = line.strip().lower() in {"y", "yes"}
            try:
                self._client.decide_join(machine.id, approve=yes)
            except ClusterError as error:
                console.say(str(error))
            else:
                console.say(f"{machine.host} {'may join' if yes else 'was refused'}.")
            time.sleep(0.1)
