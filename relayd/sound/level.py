"""How loud a sound is."""

from math import log10
from typing import Final

import numpy as np

from relayd.sound.blocks import Samples

SILENT: Final = -100.0
"""dBFS of digital silence; one bit of 16 is at -90."""
_BLOCKS: Final = 10
"""Blocks of one value: 100 ms."""
_FULL: Final = 32768.0**2
"""Power of full scale."""


class LevelMeter:
    """The level of each 100 ms."""

    def __init__(self) -> None:
        self.dbfs = SILENT
        """Root mean square of the last full 100 ms in dB of full scale, SILENT to 0."""
        self._power = 0.0
        self._count = 0

    def add(self, samples: Samples) -> None:
        """Take note of the next block."""
        wave = samples.astype(np.float32)
        self._power += float(np.dot(wave, wave)) / len(wave)
        self._count += 1
        if self._count == _BLOCKS:
            power = self._power / _BLOCKS / _FULL
            self.dbfs = max(SILENT, 10 * log10(power)) if power else SILENT
            self._power, self._count = 0.0, 0
