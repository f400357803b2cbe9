from bisect import bisect
from itertools import pairwise
from random import Random
from threading import Event

import pytest

from relayd.clock import Backoff, PhaseLock, Ticker
from tests.support.clock import FakeClock


def test_work_between_two_ticks_does_not_make_the_cadence_drift() -> None:
    clock, never = FakeClock(), Event()
    ticker = Ticker(20.0, clock)
    for number in range(1000):
        tick = ticker.wait(never)
        assert tick is not None
        assert tick.deadline == pytest.approx(100.0 + number * 0.05)
        clock.time += 0.03


def test_missed_ticks_are_skipped_and_counted_and_the_phase_is_kept() -> None:
    clock, never = FakeClock(), Event()
    ticker = Ticker(20.0, clock)
    ticker.wait(never)
    clock.time += 0.33
    late = ticker.wait(never)
    assert late is not None
    assert late.skipped == 5
    assert late.late == pytest.approx(0.28)
    after = ticker.wait(never)
    assert after is not None
    assert after.deadline == pytest.approx(100.0 + 7 * 0.05)
    assert after.late == pytest.approx(0.0)


def test_a_stop_ends_the_wait() -> None:
    stop = Event()
    stop.set()
    assert Ticker(20.0, FakeClock()).wait(stop) is None


@pytest.mark.parametrize("offset", [0.0, 0.013, 0.027, 0.049])
@pytest.mark.parametrize("jitter", [0.0, 0.006])
def test_the_phase_settles_shortly_after_the_arrivals_and_hardly_ever_misses_one(
    offset: float, jitter: float
) -> None:
    clock, never, lock, random = FakeClock(), Event(), PhaseLock(20.0), Random(1)
    ticker = Ticker(20.0, clock)
    arrivals = [100.0 + offset + n * 0.05 + random.uniform(0, jitter) for n in range(1300)]
    ticks, ages, seen = [], [], -1
    for _ in range(1200):
        tick = ticker.wait(never)
        assert tick is not None
        ticks.append(tick.deadline)
        newest = bisect(arrivals, tick.deadline) - 1
        age = tick.deadline - arrivals[newest] if newest > seen else None
        seen = newest
        ages.append(age)
        if age is not None:
            ticker.nudge(lock.correction(age))
    settled = [age for age in ages[-600:] if age is not None]
    assert len(settled) >= 600 * 0.96
    assert sum(settled) / len(settled) < 0.006 + jitter
    assert all(0.0495 < later - earlier < 0.0505 for earlier, later in pairwise(ticks))


def test_backoff_starts_short_doubles_to_its_cap_and_resets_after_a_good_period() -> None:
    backoff = Backoff(0.25, 10.0, jitter=lambda: 0.5)
    waits = [backoff.next_wait() for _ in range(8)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.next_wait(good_for=9.9) == 10.0
    assert backoff.next_wait(good_for=10.0) == 0.25


def test_jitter_keeps_many_relays_from_retrying_at_once() -> None:
    low = Backoff(1.0, 60.0, jitter=lambda: 0.0)
    high = Backoff(1.0, 60.0, jitter=lambda: 1.0)
    low.next_wait()
    high.next_wait()
    assert (low.next_wait(), high.next_wait()) == (1.5, 2.5)
