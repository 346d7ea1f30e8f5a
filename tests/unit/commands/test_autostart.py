"""What each platform is told so that workers start by themselves."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path, PureWindowsPath

import pytest

from cluster.autostart import (
    Account,
    launchd,
    scheduled_task,
    systemd,
    systemd_word,
    windows_word,
    without_console,
)

COMMAND = [str(Path("/opt/my envs/python3")), "-m", "clusterofone", "worker", "--name", "lab 50%"]
USER = Account(Path("/home/ada"), administrator=False, number=501)
ROOT = Account(Path("/root"), administrator=True, user="ada")
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def test_a_user_gets_a_unit_of_their_own_systemd_without_administrator_rights() -> None:
    made = systemd(COMMAND, USER)

    assert made.file == Path("/home/ada/.config/systemd/user/clusterofone-worker.service")
    assert all("--user" in command for command in [*made.enable, *made.disable])
    assert b"WantedBy=default.target" in made.text


def test_an_administrator_gets_one_that_starts_at_boot_as_the_person_who_asked() -> None:
    made = systemd(COMMAND, ROOT)

    assert made.file == Path("/etc/systemd/system/clusterofone-worker.service")
    assert b"User=ada\n" in made.text
    assert b"WantedBy=multi-user.target" in made.text


@pytest.mark.parametrize("account", [USER, ROOT], ids=["user", "root"])
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_in_the_unit(account: Account, tmp_path: Path) -> None:
    unit = tmp_path / "clusterofone-worker.service"
    unit.write_bytes(
        systemd([shutil.which("true") or "/bin/true", "50%", "a b"], account).text.replace(b"ada", b"root")
    )

    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True
    )

    assert str(unit) not in said.stderr
    assert unit.name not in said.stderr


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain", "plain"),
        ("a b", '"a b"'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ("", '""'),
        ("C:\\x", "C:\\\\x"),
    ],
)
def test_systemd_reads_back_the_word_that_was_meant(word: str, written: str) -> None:
    assert systemd_word(word) == written


@pytest.mark.parametrize("account", [USER, ROOT], ids=["user", "root"])
def test_launchd_gets_the_words_as_they_are_and_starts_it_again_only_after_a_failure(
    account: Account,
) -> None:
    made = launchd(COMMAND, account)

    job = plistlib.loads(made.text)
    assert job["ProgramArguments"] == COMMAND
    assert job["RunAtLoad"] is True
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert made.file.name == f"{job['Label']}.plist"
    assert made.file.parent.name == ("LaunchDaemons" if account.administrator else "LaunchAgents")


@pytest.mark.parametrize("account", [USER, ROOT], ids=["user", "administrator"])
def test_windows_neither_ends_it_after_three_days_nor_on_battery(account: Account, tmp_path: Path) -> None:
    made = scheduled_task(
        ["C:\\Program Files\\Python\\pythonw.exe", "-m", "clusterofone", "--name", "a & b"], account, tmp_path
    )

    task = ET.fromstring(made.text.decode("utf-16"))
    settings = {item.tag.removeprefix(TASK): item.text for item in task.find(f"{TASK}Settings") or ()}
    assert settings["ExecutionTimeLimit"] == "PT0S"
    assert settings["DisallowStartIfOnBatteries"] == settings["StopIfGoingOnBatteries"] == "false"
    trigger = "BootTrigger" if account.administrator else "LogonTrigger"
    assert task.find(f"{TASK}Triggers/{TASK}{trigger}") is not None
    run = task.find(f"{TASK}Actions/{TASK}Exec")
    assert run is not None
    assert run.findtext(f"{TASK}Command") == "C:\\Program Files\\Python\\pythonw.exe"
    assert run.findtext(f"{TASK}Arguments") == '-m clusterofone --name "a & b"'


def test_windows_words_with_spaces_or_quotes_are_one_word() -> None:
    assert windows_word("a b") == '"a b"'
    assert windows_word('say "x"') == '"say \\"x\\""'


def test_windows_starts_the_interpreter_that_opens_no_window() -> None:
    assert without_console(PureWindowsPath("C:\\v\\Scripts\\python.exe")).name == "pythonw.exe"
    assert without_console(PureWindowsPath("/usr/bin/python3")).name == "python3"
