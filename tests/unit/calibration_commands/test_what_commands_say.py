"""Help, exit statuses, and progress without a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cluster.commands import console, program
from cluster.commands.plain_progress import GAP_S, PlainProgress
from cluster.errors import Invalid, Unavailable
from cluster.reports.psf import _plane_at, _round_heights
from fitting.errors import InvalidCalibration, InvalidSettings

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line as a person runs it: its exit status, and all that it said."""
    monkeypatch.setattr(program, "_let_signals_interrupt", list)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> tuple[int, str]:
        status = program.run([str(one) for one in arguments])
        said = capfd.readouterr()
        return status, said.out + said.err

    return run


def test_help_shows_no_type_where_an_option_takes_no_value(run: Run) -> None:
    status, said = run("cameramaps", "--help")

    assert status == 0
    assert "--even-light" in said
    assert "<float>" in said
    assert "bool" not in said


def test_what_cannot_be_used_as_given_has_status_two(run: Run, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", np.zeros((3, 8, 8), np.uint16), photometric="minisblack")

    for arguments in (
        ("psf", "--nonsense"),
        ("psf", tmp_path / "no.tif", "-o", tmp_path / "psf.tif"),
        ("psf", tmp_path / "raw.tif", "-o", tmp_path / "psf.png"),
        ("drift", tmp_path / "raw.tif"),
        ("export", tmp_path / "raw.tif", tmp_path / "raw.csv"),
    ):
        assert run(*arguments)[0] == console.USAGE, arguments


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("threshold: must be over 0", field="analysis.threshold"), console.USAGE),
        (InvalidSettings("threshold", "must be over 0"), console.USAGE),
        (Invalid("plane 7 cannot be read"), console.FAILED),
        (Unavailable("no data server", field="series"), console.FAILED),
        (InvalidCalibration("no beads"), console.FAILED),
        (OSError(28, "No space left on device"), console.FAILED),
    ],
)
def test_an_error_of_what_was_given_is_told_from_one_of_what_became_of_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(program, "_command", lambda: fails)

    assert run()[0] == status


@pytest.mark.parametrize("command", ["drift", "export", "render"])
def test_a_raw_series_given_as_a_result_is_refused_in_our_own_words(
    run: Run, tmp_path: Path, command: str
) -> None:
    series = tmp_path / "raw.tif"
    tifffile.imwrite(series, np.zeros((3, 8, 8), np.uint16), photometric="minisblack")
    target = {"drift": (), "export": (tmp_path / "t.csv",), "render": (tmp_path / "t.png",)}[command]

    _, said = run(command, series, *target)

    assert f"{series} is not an HDF5 file, as results are (.h5r)" in said
    assert "clusterofone localise" in said
    assert "Unable" not in said
    assert "errno" not in said


def test_without_a_terminal_progress_is_a_plain_line_now_and_then() -> None:
    said: list[str] = []
    seconds = [0.0]
    bar = PlainProgress(said.append, now=lambda: seconds[0])

    task = bar.add_task("series.tif", total=4000, rates="frames")
    for done in range(0, 4001, 10):
        seconds[0] = done / 4000 * 2.5 * GAP_S
        bar.update(task, completed=done)

    assert said == ["series.tif: 1600 of 4000 frames", "series.tif: 3200 of 4000 frames"]


def test_progress_that_does_not_move_is_not_said_again() -> None:
    said: list[str] = []
    seconds = [0.0]
    bar = PlainProgress(said.append, now=lambda: seconds[0])
    task = bar.add_task("simulating", total=None, rates="")

    bar.advance(task, 5)
    for _ in range(3):
        seconds[0] += GAP_S
        bar.update(task)

    assert said == ["simulating: 5"]


@pytest.mark.parametrize(
    ("reach_nm", "step_nm"), [(740.0, 200.0), (155.0, 50.0), (100.0, 30.0), (2.0, 2 / 3)]
)
def test_planes_of_a_report_are_at_round_heights_within_reach(reach_nm: float, step_nm: float) -> None:
    heights = _round_heights(reach_nm)

    assert heights.tolist() == pytest.approx([step_nm * k for k in range(-3, 4)])


def test_a_plane_between_two_is_their_mean_in_proportion() -> None:
    volume = np.arange(4.0)[:, np.newaxis, np.newaxis] * np.ones((1, 2, 2))
    z_nm = np.array([-60.0, -10.0, 40.0, 90.0])

    shown = [float(_plane_at(volume, z_nm, height)[0, 0]) for height in (-60.0, 0.0, 90.0)]

    assert shown == pytest.approx([0.0, 1.2, 3.0])
