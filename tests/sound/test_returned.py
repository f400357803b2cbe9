"""Returned sound: a shallow buffer that keeps its depth."""

import numpy as np
import pytest

from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, Samples
from relayd.sound.returned import DEPTH, ReturnedBuffer
from tests.support.voice import bends, blocks_of, voice

EARLIEST, LATEST = -0.02, 0.06
"""s that sound may be later than its picture."""


def numbered(count: int) -> list[Samples]:
    return [np.full(BLOCK, 1 + number, np.int16) for number in range(count)]


def test_even_sound_comes_out_as_it_came_within_30_ms() -> None:
    buffer, heard = ReturnedBuffer(), []
    wave = voice(2.0)
    for block in blocks_of(wave):
        buffer.push(block, 0.0)
        heard.append(buffer.pull(0.0))
    got, shift = np.concatenate(heard), (DEPTH - 1) * BLOCK
    assert not got[:shift].any()
    np.testing.assert_array_equal(got[shift + BLOCK :], wave[BLOCK : len(got) - shift])
    assert buffer.dropped == buffer.dried == 0


def test_uneven_sound_within_20_ms_loses_nothing() -> None:
    buffer, heard = ReturnedBuffer(), []
    blocks = numbered(300)
    for number in range(300):
        if number % 2:  # two at once
            for block in blocks[number - 1 : number + 1]:
                buffer.push(block, 0.0)
        heard.append(buffer.pull(0.0)[-1])
    first = heard.index(1)
    assert heard[first:] == list(range(1, 301 - first))


def test_when_it_stops_it_fades_and_starts_again_with_30_ms() -> None:
    wave, buffer, heard = voice(3.0), ReturnedBuffer(), []
    for number, block in enumerate(blocks_of(wave)):
        if not 100 <= number < 150:
            buffer.push(block, 0.0)
        heard.append(buffer.pull(0.0))
    got = np.concatenate(heard)
    assert buffer.dried == 1
    assert not got[103 * BLOCK : 152 * BLOCK].any()
    assert bends(got).max() <= bends(wave).max() * 1.05
    assert buffer.depth == DEPTH - 1


def test_a_burst_is_left_out_at_once_and_a_standing_excess_after_a_while() -> None:
    wave, buffer, heard = voice(8.0), ReturnedBuffer(), []
    blocks = iter(blocks_of(wave))
    for number in range(700):
        for _ in range({100: 40, 300: 9}.get(number, 1)):
            buffer.push(next(blocks), 0.0)
        heard.append(buffer.pull(0.0))
        if number == 101:
            assert buffer.depth <= DEPTH
    assert buffer.depth <= DEPTH
    assert 45 <= buffer.dropped <= 48
    assert bends(np.concatenate(heard)).max() <= bends(wave).max() * 1.05


def test_a_clear_drops_what_waits() -> None:
    buffer = ReturnedBuffer()
    for block in numbered(10):
        buffer.push(block, 0.0)
    buffer.clear()
    assert not any(buffer.pull(0.0).any() for _ in range(20))


@pytest.mark.parametrize("before", [0.0, 0.03])
def test_uneven_sound_stays_in_sync_with_pictures_shown_at_the_next_tick(before: float) -> None:
    """`before`: s that sound has waited before; what comes from WebRTC has."""
    rng, buffer = np.random.default_rng(7), ReturnedBuffer()
    arrivals = np.sort(np.arange(6000) * BLOCK_SECONDS + rng.exponential(0.004, 6000))
    arrivals[2000:2015] = arrivals[2015]  # the path was away, and everything came at once
    offsets, number = [], 0
    for tick in range(5900):
        now = tick * BLOCK_SECONDS
        while arrivals[number] <= now:
            buffer.push(np.full(BLOCK, number, np.int16), 0.0)
            number += 1
        if played := int(buffer.pull(now)[0]):
            picture_waits = rng.uniform(0, 0.05)
            offsets.append(now + before - arrivals[played] - picture_waits)
    steady = np.array(offsets[100:1900] + offsets[2600:])
    assert EARLIEST <= np.percentile(steady, 50) <= LATEST
    assert np.percentile(steady, 5) >= EARLIEST - 0.005
    assert np.percentile(steady, 95) <= LATEST + 0.015
    assert buffer.dried < 20


def test_an_offset_plays_it_so_much_later_and_may_change() -> None:
    buffer, heard = ReturnedBuffer(0.2), []
    for number, block in enumerate(numbered(1500)):
        buffer.set_offset({0: 0.2, 1: 0.4, 2: -0.5}[number // 500])
        buffer.push(block, 0.0)
        heard.append(number + 1 - int(buffer.pull(0.0)[-1]))
    assert heard[490] == 20 + DEPTH - 1
    assert heard[990] == 40 + DEPTH - 1
    assert heard[-1] <= DEPTH + 1, "it is never early"
