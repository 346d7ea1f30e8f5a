"""What `clusterofone doctor` makes of what it sees."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cluster.commands import check
from cluster.commands.checks import announced, machine
from cluster.commands.checks.announced import Heard
from cluster.commands.checks.firewalls import let_in
from cluster.commands.checks.scheduler import Asked, accepted, at_work, clock, scheduler, versions
from cluster.commands.checks.writing import compiled_kernels, fault_of_writing
from cluster.config import Places
from cluster.discovery import Found
from cluster.errors import Unavailable
from cluster.protocol import PROTOCOL_VERSION, Identity, Worker
from cluster.trust import token

SECRET = bytes(32)


def run(*arguments: str) -> Any:
    app = typer.Typer()
    check.register(app)
    return CliRunner().invoke(app, ["--seconds", "0", *arguments])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CLUSTEROFONE_SCHEDULER", "CLUSTEROFONE_TOKEN", "CLUSTEROFONE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLUSTEROFONE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYMEDATADIR", str(tmp_path / "data"))
    return tmp_path


def findings(said: str) -> dict[str, dict[str, str]]:
    return {each["what"]: each for each in json.loads(said.splitlines()[-1])["findings"]}


# --- folders ------------------------------------------------------------------------------------------------------


def refusing(number: int) -> Callable[..., None]:
    def refuse(*_: Path) -> None:
        raise OSError(number, "refused")

    return refuse


def test_a_folder_that_takes_a_file_and_gives_it_back_is_well_and_nothing_is_left_in_it(
    tmp_path: Path,
) -> None:
    assert fault_of_writing(tmp_path / "new" / "kernels") is None
    assert list((tmp_path / "new" / "kernels").iterdir()) == []


def test_a_virus_scanner_that_holds_what_is_written_is_told_from_a_folder_that_is_read_only(
    tmp_path: Path,
) -> None:
    renamed = fault_of_writing(tmp_path, replace=refusing(errno.EACCES))
    removed = fault_of_writing(tmp_path, remove=refusing(errno.EACCES))

    for fault in (renamed, removed):
        assert fault is not None
        assert "virus scanner" in fault
        assert str(tmp_path) in fault
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    assert "no room" in (fault_of_writing(tmp_path, replace=refusing(errno.ENOSPC)) or "")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")

    assert str(tmp_path / "file" / "kernels") in (fault_of_writing(tmp_path / "file" / "kernels") or "")


def test_a_disk_that_gives_back_something_else_is_noticed(tmp_path: Path) -> None:
    def torn(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:-1])

    assert "not what is read back" in (fault_of_writing(tmp_path, replace=torn) or "")


def test_kernels_that_cannot_be_kept_are_a_problem_with_a_way_out(tmp_path: Path) -> None:
    found = compiled_kernels(tmp_path, write=lambda _: "the folder is on strike")

    assert found.verdict == "problem"
    assert "on strike" in found.detail
    assert "NUMBA_CACHE_DIR" in found.detail


def test_the_folder_that_is_tried_is_the_one_where_kernels_are_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "blocked").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(home / "blocked"))

    out = run("--json")

    assert out.exit_code == 1
    assert findings(out.stdout)["compiled kernels"]["verdict"] == "problem"
    assert f"{home / 'blocked'}" in findings(out.stdout)["compiled kernels"]["detail"]


def test_the_room_on_each_disk_is_said_and_too_little_is_a_problem(tmp_path: Path) -> None:
    rooms = {tmp_path: 60 << 30, Path("/"): 1 << 30}
    well = machine.disks({"state": tmp_path / "not" / "there"}, free=lambda folder: rooms[folder])
    full = machine.disks({"state": tmp_path, "data": Path("/")}, free=lambda folder: rooms[folder])

    assert (well.verdict, full.verdict) == ("ok", "problem")
    assert "1.1 GB free for data" in full.detail


@pytest.mark.parametrize(("enabled", "verdict"), [(True, "ok"), (False, "note")])
def test_long_paths_of_windows(enabled: bool, verdict: str) -> None:
    assert machine.long_paths(lambda: enabled).verdict == verdict


def test_a_windows_that_has_never_heard_of_long_paths_is_told_how_to_enable_them() -> None:
    def missing() -> bool:
        raise FileNotFoundError(2, "no such value")

    found = machine.long_paths(missing)

    assert found.verdict == "note"
    assert "LongPathsEnabled" in found.detail


# --- the network --------------------------------------------------------------------------------------------------

LAB = Found("c1", "lab", ("http://192.168.1.5:15400", "http://10.0.0.5:15400"), PROTOCOL_VERSION)


def identity(**changes: Any) -> Identity:
    known = {"role": "scheduler", "cluster_id": "c1", "name": "lab", "machine": "m", "version": "0.1.0"}
    return Identity.model_validate({**known, **changes})


def answering(*urls: str) -> Callable[[str], Any]:
    async def ask(url: str) -> Identity:
        if url not in urls:
            raise Unavailable(f"{url} cannot be reached")
        return identity()

    return ask


@pytest.mark.anyio
async def test_a_cluster_that_answers_at_one_of_its_addresses_is_well() -> None:
    found = await announced.mdns(Heard((LAB,)), 2.0, identify=answering("http://10.0.0.5:15400"))

    assert found.verdict == "ok"
    assert "lab at http://10.0.0.5:15400" in found.detail
    assert "not at http://192.168.1.5:15400" in found.detail


@pytest.mark.anyio
async def test_a_cluster_that_announces_itself_but_answers_nowhere_is_behind_a_firewall() -> None:
    found = await announced.mdns(Heard((LAB,)), 2.0, identify=answering())

    assert found.verdict == "problem"
    assert "15400" in found.detail
    for system in ("Windows", "macOS", "Linux"):
        assert system in found.detail


@pytest.mark.anyio
async def test_who_cannot_listen_is_told_to_name_the_scheduler() -> None:
    found = await announced.mdns(Heard(fault="port 5353 is taken"), 2.0)

    assert found.verdict == "problem"
    assert "--scheduler URL" in found.detail


def test_each_system_is_told_its_own_firewall() -> None:
    assert "netsh advfirewall" in let_in(15400, platform="win32")
    assert "System Settings" in let_in(15400, platform="darwin")
    assert "15400/tcp" in let_in(15400, platform="linux")
    assert "5353/udp" in let_in(5353, "UDP", platform="linux")


# --- the scheduler ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skew_s", "verdict"),
    [(0, "ok"), (-1, "ok"), (6, "ok"), (60, "note"), (-60, "note"), (3600, "problem"), (-86_400, "problem")],
)
def test_clocks_that_differ(skew_s: int, verdict: str) -> None:
    now = time.time()
    date = format_datetime(datetime.fromtimestamp(int(now) + skew_s, UTC), usegmt=True)

    found = clock(date, now, now + 0.01)

    assert found.verdict == verdict
    if verdict != "ok":
        assert ("ahead of" if skew_s > 0 else "behind") in found.detail
        assert "timedatectl" in found.detail


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_server_that_does_not_say_its_time_is_no_problem(date: str | None) -> None:
    assert clock(date, 0.0, 0.0).verdict == "note"


def test_versions_of_both_sides() -> None:
    same = versions(identity(), "0.1.0")
    other = versions(identity(version="0.2.0"), "0.1.0")
    newer = versions(identity(version="2.0.0", protocol=PROTOCOL_VERSION + 1), "0.1.0")
    older = versions(identity(version="0.0.1", protocol=PROTOCOL_VERSION - 1), "0.1.0")

    assert same.verdict == "ok"
    assert other.verdict == "problem"
    assert "Here: pip install clusterofone==0.2.0" in other.detail
    assert "On this machine: pip install clusterofone==2.0.0" in newer.detail
    assert "On the scheduler's machine: pip install clusterofone==0.1.0" in older.detail


@pytest.mark.parametrize("role", ["viewer", "submitter", "worker"])
def test_an_accepted_token_tells_its_role_and_what_that_may_do(role: Any) -> None:
    found = accepted(token(SECRET, role), may_all=False)

    assert found.verdict == "ok"
    assert f"of the role {role}: may" in found.detail


def test_a_token_that_may_do_everything_is_the_owners() -> None:
    assert "of the role owner" in accepted("something of a later version", may_all=True).detail


def test_an_accepted_token_of_a_role_of_the_future_is_said_so() -> None:
    assert accepted("c2.dreamer.x", may_all=False).verdict == "note"


@pytest.mark.anyio
async def test_without_a_scheduler_it_says_how_to_give_one(tmp_path: Path) -> None:
    places = Places(config=tmp_path, state=tmp_path, cache=tmp_path)

    found = await scheduler(Asked(None, None), Heard(), places)

    assert [each.verdict for each in found] == ["note"]
    assert "doctor --scheduler URL" in found[0].detail


def a_worker(state: str, excluded: str | None = None) -> Worker:
    known = {"id": f"pc-{state}", "host": "pc", "pid": 1, "version": "0.1.0", "job": None, "frames": 0}
    return Worker(**known, rate_frames_per_s=None, last_seen=0.0, state=state, excluded=excluded)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "verdict", "said"),
    [
        ([], "note", "clusterofone worker"),
        (["idle", "working", "idle"], "ok", "2 idle, 1 working"),
        (["idle", "excluded"], "note", "pc-excluded: black hole"),
        (["draining", "lost"], "problem", "clusterofone drain NAME --undo"),
        (["lost"], "problem", "1 lost: none takes work, so jobs wait"),
    ],
)
def test_nobody_to_do_a_job_is_a_problem(states: list[str], verdict: str, said: str) -> None:
    found = at_work([a_worker(state, "black hole" if state == "excluded" else None) for state in states])

    assert found.verdict == verdict
    assert said in found.detail


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "advice", "firewall"),
    [
        ("http://127.0.0.1:9", "Is it running?", False),
        ("http://nobody.invalid:9", "Is the name right, and is it running, with --lan?", True),
        ("ftp://lab-pc", "write http://HOST:PORT", False),
    ],
)
async def test_a_scheduler_that_was_named_and_does_not_answer_is_a_problem(
    tmp_path: Path, url: str, advice: str, firewall: bool
) -> None:
    places = Places(config=tmp_path, state=tmp_path, cache=tmp_path)

    found = await scheduler(Asked(url, None), Heard(), places)

    assert [each.verdict for each in found] == ["problem"]
    assert advice in found[0].detail
    assert ("let TCP port 9 in" in found[0].detail) == firewall


def test_a_configuration_that_cannot_be_understood_is_one_problem_among_others(home: Path) -> None:
    (home / "home" / "config").mkdir(parents=True)
    (home / "home" / "config" / "config.toml").write_text("schedular = 'lab-pc'", encoding="utf-8")

    out = run("--json")

    assert out.exit_code == 1
    found = findings(out.stdout)
    assert "schedular" in found["configuration"]["detail"]
    assert found["compiled kernels"]["verdict"] == "ok"


def test_a_machine_without_fault_ends_with_zero(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LOW_DISK_BYTES", 0)
    out = run("--json")

    assert out.exit_code == 0, out.stdout
    assert {each["verdict"] for each in findings(out.stdout).values()} <= {"ok", "note"}
