"""Cuts sound of any length into blocks of 10 ms, each with the time of its first sample."""

from typing import Final

import numpy as np

from relayd.media.sound import PcmSamples
from relayd.sound.blocks import BLOCK, RATE, OwnSound

HOLE: Final = 0.03
"""s by which a piece may be early or late and still continues the one before: stamps are rounded
to a millisecond at best, and some containers' to whole packets."""
_FOLLOWED: Final = 0.2
"""Share of such a difference by which the time is corrected with each piece."""
FADE: Final = 240
"""Samples (5 ms) over which sound begins and ends at a seam."""


class BlockMaker:
    """Makes blocks of pieces; a rest is kept for the next piece.

    Their times are those of an even stream of samples that follows the pieces' times slowly; a
    piece that is earlier or later by more than HOLE starts over, with the rest filled up by
    silence.
    """

    def __init__(self) -> None:
        self._rest: PcmSamples = np.zeros(0, np.int16)
        self._at = 0.0
        """When the rest begins."""
        self._is_empty = True
        self.breaks = 0
        """Holes and jumps so far."""

    def put(self, samples: PcmSamples, at: float | None) -> list[OwnSound]:
        """Add a piece that begins at `at`; None: where the one before ends."""
        blocks: list[OwnSound] = []
        expected = self._at + len(self._rest) / RATE
        if self._is_empty:
            if at is None:
                return []
            self._at, self._is_empty = at, False
        elif at is not None:
            off = at - expected
            if abs(off) > HOLE:
                self.breaks += 1
                blocks = self.finish()
                self._at, self._is_empty = at, False
            else:
                self._at += off * _FOLLOWED
        return blocks + self._cut(samples)

    def finish(self) -> list[OwnSound]:
        """Return the rest, filled up with silence, and start over."""
        rest, at = self._rest, self._at
        self._rest, self._is_empty = rest[:0], True
        if not len(rest):
            return []
        block = np.zeros(BLOCK, np.int16)
        block[: len(rest)] = rest
        return [OwnSound(block, at)]

    def _cut(self, samples: PcmSamples) -> list[OwnSound]:
        whole = np.concatenate((self._rest, samples))
        count = len(whole) // BLOCK
        at = self._at
        self._rest, self._at = whole[count * BLOCK :], at + count * BLOCK / RATE
        return [
            OwnSound(
                whole[number * BLOCK : (number + 1) * BLOCK].copy(), at + number * BLOCK / RATE
            )
            for number in range(count)
        ]


def clipped(
    samples: PcmSamples, at: float, start: float, end: float | None
) -> tuple[PcmSamples, float]:
    """Return what lies between `start` and `end`, faded at both, and when it begins.

    It may be empty.
    """
    first = max(0, round((start - at) * RATE))
    last = len(samples) if end is None else max(first, min(len(samples), round((end - at) * RATE)))
    kept = samples[first:last]
    at += first / RATE
    place = at + np.arange(len(kept)) / RATE
    gain = np.clip((place - start) * RATE / FADE, 0, 1)
    if end is not None:
        gain = np.minimum(gain, np.clip((end - place) * RATE / FADE, 0, 1))
    if len(kept) and gain.min() < 1:
        kept = (kept * gain).astype(np.int16)
    return kept, at
