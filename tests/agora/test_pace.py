"""Sound goes to the SDK evenly, however it comes; what waits for long is dropped."""

import numpy as np
import pytest

from relayd.rtc.agora.pace import CUSHION, MOST_WAITING, WINDOW, Pacer
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, Samples

BEGIN = 1000.0
STEP = 0.001
"""s between two looks of the one who takes."""


def block(number: int) -> Samples:
    return np.full(BLOCK, number, np.int16)


class Taker:
    """Takes what is due, looking each millisecond of a clock that the test moves."""

    def __init__(self) -> None:
        self.pacer = Pacer()
        self.now = BEGIN
        self.taken: list[int] = []
        self.at: list[float] = []

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            if (samples := self.pacer.take(self.now)) is not None:
                self.taken.append(int(samples[0]))
                self.at.append(self.now)
            self.now += STEP

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.pacer.put(block(number))


def test_a_burst_goes_out_one_block_each_10_ms_in_order() -> None:
    taker = Taker()
    taker.put(*range(20))
    taker.run(0.25)
    assert taker.taken == list(range(20))
    assert min(np.diff(taker.at)) >= BLOCK_SECONDS - STEP
    assert taker.at[-1] - taker.at[0] == pytest.approx(19 * BLOCK_SECONDS, abs=2 * STEP)


def test_a_block_that_comes_while_none_waits_goes_out_at_once() -> None:
    taker = Taker()
    for number in range(10):
        taker.put(number)
        taker.run(STEP)
        assert taker.taken[-1] == number
        taker.run(BLOCK_SECONDS)


def test_what_was_missed_is_not_caught_up() -> None:
    taker = Taker()
    taker.put(*range(10))
    taker.run(0.02)
    taker.now += 1.0  # the one who takes was blocked
    before = len(taker.at)
    taker.run(0.2)
    assert min(np.diff(taker.at[before:])) >= BLOCK_SECONDS - STEP


def test_a_small_lateness_does_not_shift_the_deadlines() -> None:
    pacer = Pacer()
    for number in range(3):
        pacer.put(block(number))
    assert pacer.take(BEGIN) is not None
    assert pacer.take(BEGIN + 1.4 * BLOCK_SECONDS) is not None
    assert pacer.wait(BEGIN + 1.4 * BLOCK_SECONDS) == pytest.approx(0.6 * BLOCK_SECONDS)


def test_a_queue_that_stands_is_dropped_within_two_windows() -> None:
    taker = Taker()
    taker.put(*range(30))  # after a stall
    for number in range(30, 30 + 2 * WINDOW):
        taker.put(number)
        taker.run(BLOCK_SECONDS)
    taker.run(STEP)
    assert len(taker.taken) == pytest.approx(30 + 2 * WINDOW - taker.pacer.dropped, abs=CUSHION + 1)
    assert taker.pacer.dropped >= 30 - CUSHION - 2
    assert taker.taken[-1] >= 30 + 2 * WINDOW - CUSHION - 2
    assert taker.taken == sorted(taker.taken)


def test_sound_that_comes_in_bursts_loses_nothing() -> None:
    taker = Taker()
    burst = 30
    for first in range(0, 20 * burst, burst):
        taker.put(*range(first, first + burst))
        taker.run(burst * BLOCK_SECONDS)
    assert taker.pacer.dropped == 0
    assert taker.taken[: 19 * burst] == list(range(19 * burst))


def test_more_than_half_a_second_drops_the_oldest_and_counts_them() -> None:
    taker = Taker()
    taker.put(*range(MOST_WAITING + 7))
    assert taker.pacer.dropped == 7
    taker.run(STEP)
    assert taker.taken == [7]


def test_who_takes_is_woken_only_by_the_first_block() -> None:
    pacer = Pacer()
    assert pacer.wait(BEGIN) == float("inf")
    assert pacer.put(block(1))
    assert pacer.wait(BEGIN) == 0.0
    assert not pacer.put(block(2))
    pacer.clear()
    assert pacer.wait(BEGIN) == float("inf")
    assert pacer.put(block(3))
