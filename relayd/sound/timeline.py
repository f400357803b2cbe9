"""The newest seconds of a voice, kept by the time of capture.

A sample's number says when it was captured, so a hole is silence of the right length and late
blocks of a clock that went back take the place that their time says.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from relayd.sound.blocks import RATE, Samples

CAPACITY: Final = 6 * RATE
"""Samples kept: the longest delay, files read 2 s ahead, and some space."""
_ROUNDING: Final = 0.002
"""s by which a block's time may differ from the end of the block before it because stamps are
rounded: flv has whole ms."""
_JITTER: Final = 0.015
"""The same because stamps are uneven, if the wave goes on. If it does not, a block was lost."""
_AROUND: Final = 16
"""Samples on each side of a joint that show how much the wave bends there."""
_TORN: Final = 2.0
"""Times that bend by which a joint is a tear."""
_SMOOTHING: Final = 0.01
"""Share of that difference by which the clock is corrected with each block: within some 1 s."""
_HOLE: Final = 1.0
"""s; a longer hole is another clock or another recording: counted as a resync."""
EDGE: Final = RATE * 5 // 1000
"""Samples over which sound fades at a hole: 5 ms make no click."""

RISE: Final[NDArray[np.float32]] = (
    0.5 - 0.5 * np.cos(np.pi * (np.arange(EDGE) + 0.5) / EDGE)
).astype(np.float32)
"""Gains of a fade in, shape (EDGE,)."""


class Timeline:
    """A ring of int16 samples with one clock; samples that it does not have read as silence."""

    def __init__(self) -> None:
        self._ring = np.zeros(CAPACITY, np.int16)
        self._zero: float | None = None
        """Capture time of sample number 0; None before the first block."""
        self._oldest = 0
        self.end = 0
        """Number of the sample after the newest one."""
        self.gap_seconds = 0.0
        """s of silence put into holes so far."""
        self.resyncs = 0
        """Times that the clock of the blocks went back, or forward by more than a second."""

    @property
    def is_empty(self) -> bool:
        """Whether no block came yet."""
        return self._zero is None

    @property
    def oldest(self) -> int:
        """Number of the oldest sample that is there."""
        return self._oldest

    def number_at(self, moment: float) -> float:
        """Return the number of the sample captured at `moment`; only if it is not empty."""
        assert self._zero is not None
        return (moment - self._zero) * RATE

    def push(self, samples: Samples, at: float) -> None:
        """Add a block whose first sample was captured at `at`, monotonic s."""
        if self._zero is None:
            self._zero = at - self.end / RATE
            samples = faded_in(samples)
        off = at - (self._zero + self.end / RATE)
        if abs(off) <= _ROUNDING or (abs(off) <= _JITTER and not self._is_torn_before(samples)):
            self._zero += off * _SMOOTHING
        else:
            if 0 < off <= _HOLE:
                self.gap_seconds += off
            else:
                self.resyncs += 1
            self._move_end(round(off * RATE))
            samples = faded_in(samples)
        self._append(samples)

    def span(self, start: int, count: int) -> Samples:
        """Return `count` samples from number `start` on, shape (count,); maybe a view."""
        if self._oldest <= start and start + count <= self.end:
            place = start % CAPACITY
            if place + count <= CAPACITY:
                return self._ring[place : place + count]
        numbers = np.arange(start, start + count)
        found: Samples = self._ring[numbers % CAPACITY]
        found[(numbers < self._oldest) | (numbers >= self.end)] = 0
        return found

    def clear(self) -> None:
        """Overwrite the voice and forget the clock; the counts stay."""
        self._ring.fill(0)
        self._zero = None
        self._oldest = self.end

    def _is_torn_before(self, samples: Samples) -> bool:
        joint = np.concatenate((self.span(self.end - _AROUND, _AROUND), samples[:_AROUND]))
        bends = np.abs(np.diff(joint.astype(np.int32), 2))
        at_joint = bends[_AROUND - 2 : _AROUND].max()
        bends[_AROUND - 2 : _AROUND] = 0
        return bool(at_joint > _TORN * bends.max() + 1)

    def _move_end(self, shift: int) -> None:
        """Put silence up to a later end, or give up what comes after an earlier one."""
        if shift < 0:
            self.end += shift
            self._oldest = min(self._oldest, self.end)
        self._fade_tail()
        if shift > 0:
            kept = min(shift, CAPACITY)
            self.end += shift - kept
            self._append(np.zeros(kept, np.int16))

    def _fade_tail(self) -> None:
        count = min(EDGE, self.end - self._oldest)
        if count:
            places = np.arange(self.end - count, self.end) % CAPACITY
            self._ring[places] = faded_out(self._ring[places])

    def _append(self, samples: Samples) -> None:
        place, count = self.end % CAPACITY, len(samples)
        first = min(count, CAPACITY - place)
        self._ring[place : place + first] = samples[:first]
        self._ring[: count - first] = samples[first:]
        self.end += count
        self._oldest = max(self._oldest, self.end - CAPACITY)


def faded_in(samples: Samples) -> Samples:
    """Return a copy whose first 5 ms rise from silence."""
    faded, count = samples.copy(), min(EDGE, len(samples))
    faded[:count] = np.rint(samples[:count] * RISE[:count])
    return faded


def faded_out(samples: Samples) -> Samples:
    """Return a copy whose last 5 ms fall to silence."""
    return faded_in(samples[::-1])[::-1]
