"""Waking those who wait, on one event loop."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Signal:
    """Something happens now and then; whoever waits is woken by the next time."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order they came
        self.pulses = 0  # so far, for whoever looked away and may have missed one

    @property
    def is_awaited(self) -> bool:
        """Return whether anyone waits."""
        return bool(self._waiting)

    def pulse(self) -> None:
        """Wake everyone, who has waited longest first."""
        self.pulses += 1
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next pulse, `timeout_s` at most; return whether it came."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(future, None)
        return True


class Signals:
    """What can be waited for: work to lease, and changes of each job. Closing wakes everyone for good.

    The signal of a job lives as long as somebody holds it, so that jobs which nobody watches cost nothing.
    """

    def __init__(self) -> None:
        self.work = Signal()
        self.closing = False
        self._jobs: WeakValueDictionary[str, Signal] = WeakValueDictionary()

    def job(self, job_id: str) -> Signal:
        """Return the signal of a job's changes; hold it for as long as they matter."""
        return self._jobs.setdefault(job_id, Signal())

    def changed(self, job_id: str) -> None:
        """Wake those who watch a job."""
        signal = self._jobs.get(job_id)
        if signal is not None:
            signal.pulse()

    def forget(self, job_id: str) -> None:
        """Wake those who watch a job for the last time."""
        signal = self._jobs.pop(job_id, None)
        if signal is not None:
            signal.pulse()

    def close(self) -> None:
        """Wake everyone, to end."""
        self.closing = True
        self.work.pulse()
        for signal in list(self._jobs.values()):
            signal.pulse()
