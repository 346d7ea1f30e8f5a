"""`clusterofone worker --install`: carrying out what `cluster.autostart` says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster import autostart
from cluster.commands import console, surroundings
from cluster.config import write_private
from cluster.interpreter import RUN_MODULE


def install(options: Sequence[str], token: str | None) -> None:
    """Have `clusterofone worker OPTIONS` start by itself; a token goes to a private file, never into the unit."""
    words = ["worker", *options]
    if token is not None:
        kept = surroundings.places().config / "worker_token"
        write_private(kept, token)
        words += ["--token-file", str(kept)]
    made = _installation(words)
    made.file.parent.mkdir(parents=True, exist_ok=True)
    made.file.write_bytes(made.text)
    console.say(f"Wrote {made.file}.")
    for command in made.enable:
        _run(command)
    console.say(f"The workers start {made.when}. Undo it with: clusterofone worker --uninstall")


def uninstall() -> None:
    """Undo `install`."""
    made = _installation(["worker"])
    if not made.file.exists():
        console.refuse(f"there is nothing to undo: {made.file} does not exist")
    for command in made.disable:
        _run(command)
    made.file.unlink()
    console.say(f"Removed {made.file}.")


def _installation(words: Sequence[str]) -> autostart.Installation:
    interpreter, *options = RUN_MODULE
    command = [str(autostart.without_console(Path(interpreter))), *options, "clusterofone", *words]
    if sys.platform == "win32":
        made = autostart.scheduled_task(command, _account(), surroundings.places().config)
    elif sys.platform == "darwin":
        made = autostart.launchd(command, _account())
    else:
        made = autostart.systemd(command, _account())
    return made


def _account() -> autostart.Account:
    if sys.platform == "win32":
        import ctypes

        account = autostart.Account(Path.home(), administrator=bool(ctypes.windll.shell32.IsUserAnAdmin()))
    else:
        account = autostart.Account(
            Path.home(),
            administrator=os.geteuid() == 0,
            user=os.environ.get("SUDO_USER", ""),
            number=os.getuid(),
        )
    return account


def _run(command: Sequence[str]) -> None:
    """Run one of the system's commands; where it fails, say what would have to be run by hand."""
    said = " ".join(command)
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        console.refuse(f"{said}: {error}. Run it yourself once the system can.", console.FAILED)
    if done.returncode:
        console.refuse(
            f"{said}: {(done.stderr or done.stdout).strip()}. Run it yourself once the system can.",
            console.FAILED,
        )
