import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.media.playout import (
    GROWTH,
    LARGEST_SURPLUS,
    LONGEST_DELAY,
    SHRINKING,
    AdaptiveBuffer,
    ClockMapping,
)

STEP = 1 / 30
WRAP = 2**33 / 90000
MARGIN = 0.1


@dataclass
class Played:
    """What a player shows of arrivals: it plays in order, and waits for what has not come."""

    shown: list[tuple[float, float]] = field(default_factory=list)  # (at, number of the item)
    delays: list[float] = field(default_factory=list)

    def gaps(self, after: float = 0.0) -> list[float]:
        moments = [at for at, _ in self.shown if at >= after]
        return [later - earlier for earlier, later in itertools.pairwise(moments)]

    def age(self, rate: float = 1 / STEP) -> list[float]:
        """How old each item was when it was shown, if item 0 was made at time 0."""
        return [at - number / rate for at, number in self.shown]


def play(buffer: AdaptiveBuffer, arrivals: Iterable[tuple[float, float | None]]) -> Played:
    """Play (at, stamp) in order; an item that is more than a step late is left out."""
    waiting = [(at, stamp, number) for number, (at, stamp) in enumerate(arrivals)]
    media: dict[int, float] = {}
    told = 0
    played = Played()
    now = 0.0
    for at, _, number in waiting:
        now = max(now, at)
        while told < len(waiting) and waiting[told][0] <= now:
            media[told] = buffer.arrived(waiting[told][1], waiting[told][0])
            told += 1
        due = buffer.due(media[number], at, now)
        while told < len(waiting) and waiting[told][0] <= due:
            media[told] = buffer.arrived(waiting[told][1], waiting[told][0])
            told += 1
        if now - due > 1.5 * STEP:
            continue
        now = max(now, due)
        played.shown.append((now, number))
        played.delays.append(buffer.delay)
    return played


def segments(
    duration: float, count: int, *, late: float = 0.0, lates: Iterable[float] = ()
) -> list[tuple[float, float | None]]:
    """Items that come a segment at a time, each segment `late` s after its last item was made."""
    each = round(duration / STEP)
    more = itertools.chain(lates, itertools.repeat(0.0))
    return [
        ((segment + 1) * duration + late + extra, (segment * each + item) * STEP)
        for segment, extra in zip(range(count), more, strict=False)
        for item in range(each)
    ]


def steady(seconds: float, start: float = 0.0) -> list[tuple[float, float | None]]:
    return [(start + n * STEP, start + n * STEP) for n in range(round(seconds / STEP))]


def test_segments_are_played_evenly_from_the_start_when_their_length_is_known() -> None:
    for duration in (1.0, 2.0, 4.0, 6.0):
        arrivals = segments(duration, 12, lates=[0, 0.2, 0.1, 0, 0.3, 0.15])
        played = play(AdaptiveBuffer(burst=duration, margin=0.4), arrivals)
        assert max(played.gaps()) < 1.1 * STEP
        assert len(played.shown) == len(arrivals)
        assert max(played.age()) < duration + 1.0


def test_bursts_of_unknown_length_cost_one_pause_and_are_even_from_then_on() -> None:
    buffer = AdaptiveBuffer(margin=MARGIN)
    played = play(buffer, segments(2.0, 30, lates=[0, 0.05, 0.02, 0.06]))
    assert max(played.gaps(after=6.5)) < 1.1 * STEP
    assert buffer.underruns <= 4
    assert 2.0 < played.delays[-1] < 2.0 + 2 * MARGIN + 0.06


def test_a_steady_source_is_hardly_delayed() -> None:
    played = play(AdaptiveBuffer(margin=MARGIN), steady(20))
    assert max(played.age()) < MARGIN + 1e-6
    assert max(played.gaps()) < 1.1 * STEP


def test_what_a_server_holds_at_the_start_is_given_up_at_once() -> None:
    backlog = [(5.0, n * STEP) for n in range(150)]
    buffer = AdaptiveBuffer(margin=MARGIN)
    played = play(buffer, backlog + steady(10, start=5.0))
    late_ages = [at - number * STEP for at, number in played.shown if at > 6]
    assert max(late_ages) < 2 * MARGIN
    assert buffer.is_given_up(4.0)
    assert not buffer.is_given_up(6.0)


def test_a_pause_of_the_sender_delays_for_a_while_and_wears_off_unseen() -> None:
    pause = 1.5
    arrivals = [(at if at < 20 else max(at, 20 + pause), stamp) for at, stamp in steady(140)]
    played = play(AdaptiveBuffer(margin=MARGIN), arrivals)
    assert pause < max(played.age()) < pause + 2 * MARGIN
    after = played.gaps(after=22)
    assert max(after) < 2.1 * STEP  # one picture left out at a time
    assert sum(gap > 1.5 * STEP for gap in after) < len(after) * (SHRINKING + 0.01)
    assert played.age()[-1] < 3 * MARGIN


def test_a_long_backlog_after_a_pause_is_cut_to_the_longest_delay() -> None:
    arrivals = [(at if at < 10 else max(at, 50), stamp) for at, stamp in steady(80)]
    played = play(AdaptiveBuffer(margin=MARGIN), arrivals)
    assert (
        max(at - number * STEP for at, number in played.shown if at > 51) < LONGEST_DELAY + MARGIN
    )


def test_a_new_need_slows_down_playing_by_no_more_than_can_be_seen() -> None:
    buffer = AdaptiveBuffer(burst=1.0, margin=MARGIN)
    played = play(buffer, segments(1.0, 60, lates=[0.002 * n for n in range(60)]))
    assert max(played.gaps()) <= STEP * (1 + GROWTH) + 0.02


def test_a_sender_that_waits_for_us_is_played_at_its_own_speed() -> None:
    buffer = AdaptiveBuffer(margin=MARGIN)
    shown, now = [], 0.0
    ahead = 300  # items in the queue
    media = [buffer.arrived(n * STEP, 0.001 * n) for n in range(ahead)]
    for number in range(1800):
        due = buffer.due(media[number], 0.0, now)
        now = max(now, due)
        shown.append(now)
        media.append(buffer.arrived((ahead + number) * STEP, now, held=True))
    rate = 1799 / (shown[-1] - shown[0])
    assert abs(rate * STEP - 1) < 0.01


def test_the_rest_of_what_ended_is_played_at_its_own_speed() -> None:
    buffer = AdaptiveBuffer(margin=MARGIN)
    media = [buffer.arrived(n * STEP, 0.0) for n in range(1200)]
    buffer.end()
    now, shown = 0.0, []
    for one in media:
        now = max(now, buffer.due(one, 0.0, now))
        shown.append(now)
    assert shown[-1] - shown[0] == pytest.approx(1199 * STEP, rel=0.01)


def test_stamps_that_wrap_jump_or_start_anew_go_on_by_one_step() -> None:
    for stamps in (
        [WRAP - 2 * STEP, WRAP - STEP, 0.0, STEP],
        [10.0, 10.0 + STEP, 5000.0, 5000.0 + STEP],
        [10.0, 10.0 + STEP, 1.4, 1.4 + STEP],
        [10.0, 10.0 + STEP, -50.0, -50.0 + STEP],
    ):
        mapping = ClockMapping()
        media = [mapping.arrived(stamp, n * STEP) for n, stamp in enumerate(stamps)]
        steps = [later - earlier for earlier, later in itertools.pairwise(media)]
        assert all(0 < step < 0.05 for step in steps)


def test_a_pause_in_the_stamps_that_was_one_in_time_is_kept() -> None:
    mapping = ClockMapping()
    media = [mapping.arrived(stamp, stamp) for stamp in (0.0, STEP, 60.0, 60.0 + STEP)]
    assert media[2] - media[1] > 59


def test_pictures_stored_out_of_order_stay_on_their_time_line() -> None:
    mapping = ClockMapping()
    stamps = [0.0, 0.12, 0.04, 0.08, 0.24, 0.16, 0.2]
    assert [mapping.arrived(stamp, 0.04 * n) for n, stamp in enumerate(stamps)] == stamps


def test_what_has_no_stamps_is_placed_by_its_arrival() -> None:
    mapping = ClockMapping()
    assert [mapping.arrived(None, at) for at in (5.0, 5.1, 5.3)] == pytest.approx([5.0, 5.1, 5.3])


def test_the_smallest_way_of_ten_seconds_follows_a_clock_that_drifts() -> None:
    for drift in (1e-3, -1e-3):
        mapping = ClockMapping()
        for n in range(3000):
            mapping.arrived(n * STEP * (1 + drift), n * STEP)
        now = 2999 * STEP
        assert abs(mapping.offset - (-now * drift)) < 10.1 * abs(drift)


def test_ten_hours_of_drift_neither_run_dry_nor_grow() -> None:
    buffer = AdaptiveBuffer(burst=4.0, margin=0.4)
    for drift in (200e-6, -200e-6):
        buffer = AdaptiveBuffer(burst=4.0, margin=0.4)
        arrivals = [
            ((segment + 1) * 4.0, (segment * 4 + n) * (1 + drift))
            for segment in range(900)
            for n in range(4)
        ]
        media = [(at, buffer.arrived(stamp, at)) for at, stamp in arrivals[:4]]
        now = 4.0
        for number in range(len(arrivals) - 4):
            at, one = media[number]
            now = max(now, buffer.due(one, at, now))
            while len(media) < len(arrivals) and arrivals[len(media)][0] <= now + 1:
                at, stamp = arrivals[len(media)]
                media.append((at, buffer.arrived(stamp, at)))
        assert buffer.underruns == 0
        assert 3.0 < buffer.delay < 5.5


ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 3, allow_nan=False),  # s until the next arrives
        st.one_of(
            st.none(),
            st.floats(0, 0.2),  # s until the next stamp
            st.floats(-1e5, 1e5),  # a jump
        ),
    ),
    min_size=1,
    max_size=120,
)


@given(ARRIVALS)
@settings(max_examples=60, deadline=None)
def test_whatever_arrives_the_order_is_kept_and_the_delay_bounded(
    steps: list[tuple[float, float | None]],
) -> None:
    at, stamp = 0.0, 0.0
    buffer = AdaptiveBuffer(margin=MARGIN)
    now, last_media = 0.0, -math.inf
    for wait, step in steps:
        at += wait
        stamp += step or 0.0
        media = buffer.arrived(None if step is None else stamp, at)
        now = max(now, at)
        due = buffer.due(media, at, now)
        assert math.isfinite(due)
        assert due - now <= LONGEST_DELAY + LARGEST_SURPLUS + 10
        if media > last_media:
            now = max(now, min(due, now + 1))
            last_media = media
        assert 0 <= buffer.delay <= LONGEST_DELAY + max(LARGEST_SURPLUS, buffer.need) + 10


@given(st.floats(0.5, 5.0), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_after_a_burst_nothing_is_older_than_the_bursts_need(pause: float, count: int) -> None:
    arrivals = steady(100)
    for number in range(count):
        begin = 5.0 + number * 6
        arrivals = [
            (max(at, begin + pause) if begin <= at < begin + pause else at, stamp)
            for at, stamp in arrivals
        ]
    played = play(AdaptiveBuffer(margin=MARGIN), arrivals)
    numbers = [number for _, number in played.shown]
    assert numbers == sorted(numbers)
    assert max(played.age()) < pause + 3 * MARGIN


@pytest.mark.parametrize("stamp", [0.0, 1e6])
def test_a_sender_with_one_stamp_for_all_is_played_as_it_arrives(stamp: float) -> None:
    buffer = AdaptiveBuffer(margin=MARGIN)
    for number in range(300):
        at = number * STEP
        due = buffer.due(buffer.arrived(stamp, at), at, at)
        assert due == pytest.approx(at + MARGIN, abs=0.01)
    going_on = [buffer.arrived(stamp + STEP * number, (300 + number) * STEP) for number in range(9)]
    expected = [stamp + STEP * (300 + number) for number in range(9)]
    assert going_on == pytest.approx(expected, abs=0.02)
