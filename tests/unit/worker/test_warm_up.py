"""Workers of one machine compile one after the other, and share what there is to compile."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock

import fitting
import fitting.warm
from cluster.worker.engine import Engine


class Compilers:
    """Note what is compiled, instead of compiling."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fit, self.whole = threading.Event(), threading.Event()
        monkeypatch.setattr(fitting, "warm_up", lambda *_: self.whole.set())
        monkeypatch.setattr(fitting.warm, "warm_up_fit", lambda *_: self.fit.set())


def worker_of(cache: Path) -> threading.Thread:
    return threading.Thread(
        target=Engine()._compile, args=(cache, {"estimator": "mle"}, "uint16"), daemon=True
    )


def test_a_worker_compiles_the_fit_while_another_one_compiles_and_then_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilers, worker = Compilers(monkeypatch), worker_of(tmp_path)

    with FileLock(tmp_path / "warm-up.lock"):
        worker.start()
        assert compilers.fit.wait(10)
        assert not compilers.whole.wait(0.2)
    worker.join(10)

    assert compilers.whole.is_set()


def test_a_third_one_only_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilers, worker = Compilers(monkeypatch), worker_of(tmp_path)

    with FileLock(tmp_path / "warm-up-fit.lock"):
        with FileLock(tmp_path / "warm-up.lock"):
            worker.start()
            assert not compilers.whole.wait(0.2)
        worker.join(10)

    assert compilers.whole.is_set()
    assert not compilers.fit.is_set()


def test_who_is_alone_compiles_everything_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilers = Compilers(monkeypatch)

    Engine()._compile(tmp_path, {"estimator": "mle"}, "uint16")

    assert compilers.whole.is_set()
    assert not compilers.fit.is_set()
