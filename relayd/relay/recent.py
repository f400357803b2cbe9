"""Recent measurements, and the spread of the sum of two such quantities."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from relayd.media.delay import Spread

_SAMPLES = 64
"""Quantiles that represent each half of a sum: their pairs approximate the 95th percentile within
about 2 %, in a fraction of a millisecond; pairing all of a minute's measurements takes many."""


class Recent:
    """The measurements of the last seconds before the newest one, at any rate."""

    def __init__(self, window: float) -> None:
        """Keep those of the last `window` seconds."""
        self._window = window
        self._measured: deque[tuple[float, float]] = deque()

    def add(self, number: float, at: float) -> None:
        """Add a number that was measured at `at`, monotonic s."""
        self._measured.append((at, number))
        while at - self._measured[0][0] > self._window:
            self._measured.popleft()

    def numbers(self) -> list[float]:
        """Return the numbers, oldest first."""
        return [number for _, number in self._measured]

    def rate(self) -> float:
        """Return the measurements per second; 0 before there are two."""
        if len(self._measured) < 2:  # noqa: PLR2004 - a rate needs two
            return 0.0
        span = self._measured[-1][0] - self._measured[0][0]
        return (len(self._measured) - 1) / span if span > 0 else 0.0


def spread_of_sum(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Return the spread of the sum of two independent quantities, given their measurements.

    They were not measured together, so every pair counts. `count` is the number of the second.
    """
    if not first or not second:
        return Spread()
    shares = (np.arange(_SAMPLES) + 0.5) * (100 / _SAMPLES)
    p50, p95 = np.percentile(
        np.add.outer(np.percentile(first, shares), np.percentile(second, shares)), (50, 95)
    )
    return Spread(float(p50), float(p95), len(second))
