"""Running one role as a process: its log, its signals, its parent's pipe."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from cluster.commands.unhurried import Unhurried
from cluster.errors import CallerError
from cluster.log_format import LINE, OneLine
from cluster.supervisor import NOT_AGAIN, PARENT_PIPE

_HARD_EXIT_S: Final = 6.0
Ready = Callable[[dict[str, Any]], None]
Body = Callable[[asyncio.Event, Ready], Coroutine[Any, Any, None]]


def run_role(name: str, body: Body, environ: Mapping[str, str]) -> None:
    """Run a role until a signal, or the end of the parent's pipe, stops it.

    `body` gets the event that says stop, and a function to call when it serves; what it passes there is printed, as
    JSON for a parent and in words for a person.
    """
    configure_log()
    supervised = PARENT_PIPE in environ

    def ready(said: dict[str, Any]) -> None:
        if supervised:
            line = json.dumps({"ready": name, "pid": os.getpid(), **said})
        else:
            line = "  ".join([f"{name} is ready.", *(f"{key}: {value}" for key, value in said.items())])
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    async def main() -> None:
        stop = asyncio.Event()
        _stop_on_signals(stop, asyncio.get_running_loop())
        if supervised:
            _stop_with_parent(stop, asyncio.get_running_loop())
        await body(stop, ready)

    try:
        asyncio.run(main())
    except CallerError as error:
        logging.getLogger().handlers[0].flush()
        if not supervised:
            raise
        sys.stderr.write(f"{error.detail}\n")  # the last line of the log is what the parent tells
        raise SystemExit(NOT_AGAIN) from error


def configure_log(level: int = logging.INFO) -> None:
    """Send the log to standard error: the only place that configures logging."""
    handler = Unhurried(sys.stderr)
    handler.setFormatter(OneLine(LINE))
    logging.basicConfig(level=level, handlers=[handler])
    for noisy in ("httpx", "httpcore", "numba", "zeroconf", "distributed", "wakepy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _stop_on_signals(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    def on_signal(*_: object) -> None:
        if stop.is_set():
            os._exit(130)
        loop.call_soon_threadsafe(stop.set)

    signals = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        signals.append(signal.SIGBREAK)
    else:
        signals.append(signal.SIGHUP)
    for number in signals:
        signal.signal(number, on_signal)


def _stop_with_parent(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Stop when standard input ends: the parent asked for it, or is no more. Gone for good a little later."""

    def watch() -> None:
        while True:
            try:
                if not os.read(0, 1024):
                    break
            except OSError:
                break
        timer = threading.Timer(_HARD_EXIT_S, os._exit, args=(1,))
        timer.daemon = True
        timer.start()
        try:
            loop.call_soon_threadsafe(stop.set)
        except RuntimeError:  # the loop has already ended, and so will the process
            return

    threading.Thread(target=watch, name="parent-pipe", daemon=True).start()
