"""Heaps of the C allocator, counted by itself in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

THREADS = 6
PROGRAM = f"""
import ctypes, pathlib, sys, threading
from cluster.allocator import share_heaps

if "share" in sys.argv:
    assert share_heaps()
libc, together = ctypes.CDLL(None), threading.Barrier({THREADS})

def allocate():
    together.wait()
    libc.malloc(100)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype, report = ctypes.c_void_p, pathlib.Path(sys.argv[1])
file = ctypes.c_void_p(libc.fopen(bytes(report), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(report.read_text().count("<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heaps are those of glibc")
def test_threads_share_two_heaps_once_they_are_told_to(tmp_path: object) -> None:
    def heaps(*words: str) -> int:
        said = subprocess.run(
            [sys.executable, "-c", PROGRAM, f"{tmp_path}/heaps.xml", *words],
            check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return int(said.stdout)

    assert heaps() > 2
    assert heaps("share") <= 2
