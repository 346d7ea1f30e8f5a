"""Workers of one machine compile one after the other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import cluster.worker.engine
import fitting
from cluster.worker.engine import Engine


def test_a_worker_waits_while_another_one_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, compiled = threading.Event(), threading.Event()

    class Watched(FileLock):  # type: ignore[misc, valid-type]
        def acquire(self, *arguments: Any, **others: Any) -> Any:
            asked.set()
            return super().acquire(*arguments, **others)

    monkeypatch.setattr(cluster.worker.engine, "FileLock", Watched)
    monkeypatch.setattr(fitting, "warm_up", lambda *_: compiled.set())
    worker = threading.Thread(target=Engine()._compile, args=(tmp_path, {"estimator": "mle"}, "uint16"))

    with FileLock(tmp_path / "warm-up.lock"):
        worker.start()
        assert asked.wait(10)
        assert not compiled.wait(0.2)
    worker.join(10)

    assert compiled.is_set()
