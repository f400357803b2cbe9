from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from relayd.source.schedule import LATE_LIMIT, LONGEST_STEP, MOST_LEFT_OUT, PlaybackSchedule

START = 1000.0


def moments(stamps: list[float | None], rate: float = 30.0) -> list[float]:
    schedule = PlaybackSchedule(rate)
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
    found = moments([*before, *after], 10)
    assert found[50] - found[49] == pytest.approx(0.1, abs=0.01)


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=50))
def test_times_only_go_forward_whatever_the_stamps(stamps: list[float | None]) -> None:
    found = moments(stamps)
    assert all(0 < later - earlier <= LONGEST_STEP + 1e-6 for earlier, later in pairwise(found))


def test_a_late_picture_does_not_delay_later_ones() -> None:
    schedule = PlaybackSchedule(10)
    schedule.due(0.0, START)
    schedule.due(0.1, START + 0.25)
    assert schedule.due(0.2, START + 0.26) == pytest.approx(START + 0.2)


def test_time_lost_in_a_long_sleep_is_not_caught_up() -> None:
    schedule = PlaybackSchedule(10)
    schedule.due(0.0, START)
    woken = START + 60
    assert schedule.due(0.1, woken) == woken
    assert schedule.due(0.2, woken) == pytest.approx(woken + 0.1)


def test_late_pictures_are_dropped_but_never_all() -> None:
    schedule = PlaybackSchedule(10)
    late = LATE_LIMIT * 0.9
    left_out = []
    for number in range(12):
        due = schedule.due(number / 10, START + number / 10 + (late if number else 0))
        left_out.append(schedule.left_out(due + (late if number else 0)))
    assert left_out[0] is False
    assert left_out[1:9] == ([True] * MOST_LEFT_OUT + [False]) * 2
