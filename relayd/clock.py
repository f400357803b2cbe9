"""Time: an injectable clock, absolute-deadline ticks, backoff.

Nothing here sleeps for a length: it sleeps until a moment, so work done between
two ticks never makes the cadence drift.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from; tests bring their own."""

    def now(self) -> float:
        """Monotonic seconds; the same in every process of the machine (CLOCK_MONOTONIC)."""

    def sleep_until(self, moment: float, stop: Event) -> bool:
        """Wait until `moment` or until `stop` is set; True when it was set."""


class MonotonicClock:
    """The machine's clock."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep_until(self, moment: float, stop: Event) -> bool:
        """Wait until `moment` or until `stop` is set; True when it was set."""
        while (rest := moment - time.monotonic()) > 0:
            if stop.wait(rest):
                return True
        return stop.is_set()


@dataclass(frozen=True, slots=True)
class Tick:
    """One beat of a ticker."""

    deadline: float
    """When it was due, monotonic seconds."""
    late: float
    """How much later it came, seconds."""
    skipped: int
    """Beats that were left out before it, because the caller or the machine slept too long."""


class Ticker:
    """Beats each 1/rate seconds at absolute deadlines; beats long past are skipped, not made up."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._period = 1.0 / rate
        self._clock = clock
        self._next = clock.now()

    def wait(self, stop: Event) -> Tick | None:
        """Wait for the next beat; None when `stop` was set meanwhile."""
        if self._clock.sleep_until(self._next, stop):
            return None
        deadline, late = self._next, max(0.0, self._clock.now() - self._next)
        skipped = int(late / self._period)
        self._next += (skipped + 1) * self._period
        return Tick(deadline, late, skipped)

    def nudge(self, seconds: float) -> None:
        """Shift all later beats (positive: later), to follow another clock's phase."""
        self._next += seconds


class PhaseLock:
    """Keeps a ticker's beats a small, steady time after the arrival of the frames it shows.

    Two clocks of the same rate meet at a random phase, which would add up to one whole
    period of delay. Each beat the phase is moved a little: not enough to be seen in the
    cadence, enough to be gone after some seconds.
    """

    TARGET_AGE = 0.008
    """s that a frame may wait for its beat: above the usual jitter of arrivals."""
    EARLIER = 0.0001
    """s a beat moves when frames wait too long: 0.2 % of 20 fps."""
    LATER = 0.0004
    """s a beat moves when a frame nearly missed it: quicker, a miss repeats a frame."""

    def correction(self, age: float | None) -> float:
        """Seconds to nudge by, from the age of the newest frame at the beat (None: none new)."""
        if age is None or age < self.TARGET_AGE / 2:
            return self.LATER
        return -self.EARLIER if age > self.TARGET_AGE else 0.0


class Backoff:
    """Waits that start short, double with jitter up to a cap, and start anew after good time."""

    def __init__(
        self,
        first: float,
        cap: float,
        *,
        good_after: float = 10.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first, self._cap, self._good_after = first, cap, good_after
        self._jitter = jitter
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures in a row so far."""
        return self._failures

    def next_wait(self, good_for: float = 0.0) -> float:
        """Seconds to wait before the next try, after one that was good for `good_for` seconds."""
        if good_for >= self._good_after:
            self._failures = 0
        wait = min(self._cap, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return wait * (0.75 + 0.5 * self._jitter()) if self._failures > 1 else wait

    def reset(self) -> None:
        """Start anew."""
        self._failures = 0
