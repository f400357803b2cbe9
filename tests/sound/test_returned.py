"""Returned sound: a shallow buffer that keeps its depth."""

import numpy as np

from relayd.sound.blocks import BLOCK, Samples
from relayd.sound.returned import DEPTH, ReturnedBuffer
from tests.support.voice import bends, blocks_of, voice


def numbered(count: int) -> list[Samples]:
    return [np.full(BLOCK, 1 + number, np.int16) for number in range(count)]


def test_even_sound_comes_out_as_it_came_40_ms_later() -> None:
    buffer, heard = ReturnedBuffer(), []
    wave = voice(2.0)
    for block in blocks_of(wave):
        buffer.push(block, 0.0)
        heard.append(buffer.pull(0.0))
    got, shift = np.concatenate(heard), (DEPTH - 1) * BLOCK
    assert not got[:shift].any()
    np.testing.assert_array_equal(got[shift + BLOCK :], wave[BLOCK : len(got) - shift])
    assert buffer.dropped == buffer.dried == 0


def test_uneven_sound_within_30_ms_loses_nothing() -> None:
    buffer, heard = ReturnedBuffer(), []
    blocks = numbered(300)
    for number in range(300):
        if number % 3 == 2:  # three at once
            for block in blocks[number - 2 : number + 1]:
                buffer.push(block, 0.0)
        heard.append(buffer.pull(0.0)[-1])
    first = heard.index(1)
    assert heard[first:] == list(range(1, 301 - first))


def test_when_it_stops_it_fades_and_starts_again_with_40_ms() -> None:
    wave, buffer, heard = voice(3.0), ReturnedBuffer(), []
    for number, block in enumerate(blocks_of(wave)):
        if not 100 <= number < 150:
            buffer.push(block, 0.0)
        heard.append(buffer.pull(0.0))
    got = np.concatenate(heard)
    assert buffer.dried == 1
    assert not got[104 * BLOCK : 153 * BLOCK].any()
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
