"""How busy this worker's process and its machine are, for people who look at the cluster."""

from __future__ import annotations

import psutil

from cluster.protocol import WorkerLoad


class LoadMeter:
    """Measures since it was asked last; the first answer is since it was made."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent(None)
        psutil.cpu_percent(None)

    def __call__(self) -> WorkerLoad | None:
        """Return what was measured, None where the system does not tell."""
        try:
            cores = self._process.cpu_percent(None) / 100
            machine = psutil.cpu_percent(None) / 100
            memory = self._process.memory_info().rss
            in_use = psutil.virtual_memory().percent / 100
        except (psutil.Error, OSError):
            return None
        return WorkerLoad(
            cores=round(cores, 3),
            memory_bytes=memory,
            machine_cpu=round(min(1.0, machine), 3),
            machine_memory=round(min(1.0, in_use), 3),
        )
