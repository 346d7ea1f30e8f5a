"""Having each platform start a command by itself: what to write where, and what to run then.

Everything here is said, nothing done: `Installation` is a value that a command carries out, and that tests can read.
"""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final
from xml.sax.saxutils import escape

NAME: Final = "clusterofone-worker"
_LABEL: Final = f"org.clusterofone.{NAME}"
_RESTART_S: Final = 10
_USAGE_STATUS: Final = 2


@dataclass(frozen=True)
class Account:
    """For whom: a user who logs on, or the machine itself (`administrator`), at boot."""

    home: Path
    administrator: bool
    user: str = ""  # systemd: who a service of the machine runs as; "" is root
    number: int = 0  # macOS: the user's number


@dataclass(frozen=True)
class Installation:
    """A file, its text in its encoding, and the commands that make the system read it or forget it."""

    file: Path
    text: bytes
    enable: Sequence[Sequence[str]]
    disable: Sequence[Sequence[str]]
    when: str


def systemd(command: Sequence[str], account: Account) -> Installation:
    """Return a unit of the user's systemd, or of the machine's."""
    folder = Path("/etc/systemd/system") if account.administrator else account.home / ".config/systemd/user"
    scope = [] if account.administrator else ["--user"]
    lines = [
        "[Unit]",
        "Description=Workers of clusterofone",
        *(["Wants=network-online.target", "After=network-online.target"] if account.administrator else []),
        "",
        "[Service]",
        *([f"User={account.user}"] if account.user else []),
        f"ExecStart={' '.join(map(systemd_word, command))}",
        "Nice=5",
        "Restart=on-failure",
        f"RestartSec={_RESTART_S}",
        f"RestartPreventExitStatus={_USAGE_STATUS}",
        "TimeoutStopSec=30",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if account.administrator else 'default.target'}",
        "",
    ]
    return Installation(
        file=folder / f"{NAME}.service",
        text="\n".join(lines).encode(),
        enable=[
            ["systemctl", *scope, "daemon-reload"],
            ["systemctl", *scope, "enable", "--now", f"{NAME}.service"],
        ],
        disable=[["systemctl", *scope, "disable", "--now", f"{NAME}.service"]],
        when="at boot" if account.administrator else "when you log on (at boot, too: loginctl enable-linger)",
    )


def launchd(command: Sequence[str], account: Account) -> Installation:
    """Return an agent of the user's launchd, or a daemon of the machine's."""
    place = "LaunchDaemons" if account.administrator else "LaunchAgents"
    folder = Path("/Library") if account.administrator else account.home / "Library"
    domain = "system" if account.administrator else f"gui/{account.number}"
    log = str(folder / "Logs" / f"{NAME}.log")
    job = {
        "Label": _LABEL,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": _RESTART_S,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    file = folder / place / f"{_LABEL}.plist"
    return Installation(
        file=file,
        text=plistlib.dumps(job),
        enable=[["launchctl", "bootstrap", domain, str(file)]],
        disable=[["launchctl", "bootout", f"{domain}/{_LABEL}"]],
        when="at boot" if account.administrator else "when you log on",
    )


def scheduled_task(command: Sequence[str], account: Account, folder: Path) -> Installation:
    """Return a task of Windows' scheduler: no limit of time, not ended on battery; written to `folder` to be read in."""
    trigger = "BootTrigger" if account.administrator else "LogonTrigger"
    who = "<UserId>S-1-5-18</UserId>" if account.administrator else "<LogonType>InteractiveToken</LogonType>"
    program, *arguments = command
    words = escape(" ".join(map(windows_word, arguments)))
    text = f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>Workers of clusterofone</Description></RegistrationInfo>
  <Triggers><{trigger}><Enabled>true</Enabled></{trigger}></Triggers>
  <Principals><Principal id="Author">{who}<RunLevel>LeastPrivilege</RunLevel></Principal></Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <IdleSettings><StopOnIdleEnd>false</StopOnIdleEnd></IdleSettings>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>
    <Priority>7</Priority>
  </Settings>
  <Actions Context="Author"><Exec><Command>{escape(program)}</Command><Arguments>{words}</Arguments></Exec></Actions>
</Task>
"""
    file = folder / f"{NAME}.xml"
    return Installation(
        file=file,
        text=text.encode("utf-16"),
        enable=[
            ["schtasks", "/Create", "/TN", NAME, "/XML", str(file), "/F"],
            ["schtasks", "/Run", "/TN", NAME],
        ],
        disable=[["schtasks", "/End", "/TN", NAME], ["schtasks", "/Delete", "/TN", NAME, "/F"]],
        when="at boot" if account.administrator else "when you log on",
    )


def without_console(python: PurePath) -> PurePath:
    """Return the interpreter that opens no window: Windows has it beside the other."""
    return python.with_name("pythonw.exe") if python.name.lower() == "python.exe" else python


def systemd_word(word: str) -> str:
    """Return a word as systemd reads it back: `%` and `$` are its own, spaces need quotes."""
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{plain}"' if not plain or any(character.isspace() for character in plain) else plain


def windows_word(word: str) -> str:
    """Return a word as Windows' programs read it back."""
    import subprocess

    return subprocess.list2cmdline([word])
