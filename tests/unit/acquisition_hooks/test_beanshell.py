"""The script for Micro-Manager's script panel, run by a BeanShell against a small server."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "docs" / "examples" / "acquisition-hooks" / "follow_after_prebleach.bsh"
JAR = Path("/usr/share/java/bsh.jar")
MICROMANAGER = """
acquisitionsOf() {
    attachRunnable(int frame, int position, int channel, int slice, Runnable runnable) {
        print("attached at frame " + frame);
        runnable.run();
    }
    return this;
}
studio() { acquisitions() { return acquisitionsOf(); } return this; }
mm = studio();
"""


class Server(HTTPServer):
    """Answers with the codes it is given, one after the other, and keeps what it was sent."""

    def __init__(self, *codes: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes = list(codes)
        self.requests: list[tuple[str, dict[str, str], Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        self.send_response(self.server.codes.pop(0))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def served() -> Iterator[Any]:
    started: list[Server] = []

    def start(*codes: int) -> Server:
        server = Server(*codes)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def run(folder: Path, server: Server, **properties: str) -> str:
    host = folder / "host.bsh"
    host.write_text(f'{MICROMANAGER}\nsource("{SCRIPT.as_posix()}");\n', encoding="utf-8")
    given = {"scheduler": f"http://127.0.0.1:{server.server_port}", "token": "t0ken", **properties}
    options = [f"-Dclusterofone.{name}={value}" for name, value in given.items()]
    command = ["java", "-cp", str(JAR), *options, "bsh.Interpreter", str(host)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.skipif(
    shutil.which("java") is None or not JAR.is_file(), reason="needs Java and BeanShell (Debian: bsh)"
)
def test_the_script_posts_a_job_that_follows_from_the_frame_at_which_the_data_start(
    tmp_path: Path, served: Any
) -> None:
    server = served(201)

    said = run(
        tmp_path, server, series='today/a "b"\\c.tif', dataStartsAt="250", metadata='"Camera.ADOffset": 100'
    )

    assert "attached at frame 251" in said
    ((path, headers, body),) = server.requests
    assert path == "/api/v1/jobs"
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["idempotency-key"]
    assert body == {
        "series": 'today/a "b"\\c.tif',
        "follow": True,
        "metadata": {"Protocol.DataStartsAt": 250, "Camera.ADOffset": 100},
    }


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("java") is None or not JAR.is_file(), reason="needs Java and BeanShell (Debian: bsh)"
)
def test_it_tries_again_what_is_for_later_under_the_same_key_and_gives_up_what_is_refused(
    tmp_path: Path, served: Any
) -> None:
    server = served(503, 400)

    said = run(tmp_path, server)

    assert "refused with 400" in said
    assert len({headers["idempotency-key"] for _, headers, _ in server.requests}) == 1
    assert len(server.requests) == 2
