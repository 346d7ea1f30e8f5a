"""A cluster on this machine, as a user starts it, for the length of a benchmark."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from cluster.client import Client

_RUNNING = re.compile(r"scheduler +(http://\S+)")


class Cluster:
    """`clusterofone -n N` on the folder `data` of a root, with a home of its own beside it; gives its client."""

    def __init__(self, root: Path, workers: int) -> None:
        self._log = root / "cluster.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CLUSTEROFONE")}
        environment |= {"CLUSTEROFONE_HOME": str(root / "home"), "PYMEDATADIR": str(root / "data")}
        self._environment = environment
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "clusterofone",
                    "-n",
                    str(workers),
                    "--no-browser",
                    "--root",
                    str(root / "data"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self.url = self.token = ""

    def __enter__(self) -> Client:
        deadline = time.monotonic() + 60
        while not (found := _RUNNING.search(self._log.read_text())):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SystemExit(self._log.read_text())
            time.sleep(0.05)
        token = subprocess.run(
            [sys.executable, "-m", "clusterofone", "token", "--role", "owner"],
            check=True,
            capture_output=True,
            text=True,
            env=self._environment,
        ).stdout.strip()
        self.token = token
        self.url = found[1]
        self._client = Client(self.url, token)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def process(self, role: str) -> psutil.Process:
        """Return the process of a role: scheduler, dataserver or worker."""
        for child in psutil.Process(self._process.pid).children(recursive=True):
            if role in child.cmdline():
                return child
        raise SystemExit(f"there is no process of the {role}")
