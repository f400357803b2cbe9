"""Which pictures of a source make up an even share of it, and when each is handed on.

A picture is needed or it is not, which is clear when it arrives; so one that is needed never
waits. One picture is handed on for each tick, 1/fps seconds apart, at most that much early or
late: that is enough for a source of any rate and with jitter to give every tick its own picture.
"""

from collections import deque
from statistics import median
from typing import Final

CLOSEST: Final = 0.5
"""Periods of 1/fps between two pictures at least: encoding and swapping need time for each."""
REGULAR: Final = 0.7
"""Periods by which a source's last intervals may differ for its next picture to be predictable."""
OVERDUE: Final = 1.5
"""Intervals of the source after which the next picture is no longer awaited."""
SAFE: Final = 0.25
"""Periods before a deadline by which a picture must be expected to be waited for."""
_INTERVALS: Final = 9
"""Intervals of the source whose median counts: single gaps and bursts do not change it."""
_MORE_INTERVALS: Final = 31
"""Intervals of which all but the two longest and the two shortest show if it is regular."""
_STEADY_TICKS: Final = 20
"""Ticks after which the limit between needed and spare pictures is corrected."""
_LARGEST_CORRECTION: Final = 0.0002
"""Share of the time by which the limit is moved: twice what two quartz clocks differ by."""
_FIRST_CORRECTIONS: Final = 2
"""Corrections at the start that may be large, as the limit's place is random then."""
_LARGE_CORRECTION: Final = 0.2
"""Periods by which those move the limit: more than half of the distance between the phases that a
source of 24 to 60 fps has."""


class EvenShare:
    """Decides for each tick which picture is handed on, and when; pure, all times monotonic s.

    Tell it of each picture (`arrived`), wait until `moment` or the next picture, then hand the
    newest one on and say so (`handed_on`), or that there was nothing to hand on (`starved`).
    """

    def __init__(self, fps: float, now: float) -> None:
        """Begin at `now` with the first tick."""
        self._period = 1.0 / fps
        self._due = now
        self._handed_at = float("-inf")
        self._newest_at: float | None = None
        self._is_unsent = False
        self._is_starved = True
        self._intervals: deque[float] = deque(maxlen=_MORE_INTERVALS)
        self._boundary = _Boundary(self._period)

    def arrived(self, at: float, count: int = 1) -> None:
        """Note that the newest picture arrived at `at`, the last of `count` new ones."""
        if self._newest_at is not None:
            self._intervals.append((at - self._newest_at) / count)
        self._newest_at, self._is_unsent = at, True
        self._boundary.note(at - self._earliest)

    def moment(self) -> float:
        """When to hand a picture on, unless another one arrives before.

        Until then a newer one may come; a moment that has passed means at once.
        """
        if not self._is_unsent:
            return self._repeat_at()
        assert self._newest_at is not None
        if self._is_starved:
            return self._newest_at
        opens = max(self._earliest, self._handed_at + CLOSEST * self._period)
        if self._newest_at >= self._earliest:
            return opens
        # It came before its tick, when the tick before had its picture: a fresher one is better.
        awaited = OVERDUE * self._interval if self._is_regular else 0.0
        return min(max(opens, self._newest_at + awaited), self.deadline)

    @property
    def deadline(self) -> float:
        """When the present tick ends, with a picture or without."""
        return self._due + self._period

    def handed_on(self, now: float) -> int:
        """Note that a picture was handed on at `now`; returns how many ticks were left out."""
        if self._is_starved:
            self._due, self._is_starved = now, False
            self._boundary = _Boundary(self._period)
        self._handed_at, self._is_unsent = now, False
        return self._next_tick(now)

    def starved(self, now: float) -> int:
        """Note that there was nothing to hand on until `deadline`; returns ticks left out."""
        self._is_starved = True
        return self._next_tick(now)

    @property
    def _earliest(self) -> float:
        return self._due - self._period

    @property
    def _interval(self) -> float:
        """The source's usual interval; 0 while unknown."""
        return median(list(self._intervals)[-_INTERVALS:]) if self._intervals else 0.0

    @property
    def _is_regular(self) -> bool:
        """Whether it is known when the next picture will come."""
        usual = sorted(self._intervals)[2:-2]
        return bool(usual) and usual[-1] - usual[0] <= REGULAR * self._period

    def _repeat_at(self) -> float:
        """When to repeat the last picture: midway to the next one, if that comes too late."""
        if self._newest_at is None:
            return self.deadline
        expected = self._newest_at + self._interval
        if expected <= self.deadline - SAFE * self._period:
            return self.deadline
        opens = max(self._earliest, self._handed_at + CLOSEST * self._period)
        return min(max(opens, (self._handed_at + expected) / 2), self.deadline)

    def _next_tick(self, now: float) -> int:
        left_out = max(0, int((now - self.deadline) / self._period))
        self._due += (1 + left_out) * self._period + self._boundary.correction()
        return left_out


class _Boundary:
    """Keeps the limit between spare and needed pictures midway between two of them.

    A source of 30 fps has a picture of three to spare. If the limit lay where one of them
    arrives, the least jitter would decide which, each time; and two clocks drift.
    """

    def __init__(self, period: float) -> None:
        self._first_step = _LARGE_CORRECTION * period
        self._step = _LARGEST_CORRECTION * period * _STEADY_TICKS
        self._ticks = self._corrections = 0
        self._spare, self._needed = float("-inf"), float("inf")

    def note(self, after: float) -> None:
        """Note a picture that arrived `after` the limit (negative: before it, as a spare)."""
        if after < 0:
            self._spare = max(self._spare, after)
        else:
            self._needed = min(self._needed, after)

    def correction(self) -> float:
        """Return by how much to move the limit after this tick, in s."""
        self._ticks += 1
        if self._ticks < _STEADY_TICKS:
            return 0.0
        error = (self._spare + self._needed) / 2
        has_both = self._spare > float("-inf") and self._needed < float("inf")
        self._ticks, self._spare, self._needed = 0, float("-inf"), float("inf")
        if not has_both:
            return 0.0
        self._corrections += 1
        step = self._first_step if self._corrections <= _FIRST_CORRECTIONS else self._step
        return max(-step, min(step, error))
