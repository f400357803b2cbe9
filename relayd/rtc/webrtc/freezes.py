"""Counts how often a received picture stood still, as the statistics of browsers do."""

from collections import deque

_WINDOW = 30
"""Intervals between pictures that the usual one is the mean of."""
_SHORTEST = 0.15
"""s above the usual interval that a pause must last."""


class FreezeCounter:
    """Counts freezes (W3C webrtc-stats, freezeCount); for one thread."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._intervals: deque[float] = deque(maxlen=_WINDOW)
        self.count = 0

    def put(self, now: float) -> None:
        """Note a picture that was shown at `now`, s."""
        if self._last is not None:
            interval = now - self._last
            if self._intervals:
                usual = sum(self._intervals) / len(self._intervals)
                self.count += interval >= max(3 * usual, usual + _SHORTEST)
            self._intervals.append(interval)
        self._last = now
