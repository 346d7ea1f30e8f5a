"""A small sCMOS of known offset, noise and gain, and series from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fitting.calibration.pixel_sums import PixelStatistics, PixelSums

Array = np.ndarray[Any, Any]
SHAPE = (48, 64)
QUANTISATION = 1 / 12  # variance of rounding to whole ADU


@dataclass
class Sensor:
    offset: Array
    read_noise_e: Array
    gain: Array
    light: Array

    @property
    def variance_adu2(self) -> Array:
        return (self.gain * self.read_noise_e) ** 2 + QUANTISATION

    def frames(
        self,
        count: int,
        photons: float,
        seed: int,
        *,
        flicker: float = 0.0,
        drift_adu: float = 0.0,
        leak: Collection[int] = (),
    ) -> Array:
        rng = np.random.default_rng(seed)
        time = np.arange(count)[:, np.newaxis, np.newaxis]
        expected = photons * self.light * (1 + flicker * np.sin(time / 3))
        expected = expected + 30.0 * np.isin(time, list(leak))
        electrons = rng.poisson(expected) + rng.normal(0, self.read_noise_e, (count, *SHAPE))
        adu = self.offset + drift_adu * time / count + self.gain * electrons
        return np.clip(np.rint(adu), 0, 65535).astype(np.uint16)

    def series(self, count: int, photons: float, seed: int, **more: Any) -> PixelStatistics:
        frames = self.frames(count, photons, seed, **more)
        sums = PixelSums()
        sums.add(frames)
        for number in sums.unlike_the_others():
            sums.take_out(number, frames[number])
        return sums.statistics()


@pytest.fixture
def make_sensor() -> Callable[..., Sensor]:
    def make(seed: int = 0, *, gain_spread: float = 0.1, shading: float = 0.3) -> Sensor:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
        return Sensor(
            offset=rng.normal(100, 3, SHAPE),
            read_noise_e=1.6 * rng.lognormal(0, 0.2, SHAPE),
            gain=rng.normal(2.1, gain_spread, SHAPE),
            light=1 - shading * (x**2 + 0.5 * y**2 + 0.3 * x) / 2,
        )

    return make
