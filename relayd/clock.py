"""Time: an injectable clock, and backoff.

Nothing here sleeps for a duration: it sleeps until a moment, so that work between two
pictures never makes their rate drift.
"""

import random
import time
from collections.abc import Callable
from threading import Event
from typing import Final, Protocol

_SHORT: Final = 0.05
"""s that a stop may wait: up to here a plain sleep is used, which costs a third less CPU time."""


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
        while (remaining := moment - time.monotonic()) > 0 and not stop.is_set():
            if remaining <= _SHORT:
                time.sleep(remaining)
            else:
                stop.wait(remaining)
        return stop.is_set()


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
