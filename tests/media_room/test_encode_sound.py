"""Blocks on their way into a sound track: joined where they follow each other, each heard once."""

import io

import av
import numpy as np

from relayd.media.encode_sound import SoundTrack, joined
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples


def block(number: int) -> Samples:
    return np.full(BLOCK, number, np.int16)


def test_blocks_that_follow_each_other_are_joined_and_others_are_not() -> None:
    times = [0.0, 0.01, 0.02, 0.5, 0.51]
    runs = list(joined((block(number), at) for number, at in enumerate(times)))
    assert [(len(samples), at) for samples, at in runs] == [(3 * BLOCK, 0.0), (2 * BLOCK, 0.5)]
    assert [int(samples[BLOCK]) for samples, _ in runs] == [1, 4]


def test_blocks_from_before_the_first_picture_are_left_out() -> None:
    ((samples, at),) = joined((block(number), (number - 3) * BLOCK_SECONDS) for number in range(6))
    assert (len(samples), at) == (3 * BLOCK, 0.0)
    assert samples[0] == 3


def test_of_a_run_that_begins_too_early_the_new_part_is_kept() -> None:
    with av.open(io.BytesIO(), "w", format="matroska") as container:
        track = SoundTrack(container, "aac")
        track.write(np.ones(5 * BLOCK, np.int16), 0.0)
        track.write(np.ones(5 * BLOCK, np.int16), 0.02)
        assert track._next == 7 * BLOCK, "20 ms are new"
        track.write(np.ones(5 * BLOCK, np.int16), 0.01)
        assert track._next == 7 * BLOCK, "nothing is new"
        assert track.filled == 0
        track.write(np.ones(BLOCK, np.int16), 0.1)
        assert (track._next, track.filled) == (round(0.11 * RATE), 3 * BLOCK)
