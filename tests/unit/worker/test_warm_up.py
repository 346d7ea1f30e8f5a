"""Workers of one machine compile one after the other, so that all but the first find everything compiled."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock

import fitting
from cluster.worker.engine import Engine


def test_a_worker_waits_until_another_one_has_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = threading.Event()
    monkeypatch.setattr(fitting, "warm_up", lambda *_: compiled.set())
    worker = threading.Thread(
        target=Engine()._compile, args=(tmp_path, {"estimator": "mle"}, "uint16"), daemon=True
    )

    with FileLock(tmp_path / "warm-up.lock"):
        worker.start()
        assert not compiled.wait(0.2)
    worker.join(10)

    assert compiled.is_set()
