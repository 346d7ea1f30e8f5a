"""What people type wrong: one clear line that names the thing, a non-zero exit, nothing half-written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.e2e

METADATA = [
    "--meta=voxelsize.x=0.1",
    "--meta=voxelsize.y=0.1",
    "--meta=Camera.ADOffset=100",
    "--meta=Camera.ElectronsPerCount=0.5",
    "--meta=Camera.ReadNoise=1.6",
]


def write_tiff(path: Path, frames: Any, **options: Any) -> Path:
    tifffile.imwrite(path, frames, **options)
    return path


def dim_frames(count: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).poisson(140, (count, 32, 32)).astype(dtype)


def refused(out: subprocess.CompletedProcess[str], *names: str) -> None:
    assert out.returncode != 0, out.stdout
    for name in names:
        assert name in out.stderr.replace("\n", " "), out.stderr
    assert "Traceback" not in out.stderr


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.suffix == ".h5r" or "h5r" in p.name)


def test_no_such_file(shell: Any) -> None:
    refused(shell.run("localise", "nothing.tif"), "nothing.tif", "no such file")


def test_unknown_command_and_option(shell: Any) -> None:
    refused(shell.run("locate"), "locate")
    refused(shell.run("localise", "a.tif", "--wrokers", "2"), "--wrokers")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"this is no image at all" * 10), "broken.tif"),
        (lambda p: write_tiff(p, np.zeros((4, 32, 32, 3), np.uint8), photometric="rgb"), "RGB"),
        (lambda p: write_tiff(p, np.zeros((4, 32, 32), np.complex64), photometric="minisblack"), "complex64"),
    ],
    ids=["empty", "not an image", "colour", "complex"],
)
def test_a_file_that_is_no_series_is_named(shell: Any, tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "broken.tif")

    out = shell.run("localise", "broken.tif", "-n", 1, *METADATA)

    refused(out, "broken.tif", said)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--set", "treshold=1"], ["treshold", "threshold"]),
        (["--set", "threshold=-1"], ["threshold"]),
        (["--set", "threshold=high"], ["threshold"]),
        (["--set", "threshold"], ["KEY=VALUE"]),
        (["--fit", "LatGaussFitXX"], ["LatGaussFitXX", "LatGaussFitFR"]),
        (["--set", "roi=[0,0,500,500]"], ["roi"]),
        (["--set", "start_at=5000"], ["start_at"]),
        (["--meta", "Camera.ADOfset=100"], ["Camera.ADOfset", "Camera.ADOffset"]),
        (["-o", "result.csv"], [".h5r"]),
        (["-o", "no/such/folder/result.h5r"], ["folder"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_setting_is_named(shell: Any, tmp_path: Path, arguments: list[str], names: list[str]) -> None:
    write_tiff(tmp_path / "a.tif", dim_frames(5))

    refused(shell.run("localise", "a.tif", "-n", 1, *METADATA, *arguments), *names)
    assert leftovers(tmp_path) == []


def test_missing_metadata_are_named_with_the_command_line_completed(shell: Any, tmp_path: Path) -> None:
    write_tiff(tmp_path / "foreign.tif", dim_frames(5))

    out = shell.run("localise", "foreign.tif", "-n", 1, "--meta", "voxelsize.x=0.1")

    refused(out, "voxelsize.y", "Camera.ADOffset", "Camera.ElectronsPerCount", "Camera.ReadNoise")
    assert (
        "clusterofone localise foreign.tif --meta voxelsize.x=0.1 --meta voxelsize.y="
        in out.stderr.replace("\n", " ")
    )


def test_a_result_is_not_overwritten_unless_asked(shell: Any, tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", dim_frames(5))
    (tmp_path / "mine.h5r").write_bytes(b"mine")

    refused(shell.run("localise", "a.tif", "-n", 1, "-o", "mine.h5r", *METADATA), "mine.h5r", "--overwrite")
    assert (tmp_path / "mine.h5r").read_bytes() == b"mine"

    out = shell.run("localise", "a.tif", "-n", 1, "-o", "mine.h5r", "--overwrite", *METADATA)
    assert out.returncode == 0, out.stderr
    assert (tmp_path / "mine.h5r").read_bytes()[1:4] == b"HDF"


def test_float_frames_and_a_single_frame_are_valid(shell: Any, tmp_path: Path) -> None:
    write_tiff(tmp_path / "floats.tif", dim_frames(7, "float32"))
    write_tiff(tmp_path / "one.tif", dim_frames(1))

    for name, frames in (("floats.tif", 7), ("one.tif", 1)):
        job = shell.json("localise", name, "-n", 1, *METADATA)
        assert job["frames"] == {"total": frames, "localised": frames, "skipped": 0, "failed": 0}


def test_a_truncated_file_gives_its_whole_frames_and_says_which_are_missing(
    shell: Any, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "cut.tif", dim_frames(20))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5 * 32 * 32 * 2 - 100)

    out = shell.run("localise", "cut.tif", "-n", 1, "--json", *METADATA)

    import json

    job = json.loads(out.stdout.splitlines()[-1])
    assert out.returncode != 0
    assert job["state"] == "done_with_errors"
    missing = [frame for each in job["failed_frames"] for frame in range(each["start"], each["stop"])]
    assert missing
    assert missing == list(range(20 - len(missing), 20))
    assert job["frames"]["localised"] + job["frames"]["failed"] == 20
    assert str(missing[0]) in out.stderr
    assert Path(job["output"]).exists()


CAN_MOUNT = sys.platform == "linux" and os.geteuid() == 0


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a disk of the test's own."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting is not allowed here")
        return folder

    yield mounted
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


@pytest.mark.skipif(not CAN_MOUNT, reason="needs Linux and root, to mount a small disk")
def test_a_full_disk_is_named_and_nothing_half_written_is_left(
    shell: Any, tmp_path: Path, mount: Any
) -> None:
    write_tiff(tmp_path / "a.tif", dim_frames(5))
    disk = mount("size=256k")

    out = shell.run("localise", "a.tif", "-n", 1, "-o", "disk/a.h5r", *METADATA)

    refused(out, "disk", "full")
    assert leftovers(disk) == []


@pytest.mark.skipif(not CAN_MOUNT, reason="needs Linux and root, to mount a read-only disk")
def test_an_output_folder_that_cannot_be_written_is_named(shell: Any, tmp_path: Path, mount: Any) -> None:
    write_tiff(tmp_path / "a.tif", dim_frames(5))
    mount("ro")

    refused(
        shell.run("localise", "a.tif", "-n", 1, "-o", "disk/a.h5r", *METADATA), "disk", "cannot be written"
    )


@pytest.mark.skipif(not CAN_MOUNT, reason="needs Linux and root, to mount a read-only disk")
def test_a_scheduler_whose_state_cannot_be_written_does_not_start_and_names_it(
    shell: Any, tmp_path: Path, mount: Any
) -> None:
    elsewhere = replace(shell, home=mount("ro"))

    refused(elsewhere.run("scheduler", "--root", tmp_path), str(tmp_path / "disk"), "Read-only")


@pytest.mark.slow
def test_a_job_without_workers_is_told_to_wait(shell: Any, eventually: Any) -> None:
    write_tiff(shell.home / "data" / "a.tif", dim_frames(5))
    cluster = shell.start("-n", 0, "--no-browser")
    eventually(lambda: "Ctrl-C" in shell.said(cluster), "the cluster")

    submitted = shell.run("submit", shell.home / "data" / "a.tif", *METADATA)

    assert submitted.returncode == 0, submitted.stderr
    assert "no worker is there" in submitted.stderr
    refused(shell.run("test", shell.home / "data" / "a.tif", *METADATA), "no worker")


def test_a_taken_port_is_named(shell: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        refused(shell.run("--port", port, "-n", 0, "--no-browser"), str(port), "port")


def test_commands_that_need_a_cluster_say_that_there_is_none(shell: Any) -> None:
    for arguments in (
        ["jobs"],
        ["submit", "a.tif"],
        ["watch", "x"],
        ["cancel", "x"],
        ["retry", "x"],
        ["approve"],
    ):
        refused(shell.run(*arguments), "clusterofone", "tried")


def test_a_root_that_is_not_there_is_named(shell: Any) -> None:
    refused(shell.run("--root", "nowhere", "--no-browser"), "nowhere", "no such folder")


@pytest.mark.parametrize(
    "command",
    [
        "localise",
        "test",
        "worker",
        "scheduler",
        "dataserver",
        "submit",
        "jobs",
        "watch",
        "cancel",
        "retry",
        "demo",
        "simulate",
        "export",
        "render",
        "psf",
        "cameramaps",
        "shifts",
        "drift",
        "doctor",
        "drain",
        "token",
        "approve",
    ],
)
def test_every_command_has_help_with_an_example(shell: Any, command: str) -> None:
    out = shell.run(command, "--help")

    assert out.returncode == 0, out.stderr
    assert "Example" in out.stdout
    assert f"clusterofone {command}" in out.stdout or command == "token"
