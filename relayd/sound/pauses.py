"""Where speech pauses: there a delay may change without a word lost or heard twice."""

from typing import Final

import numpy as np

from relayd.sound.blocks import BLOCK, Samples

_QUIET: Final = 60.0
"""Root mean square of a block that is a pause in any room: -55 dBFS."""
_OVER_FLOOR: Final = 2.5
"""Times the noise of the room up to which a block is a pause."""
_RISE: Final = 1.002
"""Growth of the supposed noise per block: by a factor of 1.2 a second."""


class Pauses:
    """Tells pauses from speech by the noise of the room."""

    def __init__(self) -> None:
        self._floor = _QUIET
        self.passed = 0
        """Samples of the pause that ends with the newest block; 0 in speech."""

    def add(self, block: Samples) -> None:
        """Take note of the next block that is played."""
        level = _level(block)
        self._floor = min(level + 1, self._floor * _RISE)
        self.passed = self.passed + len(block) if self._is_quiet(level) else 0

    def jumped(self) -> None:
        """Take note of a jump: of the pause that may go on there, one block is played."""
        self.passed = min(self.passed, BLOCK)

    def forget(self) -> None:
        """Begin again with another piece of sound."""
        self.passed = 0

    def quiet_ahead(self, samples: Samples) -> int:
        """Return how many samples of `samples` are a pause, from the first on, in blocks."""
        for start in range(0, len(samples) - BLOCK + 1, BLOCK):
            if not self._is_quiet(_level(samples[start : start + BLOCK])):
                return start
        return len(samples) // BLOCK * BLOCK

    def _is_quiet(self, level: float) -> bool:
        return level < max(_QUIET, _OVER_FLOOR * self._floor)


def _level(block: Samples) -> float:
    wave = block.astype(np.float32)
    return float(np.sqrt(np.dot(wave, wave) / len(wave)))
