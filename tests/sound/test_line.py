"""The delay line: exact while steady, never ahead of its source, without clicks, and in sync."""

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples
from relayd.sound.line import MAX_DELAY, DelayLine
from tests.support.voice import Wave, bends, blocks_of, voice

START = 5000.0
"""Monotonic s of the first block's first sample."""


def play(
    line: DelayLine,
    wave: Wave,
    steer: Callable[[float], float],
    *,
    source_delay: float = 0.02,
) -> tuple[Wave, NDArray[np.float64]]:
    """Return what comes out while `wave` goes in, and the delay of each block.

    `steer(s)` is the delay wanted `s` seconds after the beginning.
    """
    sounds, delays = [], []
    for number, block in enumerate(blocks_of(wave)):
        passed = number * BLOCK_SECONDS
        line.steer(steer(passed))
        line.push(block, START + passed)
        sounds.append(line.pull(START + passed + source_delay))
        delays.append(line.delay)
    return np.concatenate(sounds), np.array(delays)


def sawtooth(seconds: float, slope: int) -> Wave:
    """Samples from which one can tell their number, divided by `slope`."""
    return (np.arange(round(seconds * RATE)) // slope).astype(np.int16)


@settings(max_examples=10)
@given(st.floats(0.05, MAX_DELAY), st.integers(0, 2**32))
def test_a_steady_delay_is_a_copy_of_each_sample(delay: float, seed: int) -> None:
    wave = np.random.default_rng(seed).integers(-32768, 32768, 4 * RATE).astype(np.int16)
    heard, _ = play(DelayLine(), wave, lambda _: delay)
    shift = round((delay - 0.02) * RATE)
    begin = (shift // BLOCK + 2) * BLOCK  # the first block is faded in
    assert not heard[: shift // BLOCK * BLOCK].any()
    np.testing.assert_array_equal(heard[begin:], wave[begin - shift : len(heard) - shift])


@settings(max_examples=10)
@given(st.lists(st.floats(0, 0.8), min_size=1, max_size=6), st.floats(0.01, 0.2))
def test_nothing_is_played_before_it_was_captured(wants: list[float], source_delay: float) -> None:
    line, per_want = DelayLine(), 5.0 / len(wants)
    for number, block in enumerate(blocks_of(sawtooth(5.0, 8))):
        passed = number * BLOCK_SECONDS
        line.steer(wants[int(passed / per_want)])
        line.push(block, START + passed)
        assert line.pull(START + passed + source_delay).max() <= block[-1]


@settings(max_examples=10)
@given(st.lists(st.floats(0, 1.5), min_size=3, max_size=3))
def test_the_delay_comes_to_what_is_wanted_within_2_seconds(wants: list[float]) -> None:
    heard, delays = play(DelayLine(), voice(12.0), lambda s: wants[int(s / 4.0)])
    assert len(heard) == 12 * RATE
    for turn, want in enumerate(wants):
        late = delays[turn * 400 + 200 : (turn + 1) * 400] - max(want, 0.03)
        assert late.min() > -0.020
        assert late.max() < 0.060


@settings(max_examples=10)
@given(st.lists(st.floats(0.03, 1.0), min_size=2, max_size=8), st.integers(0, 3))
def test_no_walk_of_the_delay_makes_a_click(wants: list[float], seed: int) -> None:
    wave, line = voice(6.0, seed), DelayLine()
    heard, _ = play(line, wave, lambda passed: wants[int(passed / 6.0 * len(wants))])
    assert bends(heard).max() <= bends(wave).max() * 1.05


def test_speech_without_a_pause_is_cut_where_the_wave_fits() -> None:
    hum = np.rint(8000 * np.sin(2 * np.pi * 130 * np.arange(5 * RATE) / RATE)).astype(np.int16)
    line = DelayLine()
    heard, delays = play(line, hum, lambda passed: 0.3 if passed < 2 else 0.45)
    assert line.counts.cuts_in_speech == 1
    assert delays[-1] == pytest.approx(0.45, abs=0.011)
    assert bends(heard[RATE:]).max() <= bends(hum).max() * 1.05 + 4  # of rounding


def test_pauses_are_repeated_and_left_out_rather_than_words() -> None:
    wave, line = voice(10.0, pause=0.3), DelayLine()
    _, delays = play(line, wave, lambda passed: 0.3 if not 3 <= passed < 6 else 0.5)
    assert line.counts.cuts_in_pauses > 1
    assert line.counts.cuts_in_speech == 0
    assert delays[590] == pytest.approx(0.5, abs=0.011)
    assert delays[-1] == pytest.approx(0.3, abs=0.011)


def test_a_small_error_is_worked_off_at_one_percent_of_speed() -> None:
    line = DelayLine()
    _, delays = play(line, voice(6.0), lambda passed: 0.3 if passed < 1 else 0.33)
    assert line.counts.cuts_in_pauses == line.counts.cuts_in_speech == 0
    assert np.diff(delays[100:]).max() <= 0.01 * BLOCK_SECONDS * 1.01
    assert delays[-1] == pytest.approx(0.33, abs=0.002)


def test_the_delay_shrinks_to_what_the_source_allows() -> None:
    line, rng, heard = DelayLine(), np.random.default_rng(2), []
    wave = voice(6.0)
    waiting: deque[tuple[float, Samples, float]] = deque()
    for number, block in enumerate(blocks_of(wave)):
        at = START + number * BLOCK_SECONDS
        waiting.append((at + 0.02 + rng.uniform(0, 0.04), block, at))  # uneven, in order
        while waiting and waiting[0][0] <= at + BLOCK_SECONDS:
            line.push(waiting[0][1], waiting.popleft()[2])
        heard.append(line.pull(at + BLOCK_SECONDS))
    assert 0.06 <= line.delay <= 0.09
    assert line.counts.dried <= 3  # while the unevenness was not known
    assert bends(np.concatenate(heard)).max() <= bends(wave).max() * 1.05


def test_a_hole_is_silence_of_its_length() -> None:
    wave, line = voice(3.0, pause=0.0), DelayLine()
    line.steer(0.2)
    heard = []
    for number, block in enumerate(blocks_of(wave)):
        at = START + number * BLOCK_SECONDS
        if not 100 <= number < 130:
            line.push(block, at)
        heard.append(line.pull(at + 0.02))
    assert line.gap_seconds == pytest.approx(0.3)
    assert line.resyncs == 0
    got = np.concatenate(heard)
    shift = round(0.18 * RATE)
    assert not got[shift + 100 * BLOCK : shift + 130 * BLOCK].any()
    np.testing.assert_array_equal(got[shift + 131 * BLOCK :], wave[131 * BLOCK : len(got) - shift])
    assert bends(got).max() <= bends(wave).max() * 1.05


@pytest.mark.parametrize("jump", [-0.5, -30.0, 5.0, 4000.0])
def test_a_clock_that_jumps_and_comes_back_leaves_no_error(jump: float) -> None:
    wave, line = voice(6.0), DelayLine()
    line.steer(0.3)
    heard = []
    for number, block in enumerate(blocks_of(wave)):
        at = START + number * BLOCK_SECONDS
        line.push(block, at + (jump if 100 <= number < 200 else 0.0))
        heard.append(line.pull(at + 0.02))
    got, shift = np.concatenate(heard), round(0.28 * RATE)
    assert line.resyncs >= 1
    np.testing.assert_array_equal(got[-2 * RATE :], wave[-2 * RATE - shift : -shift])
    assert bends(got).max() <= bends(wave).max() * 1.05


def test_rounded_and_drifting_stamps_change_nothing_but_the_rate() -> None:
    wave, line, rng = voice(12.0), DelayLine(), np.random.default_rng(3)
    line.steer(0.3)
    heard = []
    for number, block in enumerate(blocks_of(wave)):
        passed = number * BLOCK_SECONDS * (1 + 1000e-6)  # a sound card that is slow
        line.push(block, START + passed + rng.uniform(-0.004, 0.004))
        heard.append(line.pull(START + number * BLOCK_SECONDS + 0.03))
    assert line.counts.dried == line.counts.cuts_in_speech == line.resyncs == 0
    assert line.counts.cuts_in_pauses == 0
    assert line.delay == pytest.approx(0.3, abs=0.015)
    assert bends(np.concatenate(heard)).max() <= bends(wave).max() * 1.05


def test_blocks_left_out_by_the_caller_are_left_out_of_the_sound() -> None:
    wave, line = voice(3.0, pause=0.0), DelayLine()
    line.steer(0.2)
    heard = []
    for number, block in enumerate(blocks_of(wave)):
        line.push(block, START + number * BLOCK_SECONDS)
        if not 150 <= number < 170:
            heard.append(line.pull(START + number * BLOCK_SECONDS + 0.02))
    assert line.counts.skips == 1
    assert line.delay == pytest.approx(0.2, abs=0.001)
    shift = round(0.18 * RATE)
    np.testing.assert_array_equal(np.concatenate(heard[-120:]), wave[-120 * BLOCK - shift : -shift])


def test_what_was_cleared_is_never_heard() -> None:
    line = DelayLine()
    line.steer(0.5)
    for number, block in enumerate(blocks_of(voice(1.0, pause=0.0))):
        line.push(block, START + number * BLOCK_SECONDS)
        line.pull(START + number * BLOCK_SECONDS)
    line.clear()
    assert not line._timeline._ring.any()
    for number in range(100, 300):
        assert not line.pull(START + number * BLOCK_SECONDS).any()


def test_a_file_read_2_seconds_ahead_keeps_the_longest_delay() -> None:
    wave, line = voice(8.0), DelayLine()
    line.steer(MAX_DELAY)
    blocks, pushed, heard = blocks_of(wave), 0, []
    for number in range(len(blocks)):
        while pushed < min(len(blocks), number + 200):
            line.push(blocks[pushed], START + pushed * BLOCK_SECONDS)
            pushed += 1
        heard.append(line.pull(START + number * BLOCK_SECONDS))
    got, shift = np.concatenate(heard), round(MAX_DELAY * RATE)
    np.testing.assert_array_equal(got[shift + BLOCK :], wave[BLOCK : len(got) - shift])


def test_a_lost_block_is_a_short_silence_even_where_stamps_are_uneven() -> None:
    wave, line, rng = voice(6.0, pause=0.0), DelayLine(), np.random.default_rng(5)
    line.steer(0.3)
    heard = []
    for number, block in enumerate(blocks_of(wave)):
        at = START + number * BLOCK_SECONDS
        if number % 60 != 59:
            line.push(block, at + rng.uniform(-0.002, 0.002))
        heard.append(line.pull(at + 0.02))
    assert bends(np.concatenate(heard)).max() <= bends(wave).max() * 1.5
    assert line.delay == pytest.approx(0.3, abs=0.011)


@pytest.mark.parametrize("seed", range(4))
def test_no_fault_of_source_or_caller_makes_a_click(seed: int) -> None:
    """Losses, bursts, jumps of the clock, ticks left out and a walk of the delay, together."""
    wave, line, rng = voice(12.0, seed), DelayLine(), np.random.default_rng(seed)
    jump, waiting, heard = 0.0, [], []
    for number, block in enumerate(blocks_of(wave)):
        at = START + number * BLOCK_SECONDS
        if rng.random() < 0.01:
            line.steer(rng.uniform(0, 1))
        if rng.random() < 0.006:
            jump = rng.choice([0.0, rng.uniform(-0.1, 0.1), rng.uniform(-20, 20)])
        if rng.random() > 0.02:
            waiting.append((block, at + jump))
        if rng.random() > 0.3:
            for samples, captured_at in waiting:
                line.push(samples, captured_at)
            waiting = []
        if rng.random() > 0.003:
            heard.append(line.pull(at + 0.02))
    assert line.resyncs
    assert line.counts.dried
    assert bends(np.concatenate(heard)).max() <= bends(wave).max() * 1.5
