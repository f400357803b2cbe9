from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from relayd.source.schedule import (
    LATE_LIMIT,
    LONGEST_PAUSE,
    LONGEST_STEP,
    LONGEST_UNCHECKED,
    MOST_BEHIND,
    MOST_LEFT_OUT,
    PlaybackSchedule,
    Timing,
)

START = 1000.0


def moments(stamps: Sequence[float | None], rate: float = 30.0, **timing: Any) -> list[float]:
    schedule = PlaybackSchedule(Timing(rate, **timing))
    found, now = [], START
    for pts in stamps:
        now = schedule.due(pts, now)
        found.append(now - START)
    return found


def test_the_first_picture_is_due_at_once() -> None:
    assert moments([123.4]) == [0.0]


@pytest.mark.parametrize("rate", [24, 25, 30, 60])
def test_even_stamps_are_kept_exactly(rate: float) -> None:
    stamps: list[float | None] = [5 + n / rate for n in range(100)]
    assert moments(stamps) == pytest.approx([n / rate for n in range(100)])


def test_a_varying_rate_is_kept() -> None:
    stamps: list[float | None] = [0.0, 0.1, 0.12, 1.0, 1.01, 3.0]
    assert moments(stamps) == pytest.approx(stamps)


def test_missing_stamps_are_paced_by_the_rate() -> None:
    assert moments([None] * 4, 10) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_no_rate_and_no_stamps_means_25_a_second() -> None:
    assert moments([None] * 3, 0) == pytest.approx([0, 0.04, 0.08])


@pytest.mark.parametrize("jump", [-3.0, 0.0, LONGEST_STEP + 1, 1e9, float("nan")])
def test_a_jump_in_the_stamps_counts_as_one_step(jump: float) -> None:
    before = [n / 10 for n in range(50)]
    after = [before[-1] + jump + n / 10 for n in range(3)]
    found = moments([*before, *after], 10, length=6.0)
    assert found[50] - found[49] == pytest.approx(0.1, abs=0.01)
    assert moments([*before, *after], 10, may_jump=True) == pytest.approx(found)


@pytest.mark.parametrize("pause", [15.0, 120.0, 1800.0])
def test_a_pause_that_fits_into_the_length_is_kept(pause: float) -> None:
    stamps = [n / 10 for n in range(20)] + [1.9 + pause + n / 10 for n in range(20)]
    assert moments(stamps, 10, length=pause + 3.9) == pytest.approx(stamps)


def test_where_stamps_may_jump_a_splice_is_none_of_the_pauses() -> None:
    schedule = PlaybackSchedule(Timing(10, may_jump=True))
    stamps = [(0.0, True), (0.1, False), (120.0, False), (120.1, False), (240.0, True)]
    dues = [schedule.due(pts, START, is_key=is_key) - START for pts, is_key in stamps]
    assert dues[:4] == pytest.approx([0.0, 0.1, 120.0, 120.1])
    assert dues[4] - dues[3] < 0.5


def test_pauses_of_a_round_together_fit_into_the_length() -> None:
    stamps = [0.0, 50.0, 100.0, 150.0]
    found = moments(stamps, 10, length=100.0)
    assert found[:3] == pytest.approx(stamps[:3])
    assert found[3] - found[2] < 2.0


def test_a_file_that_grows_beyond_its_length_keeps_its_times() -> None:
    stamps = [n * 5.0 for n in range(20)]
    assert moments(stamps, 10, length=20.0) == pytest.approx(stamps)


@pytest.mark.parametrize(
    ("jump", "length"), [(LONGEST_UNCHECKED + 1, 0.0), (LONGEST_PAUSE + 1, 1e9), (1e12, 1e12)]
)
def test_no_pause_lasts_for_ever(jump: float, length: float) -> None:
    found = moments([0.0, 0.1, 0.2 + jump], 10, length=length)
    assert found[2] - found[1] == pytest.approx(0.1, abs=0.01)


def test_a_pause_does_not_slow_down_what_has_no_stamp() -> None:
    found = moments([0.0, 0.1, 60.0, None, None], 10, length=61.0)
    assert found[4] - found[3] < 0.3


def test_stamps_in_another_order_give_way_to_the_rate() -> None:
    # As FFmpeg makes them up for an AVI with B-frames.
    order = [0, 2, 3, 1, 5, 6, 4]
    stamps = [(7 * (n // 7) + order[n % 7]) / 25 for n in range(350)]
    found = moments(stamps, 25)
    assert found[-1] - found[20] == pytest.approx((349 - 20) / 25)


def test_a_picture_is_shown_for_its_own_duration_where_stamps_are_useless() -> None:
    schedule = PlaybackSchedule(Timing(25))
    dues = [schedule.due(None, START, duration) for duration in (0.5, 1.5, None)]
    assert dues == pytest.approx([START, START + 0.5, START + 2.0])


def test_the_last_picture_has_its_duration_before_the_first_comes_again() -> None:
    schedule = PlaybackSchedule(Timing(10))
    for round_number in range(3):
        assert schedule.due(0.0, START, 0.1) == pytest.approx(START + 4.1 * round_number)
        last = schedule.due(0.1, START, 4.0)
        assert schedule.end_round() == pytest.approx(last + 4.0)
        schedule.start_round(Timing(10))


def test_a_slow_machine_is_told_how_far_it_is_behind() -> None:
    schedule = PlaybackSchedule(Timing(10))
    behind = 0.0
    for number in range(400):  # half the speed, for more than is ever caught up
        now = START + number * 0.2
        schedule.due(number / 10, now)
        assert schedule.behind(now) >= behind
        behind = schedule.behind(now)
    assert behind == pytest.approx(399 * 0.1, abs=0.5)
    assert behind > MOST_BEHIND
    schedule.due(40.0, now - MOST_BEHIND)
    assert schedule.behind(now - MOST_BEHIND) == 0.0


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=50))
def test_times_only_go_forward_whatever_the_stamps(stamps: list[float | None]) -> None:
    steps = [later - earlier for earlier, later in pairwise(moments(stamps))]
    assert all(0 < step <= LONGEST_UNCHECKED + 1e-6 for step in steps)


def test_a_late_picture_does_not_delay_later_ones() -> None:
    schedule = PlaybackSchedule(Timing(10))
    schedule.due(0.0, START)
    schedule.due(0.1, START + 0.25)
    assert schedule.due(0.2, START + 0.26) == pytest.approx(START + 0.2)


def test_time_lost_in_a_long_sleep_is_not_caught_up() -> None:
    schedule = PlaybackSchedule(Timing(10))
    schedule.due(0.0, START)
    woken = START + 60
    assert schedule.due(0.1, woken) == woken
    assert schedule.due(0.2, woken) == pytest.approx(woken + 0.1)


def test_late_pictures_are_dropped_but_never_all() -> None:
    schedule = PlaybackSchedule(Timing(10))
    late = LATE_LIMIT * 0.9
    left_out = []
    for number in range(12):
        due = schedule.due(number / 10, START + number / 10 + (late if number else 0))
        left_out.append(schedule.left_out(due + (late if number else 0)))
    assert left_out[0] is False
    assert left_out[1:] == ([True] * MOST_LEFT_OUT + [False]) * 5 + [True]
