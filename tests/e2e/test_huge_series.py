"""Series of 100 GB, which take none on a file system with holes: opened at once, served in little memory; and no process is left."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.e2e

GB = 10**9
SIDE, SIDE_BYTES = 512, 512 * 512 * 2
FRAMES = 100 * GB // SIDE_BYTES + 1


def _hollow(path: Path, size: int, marks: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for at, mark in marks.items():
            file.seek(at)
            file.write(mark)
    if path.stat().st_blocks * 512 > 100 << 20:
        pytest.skip("this file system has no files with holes")


def _raw(folder: Path) -> str:
    _hollow(folder / "huge.raw", FRAMES * SIDE_BYTES, {(FRAMES - 1) * SIDE_BYTES: b"\7\0"})
    text = f"Byte Order: <\nData Type: uint16\nFrames: {FRAMES}\nHeight: {SIDE}\nWidth: {SIDE}\n"
    (folder / "huge.yaml").write_text(text, "utf-8")
    return "huge.raw"


def _dax_of_the_other_order(folder: Path) -> str:
    """Frames that do not lie as they are served come through the parser."""
    _hollow(folder / "huge.dax", FRAMES * SIDE_BYTES, {(FRAMES - 1) * SIDE_BYTES: b"\0\7"})
    text = f"data type = 16 bit integers (binary, big endian)\nframe dimensions = {SIDE} x {SIDE}\nnumber of frames = {FRAMES}\n"
    (folder / "huge.inf").write_text(text, "utf-8")
    return "huge.dax"


def _npy(folder: Path) -> str:
    head = {"descr": "<u2", "fortran_order": False, "shape": (FRAMES, SIDE, SIDE)}
    with (folder / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        begin = file.tell()
    header = (folder / "huge.npy").read_bytes()
    last = begin + (FRAMES - 1) * SIDE_BYTES
    _hollow(folder / "huge.npy", begin + FRAMES * SIDE_BYTES, {0: header, last: b"\7\0"})
    return "huge.npy"


def _bigtiff(folder: Path) -> str:
    """12,500 pages of 2048², each described after its pixels, as cameras' programs write them."""
    side, pages = 2048, 12_500
    size = side * side * 2
    stride = size + 8 + 9 * 20 + 8
    marks = {0: b"II+\0\x08\0\0\0" + struct.pack("<Q", 16 + size)}
    for page in range(pages):
        first = 16 + page * stride
        tags = {256: side, 257: side, 258: 16, 259: 1, 262: 1, 273: first, 277: 1, 278: side, 279: size}
        entries = b"".join(struct.pack("<HHQQ", tag, 16, 1, value) for tag, value in tags.items())
        following = first + stride + size if page + 1 < pages else 0
        marks[first + size] = struct.pack("<Q", len(tags)) + entries + struct.pack("<Q", following)
    marks[16 + (pages - 1) * stride] = b"\7\0"
    _hollow(folder / "huge.tif", 16 + pages * stride, marks)
    return "huge.tif"


@pytest.fixture
def server(shell: Any, tmp_path: Path) -> tuple[Path, psutil.Process, str]:
    root = tmp_path / "huge"
    root.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = "http://127.0.0.1:1"
    process = shell.start("dataserver", "--insecure", "--root", root, "--port", port, "--scheduler", nobody)
    deadline = time.monotonic() + 60
    url = f"http://127.0.0.1:{port}"
    while True:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/healthz")
            return root, psutil.Process(process.pid), url
        assert process.poll() is None, shell.said(process)
        assert time.monotonic() < deadline, shell.said(process)
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("write", [_raw, _dax_of_the_other_order, _npy, _bigtiff])
def test_a_hundred_gigabytes_are_opened_at_once_and_served_in_little_memory(
    server: tuple[Path, psutil.Process, str], write: Callable[[Path], str]
) -> None:
    root, process, url = server
    series = f"{url}/api/v1/series/{write(root)}"
    assert sum(file.stat().st_size for file in root.iterdir()) > 100 * GB

    began = time.monotonic()
    facts = httpx.get(series, timeout=30).raise_for_status().json()
    opened_s = time.monotonic() - began
    many = (16 << 20) // (facts["height"] * facts["width"] * 2)
    most = 0

    def get(start: int) -> int:
        query = {"start": start, "stop": start + many}
        return len(httpx.get(f"{series}/frames", params=query, timeout=60).raise_for_status().content)

    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(get, np.linspace(0, facts["frames"] - many, 40).astype(int).tolist()):
            most = max(most, process.memory_info().rss)
    last = httpx.get(f"{series}/frames/{facts['frames'] - 1}.png", timeout=30)

    told = {"open_s": round(opened_s, 3), "rss_mb": round(most / 1e6), "said": last.status_code}
    assert facts["missing"] == []
    assert told["said"] == 200
    assert told["open_s"] < 2.0, told
    assert told["rss_mb"] < 300, told


def test_a_data_server_that_is_stopped_leaves_no_process(
    server: tuple[Path, psutil.Process, str],
) -> None:
    _, process, _ = server
    children = process.children(recursive=True)

    process.terminate()
    gone, alive = psutil.wait_procs([process, *children], timeout=15)

    assert len(children) == 1
    assert alive == []
    assert len(gone) == 2
