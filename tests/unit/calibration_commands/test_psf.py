"""`clusterofone psf`, in this process: what it writes, says, and refuses."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from scipy.special import erf
from typer.testing import CliRunner

from cluster.calibration_files import read_curves, read_psf
from cluster.commands import psf as psf_command
from cluster.commands.console import Refused
from cluster.errors import ClusterError
from fitting.errors import FittingError

SIZES = ("--pixel-nm", "100", "--step-nm", "50")


def _beads(*, astigmatic: bool = True, places: Any = ((22, 22), (22, 66), (66, 44))) -> np.ndarray[Any, Any]:
    z = (np.arange(21) - 10) * 50.0
    apart = 200.0 if astigmatic else 0.0
    widths = [1.4 * np.sqrt(1 + ((z - c) / 400) ** 2) for c in (-apart, apart)]
    light = np.full((21, 88, 88), 20.0)
    for k, (sx, sy) in enumerate(zip(*widths, strict=True)):
        for y, x in places:
            rows, columns = (
                np.diff(erf((np.arange(89) - 0.5 - c) / s / np.sqrt(2))) / 2 for c, s in ((y, sy), (x, sx))
            )
            light[k] += 30_000 * np.outer(rows, columns)
    return np.random.default_rng(0).poisson(light).astype(np.uint16)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "beads.tif", _beads(), photometric="minisblack")
    return tmp_path / "beads.tif"


def run(*arguments: object) -> Any:
    app = typer.Typer()
    psf_command.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Any, *words: str) -> None:
    assert result.exit_code != 0
    said = str(result.exception) + result.output
    if not isinstance(result.exception, SystemExit):  # what the program tells in one line
        assert isinstance(result.exception, Refused | ClusterError | FittingError), result.exception
    for word in words:
        assert word in said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder in which a PSF was made of beads.tif, and what the command told programs."""
    folder = tmp_path_factory.mktemp("made")
    tifffile.imwrite(folder / "beads.tif", _beads(), photometric="minisblack")
    result = run(folder / "beads.tif", *SIZES, "-o", folder / "psf.tif", "--json")
    assert result.exception is None, result.exception
    return folder, json.loads(result.stdout.splitlines()[-1])


def test_a_psf_its_curves_and_a_report_come_from_beads(made: tuple[Path, dict[str, Any]]) -> None:
    folder, told = made

    psf = read_psf(folder / "psf.tif")
    assert (psf.pixel_nm, psf.step_nm, psf.channels, len(psf.volume)) == (100.0, 50.0, 1, 21)
    assert psf.focus_plane == pytest.approx(10, abs=0.2) == told["focus_plane"]
    curves = read_curves(folder / "psf.sigma.json")
    assert np.interp(-200, curves.z_nm, curves.sigma_x_nm) == pytest.approx(140, abs=4)
    form = json.loads((folder / "psf.sigma.json").read_text())["defocus"]
    assert form["y"]["c"] == pytest.approx(200, abs=20)
    assert told["quality"]["beads_used"] == 3
    report = json.loads((folder / "psf.report.json").read_text())
    assert report["provenance"]["input"][0]["file"] == "beads.tif"


def test_the_report_is_a_picture_large_enough_to_read(made: tuple[Path, dict[str, Any]]) -> None:
    picture = (made[0] / "psf.report.png").read_bytes()

    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width >= 1500
    assert height >= 1000


def test_sizes_come_from_the_file_where_it_has_them(tmp_path: Path) -> None:
    notes = {"axes": "ZYX", "unit": "um", "spacing": 0.05}
    tifffile.imwrite(tmp_path / "b.tif", _beads(), imagej=True, resolution=(10, 10), metadata=notes)

    result = run(tmp_path / "b.tif", "-o", tmp_path / "psf.tif")

    assert result.exception is None, result.exception
    psf = read_psf(tmp_path / "psf.tif")
    assert (psf.pixel_nm, psf.step_nm) == (100.0, 50.0)


def test_two_channels_come_from_pymes_splitter_keys_beside_the_file(tmp_path: Path) -> None:
    beads = _beads()
    two = np.concatenate([beads, beads[:, ::-1]], axis=2)
    tifffile.imwrite(tmp_path / "b.tif", two, photometric="minisblack")
    said = {"voxelsize.x": 0.1, "voxelsize.y": 0.1, "voxelsize.z": 0.05, "Splitter.Flip": True}
    boxes = {"Splitter.Channel0ROI": [10, 5, 88, 88], "Splitter.Channel1ROI": [98, 5, 88, 88]}
    origin = {"Camera.ROIOriginX": 10, "Camera.ROIOriginY": 5}
    (tmp_path / "b.json").write_text(json.dumps(said | boxes | origin))

    result = run(tmp_path / "b.tif", "-o", tmp_path / "psf.tif")

    assert result.exception is None, result.exception
    psf = read_psf(tmp_path / "psf.tif")
    assert psf.channels == 2
    one, other = np.split(psf.volume, 2, axis=2)
    assert np.abs(one - other).max() < 0.1 * one.max()  # a mirror image of its own noise, turned back


def test_what_exists_is_replaced_only_on_request_and_old_curves_go(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "round.tif", _beads(astigmatic=False), photometric="minisblack")
    (tmp_path / "psf.tif").write_text("mine")
    (tmp_path / "psf.sigma.json").write_text("{}")

    refused(run(tmp_path / "round.tif", *SIZES, "-o", tmp_path / "psf.tif"), "psf.tif", "--overwrite")
    assert (tmp_path / "psf.tif").read_text() == "mine"
    result = run(tmp_path / "round.tif", *SIZES, "-o", tmp_path / "psf.tif", "--overwrite")

    assert result.exception is None, result.exception
    assert len(read_psf(tmp_path / "psf.tif").volume) == 21
    assert not (tmp_path / "psf.sigma.json").exists()


def test_dropped_beads_are_told_with_place_and_reason(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "b.tif", _beads(places=((22, 22), (66, 60), (6, 60))), photometric="minisblack"
    )

    result = run(tmp_path / "b.tif", *SIZES, "-o", tmp_path / "psf.tif", "--json")

    dropped = json.loads(result.stdout.splitlines()[-1])["dropped"]
    assert [bead["places"] for bead in dropped] == [[[6, 60]]]
    assert "the bead at x 60, y 6, at the edge" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing.tif", *SIZES, "-o", "psf.tif"), ("nothing.tif", "no such file")),
        (("{stack}", *SIZES, "-o", "psf.png"), ("psf.png", "must end in .tif")),
        (("{stack}", *SIZES), ("--output",)),
        (("{stack}", "--pixel-nm", "100", "-o", "psf.tif"), ("does not say step_nm", "--step-nm")),
        (("{stack}", "-o", "psf.tif"), ("pixel_nm and step_nm", "--pixel-nm and --step-nm")),
        (("{stack}", "--pixel-nm", "-5", "--step-nm", "50", "-o", "psf.tif"), ("pixel_nm", "out of range")),
        (("{stack}", *SIZES, "-o", "psf.tif", "--set", "treshold=5"), ("treshold", "did you mean threshold")),
        (("{stack}", *SIZES, "-o", "psf.tif", "--set", "threshold"), ("--set threshold", "KEY=VALUE")),
        (("{stack}", *SIZES, "-o", "psf.tif", "--channel0", "1,2,x"), ("--channel0 1,2,x", "X0,Y0,X1,Y1")),
        (("{stack}", *SIZES, "-o", "psf.tif", "--half-size", "40"), ("none of 3 beads", "at the edge", "half_size 40")),
        (("{stack}", *SIZES, "-o", "psf.tif", "--set", "threshold=1e6"), ("no beads found", "lower threshold")),
        (("{stack}", *SIZES, "-o", "{stack}", "--overwrite"), ("would replace the beads",)),
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_named_and_nothing_is_written(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, words: Any
) -> None:
    monkeypatch.chdir(tmp_path)

    refused(run(*(argument.format(stack=stack) for argument in arguments)), *words)

    assert [path.name for path in tmp_path.iterdir()] == ["beads.tif"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((40, 40), np.uint16), ("too short",)),
        (np.zeros((9, 40, 40, 3), np.uint8), ("colour",)),
        (b"beads", ("TIFF",)),
    ],
)
def test_a_file_that_is_no_stack_is_refused(tmp_path: Path, content: Any, words: Any) -> None:
    path = tmp_path / "b.tif"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        tifffile.imwrite(path, content)

    refused(run(path, *SIZES, "-o", tmp_path / "psf.tif"), *words)


def test_stacks_recorded_with_different_pixels_are_refused(tmp_path: Path) -> None:
    for name, um in (("a", 0.1), ("b", 0.16)):
        tifffile.imwrite(tmp_path / f"{name}.tif", _beads(), photometric="minisblack")
        (tmp_path / f"{name}.json").write_text(json.dumps({"voxelsize.x": um, "voxelsize.z": 0.05}))

    result = run(tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "psf.tif")

    refused(result, "b.tif says pixel_nm is 160", "recorded alike")
