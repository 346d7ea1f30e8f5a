"""Two hosts on one cable: network namespaces joined by a veth pair, gone when the test is over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

_COMMAND_S = 20


class TwoHosts:
    """Namespaces `a` (10.77.0.1) and `b` (10.77.0.2) that reach each other and nothing else."""

    def __init__(self, mark: str) -> None:
        self.a = f"c1{mark}a"
        self.b = f"c1{mark}b"
        self._started: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        """Lay the cable."""
        cable = (f"v{self.a}", f"v{self.b}")
        for name in (self.a, self.b):
            _ip("netns", "add", name)
        _ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for name, end, address in ((self.a, cable[0], "10.77.0.1"), (self.b, cable[1], "10.77.0.2")):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")

    def start(self, host: str, code: str) -> subprocess.Popen[str]:
        """Run Python code on one of the hosts."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def clear(self) -> None:
        """Stop what runs, and take the hosts away."""
        for process in self._started:
            process.kill()
            process.communicate()
        for name in (self.a, self.b):
            subprocess.run(
                ["ip", "netns", "delete", name], check=False, capture_output=True, timeout=_COMMAND_S
            )


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=_COMMAND_S)


def _why_not() -> str | None:
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    return None


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)
    made = TwoHosts(f"{os.getpid() % 100000}")
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield made
    finally:
        made.clear()
