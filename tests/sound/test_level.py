"""How loud a sound is, in dB of full scale."""

import numpy as np
import pytest

from relayd.sound.blocks import BLOCK, RATE, silence
from relayd.sound.level import SILENT, LevelMeter
from tests.support.voice import blocks_of


@pytest.mark.parametrize(("peak", "dbfs"), [(32767, -3.01), (3277, -23.01), (33, -62.95)])
def test_the_level_of_a_tone_is_3_db_below_its_peak(peak: int, dbfs: float) -> None:
    meter = LevelMeter()
    tone = np.rint(peak * np.sin(2 * np.pi * 1000 * np.arange(RATE // 10) / RATE))
    for block in blocks_of(tone.astype(np.int16)):
        assert meter.dbfs == SILENT  # until 100 ms are full
        meter.add(block)
    assert meter.dbfs == pytest.approx(dbfs, abs=0.1)


def test_silence_after_sound_is_shown_after_100_ms() -> None:
    meter = LevelMeter()
    for block in [np.full(BLOCK, 1000, np.int16)] * 10 + [silence()] * 9:
        meter.add(block)
    assert meter.dbfs > -35
    meter.add(silence())
    assert meter.dbfs == SILENT
