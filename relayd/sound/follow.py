"""What the delay line is to aim at: the delay of the picture, as measured."""

from collections import deque
from statistics import fmean
from threading import Lock
from typing import Final

_NEWEST: Final = 20
"""Measurements that count: 1 s at 20 pictures a second."""
_PART: Final = (0.5, 0.8)
"""Which of them, in the order of their size, the target is the mean of. Pictures are shown at
ticks of the output: a median would jump by a tick to and fro where delays lie between two. The
upper half, as sound is sooner noticed when it is early than when it is late."""
_FEWEST: Final = 5
"""Measurements of a route before its delay is believed."""
_MAX_AGE: Final = 1.5
"""s; older ones than that say nothing about now, if there are newer ones."""
_STEP: Final = 0.08
"""s by which a delay differs from the target so much that it is no unevenness."""
_STEPPED: Final = 6
"""Measurements in a row, all of them too long or all too short by that: from then on only they
count. A few late pictures are no step, and with a pause to wait for it is done within 2 s."""


class DelayFollower:
    """Turns measurements of the picture's delay into the delay that sound should have.

    Each method may be called in any thread.
    """

    def __init__(self, offset: float = 0.0, fixed: float = 0.0) -> None:
        """Add `offset` s to what is measured; or always aim at `fixed` s, if that is not 0."""
        self._offset, self._fixed = offset, fixed
        self._lock = Lock()
        self._notes: deque[tuple[float, float]] = deque(maxlen=_NEWEST)
        self._measured: float | None = None

    def note(self, delay: float, now: float) -> None:
        """Take note of a picture that was shown at `now`, `delay` s after its capture."""
        with self._lock:
            self._notes.append((now, delay))
            while now - self._notes[0][0] > _MAX_AGE or self._has_stepped():
                self._notes.popleft()
            if len(self._notes) >= _FEWEST:
                self._measured = _typical(sorted(delay for _, delay in self._notes))

    def _has_stepped(self) -> bool:
        """Whether the newest measurements, but not all, show that the delay is another now."""
        if self._measured is None or len(self._notes) <= _STEPPED:
            return False
        measured, newest = self._measured, list(self._notes)[-_STEPPED:]
        errors = [delay - measured for _, delay in newest]
        return min(errors) > _STEP or max(errors) < -_STEP

    def forget(self) -> None:
        """Start with new measurements, for another route; until there are some, the last holds."""
        with self._lock:
            self._notes.clear()

    def set_offset(self, offset: float) -> None:
        """Add `offset` s from now on."""
        self._offset = offset

    def target(self) -> float | None:
        """Return the s from capture to listener; None before the first measurements."""
        if self._fixed:
            return max(0.0, self._fixed + self._offset)
        measured = self._measured
        return None if measured is None else max(0.0, measured + self._offset)


def _typical(delays: list[float]) -> float:
    """Return the mean of the part of sorted `delays` that counts."""
    first, last = (int(share * len(delays)) for share in _PART)
    return fmean(delays[first:last])
