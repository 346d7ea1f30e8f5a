"""How busy a worker says it is."""

from __future__ import annotations

from cluster.worker.load import LoadMeter


def test_a_busy_process_uses_about_a_core_and_says_its_memory() -> None:
    meter = LoadMeter()
    sum(range(20_000_000))

    load = meter()

    assert load is not None
    assert 0.1 < load.cores < 8
    assert load.memory_bytes > 10 << 20
    assert 0 <= load.machine_cpu <= 1
    assert 0 < load.machine_memory <= 1
