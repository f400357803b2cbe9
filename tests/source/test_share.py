"""Which pictures are handed on, and when, for every kind of source; time is simulated."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.source.share import CLOSEST, EvenShare

PERIOD = 0.05
SECOND = 20


@dataclass(frozen=True)
class Handed:
    at: float
    captured: float
    is_new: bool


def play(arrivals: list[float], until: float) -> list[Handed]:
    """Hand on what a source with these arrivals gives, by a clock that is never late."""
    share = EvenShare(20.0, 0.0)
    waiting, now = list(arrivals), 0.0
    handed: list[Handed] = []
    newest, is_new = None, False
    while now < until:
        due = share.deadline if newest is None else share.moment()
        if waiting and waiting[0] <= max(due, now):
            now = max(now, waiting.pop(0))
            newest, is_new = now, True
            share.arrived(now)
            continue
        now = max(now, due)
        if newest is None:
            assert share.starved(now) == 0
            continue
        assert share.handed_on(now) == 0
        handed.append(Handed(now, newest, is_new))
        is_new = False
    return handed


def steady(rate: float, seconds: float, start: float = 0.013) -> list[float]:
    return [start + number / rate for number in range(round(rate * seconds))]


def waits(handed: list[Handed]) -> list[float]:
    return [one.at - one.captured for one in handed if one.is_new]


@pytest.mark.parametrize("rate", [20, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120])
def test_a_picture_that_is_needed_never_waits(rate: float) -> None:
    handed = [one for one in play(steady(rate, 30), 29.9) if one.at > 1]
    assert max(waits(handed)) < 1e-9
    assert all(one.is_new for one in handed)


@pytest.mark.parametrize("rate", [1, 5, 10, 12, 15, 19, 20, 24, 25, 30, 50, 60, 240])
def test_every_source_gives_20_pictures_a_second(rate: float) -> None:
    handed = play(steady(rate, 40), 40)
    times = np.array([one.at for one in handed])
    assert np.searchsorted(times, 10 + times[0] + 20) - np.searchsorted(
        times, 10 + times[0]
    ) == pytest.approx(400, abs=2)
    assert np.diff(times).min() >= CLOSEST * PERIOD - 1e-9


@pytest.mark.parametrize("rate", [5, 10, 12, 15, 19])
def test_a_slow_source_is_repeated_and_none_of_its_pictures_waits_for_a_repeat(rate: float) -> None:
    handed = play(steady(rate, 20), 20)
    assert {one.captured for one in handed} == {
        captured for captured in steady(rate, 20) if captured <= handed[-1].at
    }
    assert max(waits(handed)) < 1e-9


@pytest.mark.parametrize(("rate", "fewest"), [(20, 1), (24, 5), (25, 4), (30, 2), (60, 1)])
def test_the_pattern_of_a_steady_source_stays_the_same(rate: float, fewest: int) -> None:
    handed = [one for one in play(steady(rate, 30), 29.9) if one.at > 10]
    gaps = np.round(np.diff([one.at for one in handed]), 6)
    assert (gaps[fewest:] == gaps[:-fewest]).all()


def test_jitter_does_not_make_a_20_fps_source_repeat_or_drop() -> None:
    rng = np.random.default_rng(3)
    arrivals = np.array(steady(20, 60)) + rng.uniform(0, 0.03, 1200)
    handed = play(list(arrivals), 59.9)
    assert all(one.is_new for one in handed)
    assert max(waits(handed)) < PERIOD


def test_the_last_picture_before_a_pause_is_handed_on_soon() -> None:
    pause_at = 10.0
    arrivals = [at for at in steady(60, 20) if at < pause_at]
    handed = play(arrivals, 12)
    last = next(one for one in handed if one.captured == arrivals[-1])
    assert last.at - last.captured < PERIOD
    gaps = np.diff([one.at for one in handed])
    assert gaps.max() <= 3 * PERIOD + 1e-9  # the first repeat is awaited two periods longer


def test_ticks_that_a_slow_machine_missed_are_left_out_and_counted() -> None:
    share = EvenShare(20.0, 0.0)
    share.arrived(0.0)
    assert share.handed_on(0.0) == 0
    share.arrived(0.05)
    assert share.handed_on(0.52) == 8
    assert 0.52 < share.deadline <= 0.52 + 3 * PERIOD


def test_without_pictures_each_tick_is_starved_once_and_the_next_picture_goes_at_once() -> None:
    share = EvenShare(20.0, 0.0)
    share.arrived(0.0)
    share.handed_on(0.0)
    ticks = 0
    while share.deadline < 10:
        assert share.starved(share.deadline) == 0
        ticks += 1
    assert ticks == pytest.approx(200, abs=2)
    share.arrived(9.99)
    assert share.moment() <= 9.99


@settings(max_examples=60, deadline=None)
@given(
    intervals=st.lists(st.floats(0.0005, 0.3), min_size=20, max_size=120),
    rate=st.floats(5, 120),
    jitter=st.floats(0, 1),
)
def test_no_picture_is_more_than_a_period_early_or_late_whatever_arrives(
    intervals: list[float], rate: float, jitter: float
) -> None:
    mixed = (1 - jitter) / rate + jitter * np.array(intervals)
    arrivals = list(np.cumsum(mixed))
    handed = play(arrivals, arrivals[-1])
    times = np.array([one.at for one in handed])
    ticks = times[0] + PERIOD * np.arange(len(times))
    drift = 2 * 0.2 * PERIOD + 0.0002 * (times - times[0])  # the limit moves between pictures
    held = CLOSEST * PERIOD  # by the picture before, which came late
    assert (times - ticks >= -PERIOD - drift - 1e-9).all()
    assert (times - ticks <= PERIOD + held + drift + 1e-9).all()
    assert (np.diff(times) >= CLOSEST * PERIOD - 1e-9).all()
