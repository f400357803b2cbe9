"""The swapped user's sound, from the SDK's thread to the link's user."""

from collections.abc import Callable

import numpy as np

from relayd import logs
from relayd.logs import LogEvent
from relayd.rtc.agora.events import ReceivedBlock
from relayd.rtc.agora.hearing import Hearing
from relayd.sound.blocks import BLOCK_BYTES, RATE, Samples

_FORM = (RATE, 1, BLOCK_BYTES)
"""Rate, channels and bytes of a block, as asked for."""

_log = logs.get("agora")


class Ears:
    """Passes on each block at once: its receiver never blocks."""

    def __init__(self, hearing: Hearing, on_sound: Callable[[Samples, float], None]) -> None:
        """Note in `hearing` when sound came."""
        self._hearing, self._on_sound = hearing, on_sound
        self._unfit = 0

    def hear(self, block: ReceivedBlock) -> None:
        """Take a block; one of another form is skipped."""
        if (block.rate, block.channels, len(block.pcm)) != _FORM:
            self._note_unfit(block)
            return
        self._hearing.heard_at = block.received_at
        self._on_sound(np.frombuffer(block.pcm, np.int16), block.received_at)

    def _note_unfit(self, block: ReceivedBlock) -> None:
        self._unfit += 1
        if self._unfit == 1:
            _log.warning(
                LogEvent.LINK_SOUND_BROKEN,
                rate=block.rate,
                channels=block.channels,
                bytes=len(block.pcm),
            )
