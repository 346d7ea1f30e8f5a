"""A person at a terminal is asked for what is missing; anyone else is told the options to give."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.console import Refused
from cluster.commands.missing_metadata import Desk, question
from cluster.errors import Invalid
from cluster.protocol import JobRequest
from fitting import fits

KEYS = ("voxelsize.x", "voxelsize.y", "Camera.ADOffset")
Type = Callable[[str], None]


def refusing(request: JobRequest) -> JobRequest:
    """A cluster that wants some keys, in their ranges, and else gives the request back."""
    wrong = [key for key in KEYS if key not in request.metadata]
    wrong += [
        key for key, value in request.metadata.items() if key in KEYS and fits.KEYS[key].complaint(value)
    ]
    if wrong:
        raise Invalid(f"the metadata lack {', '.join(wrong)}", field="metadata", keys=wrong)
    return request


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Type]:
    """Standard input is a terminal; what the test types waits there."""
    if sys.platform == "win32":
        pytest.skip("Windows has no pseudo-terminals of this kind")
    import pty
    import tty

    ours, theirs = pty.openpty()
    tty.setcbreak(theirs)  # no echo
    with os.fdopen(theirs, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda text: os.write(ours, text.encode()) and None
    os.close(ours)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    (tmp_path / "cells.tif").touch()
    return tmp_path / "cells.tif"


def test_each_key_is_asked_for_by_name_with_its_unit_and_an_example(
    terminal: Type, series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal("0.1\n0.12\n100\nn\n")

    sent = Desk("localise").sent(refusing, JobRequest(series="cells.tif"), str(series))

    said = capsys.readouterr()
    assert sent.metadata == {"voxelsize.x": 0.1, "voxelsize.y": 0.12, "Camera.ADOffset": 100}
    assert said.out == ""
    assert "voxelsize.x [µm] (size of a pixel; such as 0.1)" in said.err
    assert "Camera.ADOffset [ADU] (reading of a dark pixel; such as 100)" in said.err
    assert "clusterofone profiles" in said.err
    assert sorted(path.name for path in series.parent.iterdir()) == ["cells.tif"]


def test_answers_go_into_the_sidecar_if_wished(
    terminal: Type, series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series.with_suffix(".json").write_text('{"Sample.Notes": "dim"}', encoding="utf-8")
    terminal("0.1\n\n100\ny\n")

    Desk("test").sent(refusing, JobRequest(series="cells.tif"), str(series))

    written = json.loads(series.with_suffix(".json").read_text(encoding="utf-8"))
    assert written == {"Sample.Notes": "dim", "voxelsize.x": 0.1, "voxelsize.y": 0.1, "Camera.ADOffset": 100}
    assert "written: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("0,1", "decimals after a point"),
        ("100", "must be over 0 and at most 10"),
        ("small", "must be a number"),
        ("NaN", "must be a number"),
        ("true", "must be a number"),
    ],
)
def test_an_answer_that_makes_no_sense_is_asked_for_again(
    terminal: Type, series: Path, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    terminal(f"{typed}\n0.1\n0.1\n100\nn\n")

    sent = Desk("localise").sent(refusing, JobRequest(series="cells.tif"), str(series))

    assert sent.metadata["voxelsize.x"] == 0.1
    assert said in capsys.readouterr().err


def test_what_was_given_is_kept_and_what_was_wrong_is_asked_for(terminal: Type, series: Path) -> None:
    terminal("0.1\n0.1\nn\n")
    request = JobRequest(series="cells.tif", metadata={"voxelsize.x": 100, "Camera.ADOffset": 7})

    sent = Desk("localise").sent(refusing, request, str(series))

    assert sent.metadata == {"voxelsize.x": 0.1, "voxelsize.y": 0.1, "Camera.ADOffset": 7}


def test_answers_for_one_series_are_proposed_for_the_next(terminal: Type, tmp_path: Path) -> None:
    terminal("0.1\n0.2\n100\n" + "\n\n90\n")
    desk = Desk("localise")

    desk.sent(refusing, JobRequest(series="a.tif"), "a.tif")
    second = desk.sent(refusing, JobRequest(series="b.tif"), "b.tif")

    assert second.metadata == {"voxelsize.x": 0.1, "voxelsize.y": 0.2, "Camera.ADOffset": 90}


def test_a_sidecar_that_cannot_be_written_is_told_and_the_job_stands(
    terminal: Type, series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series.with_suffix(".json").write_text("[]", encoding="utf-8")
    terminal("0.1\n0.1\n100\ny\n")

    sent = Desk("localise").sent(refusing, JobRequest(series="cells.tif"), str(series))

    assert sent.metadata["Camera.ADOffset"] == 100
    assert "not written: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["localise", "test", "submit"])
def test_without_a_terminal_the_options_are_named(
    monkeypatch: pytest.MonkeyPatch, command: str, tmp_path: Path
) -> None:
    with (tmp_path / "stdin").open("w+", encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        request = JobRequest(series="a.tif", metadata={"voxelsize.x": 0.1}, analysis={"preset": "palm"})
        with pytest.raises(Refused) as refused:
            Desk(command).sent(refusing, request, "my cells.tif")

    line = str(refused.value).splitlines()[-1].strip()
    assert line == (
        f"clusterofone {command} 'my cells.tif' --set preset=palm --meta voxelsize.x=0.1"
        " --meta voxelsize.y=MICROMETRES --meta Camera.ADOffset=ADU"
    )


def test_nobody_is_asked_where_there_is_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(Refused):
        Desk("submit").sent(refusing, JobRequest(series="a.tif"), "a.tif")


def test_another_refusal_is_not_a_question(terminal: Type) -> None:
    def no_series(_: JobRequest) -> Any:
        raise Invalid("there is no such series", field="series")

    with pytest.raises(Invalid, match="no such series"):
        Desk("submit").sent(no_series, JobRequest(series="a.tif"), "a.tif")


def test_every_key_that_may_be_missing_can_be_asked_for() -> None:
    for key in (*fits.required_metadata({}), "Camera.TrueEMGain"):
        assert fits.KEYS[key].complaint(fits.KEYS[key].example) is None
        assert question(key).startswith(key)
    assert question("Camera.ROIOriginX") == "Camera.ROIOriginX"
