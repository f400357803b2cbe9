"""Whether a source's sound comes while there are pictures, and what is told of it."""

import numpy as np

from relayd.media.sound import SoundFormat
from relayd.sound.blocks import BLOCK, OwnSound
from relayd.sound.ring import SoundRing
from relayd.source.sound_watch import MISSING, SourceSound
from tests.support.clock import FakeClock

BLOCK_OF_IT = OwnSound(np.zeros(BLOCK, np.int16), 0.0)


def test_a_source_without_sound_is_told_while_it_is_open() -> None:
    sound = SourceSound(SoundRing(0.4), FakeClock())
    assert sound.trouble == ""
    sound.opened(None)
    assert sound.trouble == "the source has no sound"
    sound.closed()
    assert sound.trouble == ""


def test_sound_that_stops_is_told_and_counted_until_it_is_back() -> None:
    clock = FakeClock()
    sound = SourceSound(SoundRing(0.4), clock)
    sound.opened(SoundFormat("aac", 48000, 2))
    sound.note_picture(clock.time)
    sound.put(BLOCK_OF_IT)
    assert sound.trouble == ""
    clock.time += MISSING
    sound.note_picture(clock.time)
    assert sound.trouble == "the source's sound stopped"
    assert sound.losses == 1
    sound.put(BLOCK_OF_IT)
    assert sound.trouble == ""


def test_where_none_is_wanted_none_is_missed() -> None:
    sound = SourceSound(None, FakeClock())
    sound.opened(None)
    assert sound.trouble == ""
