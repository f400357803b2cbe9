"""Time: an injectable clock, absolute-deadline ticks, backoff.

Nothing here sleeps for a duration: it sleeps until a deadline, so that work between two
ticks never makes the rate drift.
"""

import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """The source of time; tests use their own."""

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
        while (remaining := moment - time.monotonic()) > 0:
            if stop.wait(remaining):
                return True
        return stop.is_set()


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick of a ticker."""

    deadline: float
    """When it was due, monotonic seconds."""
    late: float
    """How much later it came, seconds."""
    skipped: int
    """Ticks left out before it, because the caller or the machine slept too long."""


class Ticker:
    """Ticks every 1/rate seconds at absolute deadlines; missed ticks are skipped, not caught up."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._period = 1.0 / rate
        self._clock = clock
        self._next = clock.now()

    def wait(self, stop: Event) -> Tick | None:
        """Wait for the next tick; None when `stop` was set meanwhile."""
        if self._clock.sleep_until(self._next, stop):
            return None
        deadline, late = self._next, max(0.0, self._clock.now() - self._next)
        skipped = int(late / self._period)
        self._next += (skipped + 1) * self._period
        return Tick(deadline, late, skipped)

    def nudge(self, seconds: float) -> None:
        """Shift all later ticks (positive: later), to follow another clock's phase."""
        self._next += seconds


class PhaseLock:
    """Keeps a ticker's ticks shortly after the arrival of the frames they show.

    Two clocks of the same rate start at a random phase, which would add up to one whole period
    of delay; and ticks that coincide with arrivals show one frame twice and miss the next. So
    the ticks are shifted, in steps too small to be visible, until all but a few of the last
    arrivals come just before them.
    """

    MARGIN = 0.004
    """s between the latest usual arrival and its tick."""
    STRAGGLERS = 0.03
    """Share of arrivals that may come later than that: each costs a repeated frame."""
    STEP = 0.0002
    """s that a tick is shifted at most: 0.4 % of 20 fps, and 25 ms in six seconds."""
    MEMORY = 80
    """Arrivals remembered: four seconds."""
    FEWEST = 10
    """Arrivals needed before anything is corrected."""

    def __init__(self, rate: float) -> None:
        """Follow arrivals of `rate` a second, the ticker's own rate."""
        self._period = 1.0 / rate
        self._shift = 0.0
        self._phases: deque[float] = deque(maxlen=self.MEMORY)

    def correction(self, age: float) -> float:
        """Return the seconds to nudge by, from the age of the new frame that a tick showed."""
        self._phases.append(age - self._shift)
        if len(self._phases) < self.FEWEST:
            return 0.0
        ages = [phase + self._shift for phase in self._phases]
        mean = self._circular_mean(ages)
        latest = sorted(self._wrapped(age - mean) for age in ages)[int(len(ages) * self.STRAGGLERS)]
        error = self._wrapped(self.MARGIN - latest - mean)
        step = max(-self.STEP, min(self.STEP, error))
        self._shift += step
        return step

    def _circular_mean(self, ages: list[float]) -> float:
        """Mean on the circle of one period: an age of a whole period equals zero."""
        turn = 2 * math.pi / self._period
        sine = sum(math.sin(age * turn) for age in ages)
        cosine = sum(math.cos(age * turn) for age in ages)
        return math.atan2(sine, cosine) / turn

    def _wrapped(self, seconds: float) -> float:
        """Return the same phase, within half a period of zero."""
        return (seconds + self._period / 2) % self._period - self._period / 2


class Backoff:
    """Waits that start short, double with jitter up to a cap, and reset after a good period."""

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
        """Return the seconds until the next attempt, after one that worked for `good_for` s."""
        if good_for >= self._good_after:
            self._failures = 0
        wait = min(self._cap, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return wait * (0.75 + 0.5 * self._jitter()) if self._failures > 1 else wait

    def reset(self) -> None:
        """Start again."""
        self._failures = 0
