"""The format must not show in the result: the same frames, the same rows, byte for byte."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import fitting
from cluster.arrays import decode_frames, encode_frames
from cluster.dataserver.store import SeriesStore
from fitting import simulate

SIM = simulate.Simulation(frames=24, height_px=48, width_px=72, emitters_per_frame=6, seed=11)
SETTINGS = {"fit": "LatGaussFitFR", "threshold": 1.0, "background": "-5:0"}
TASK_FRAMES = 7


@cache
def written() -> np.ndarray[Any, Any]:
    return simulate.frames(SIM)


@cache
def expected() -> np.ndarray[Any, Any]:
    return fitting.localise(written(), SETTINGS, simulate.metadata(SIM))


def test_every_format_is_localised_to_the_same_bytes(kind: Any, tmp_path: Path) -> None:
    """As a worker does it: range by range with its context, out of the store and over the wire."""
    path = kind.write(tmp_path, written())
    store = SeriesStore([tmp_path])
    name = path.relative_to(tmp_path).as_posix()
    try:
        assert store.facts(name).frames == SIM.frames
        tables = [_localised(store, name, start) for start in range(0, SIM.frames, TASK_FRAMES)]
    finally:
        store.close()

    assert len(expected()) > 4 * SIM.frames
    assert np.concatenate(tables).tobytes() == expected().tobytes()


def _localised(store: SeriesStore, name: str, start: int) -> np.ndarray[Any, Any]:
    stop = min(start + TASK_FRAMES, SIM.frames)
    before = max(0, start - 5)
    sent = b"".join(encode_frames(store.frames(name, before, stop)))
    received = decode_frames(sent).frames
    frames, context = received[start - before :], received[: start - before]
    return fitting.localise(
        frames,
        SETTINGS,
        simulate.metadata(SIM),
        first_frame=start,
        series=(0, SIM.frames),
        context=(before, context) if len(context) else None,
    )
