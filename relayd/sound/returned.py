"""Sound that the service sends back: a shallow buffer, not a delay.

It belongs to the picture that comes with it, which is shown at the next tick of the outputs: 25 ms
later on average at 20 a second. So it waits little longer than that, as its unevenness needs.
"""

from collections import deque
from typing import Final

import numpy as np

from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, Samples, silence
from relayd.sound.timeline import faded_in, faded_out

DEPTH: Final = 3
"""Blocks that wait before the first is played: 30 ms."""
_MOST: Final = 20
"""Blocks that wait at most: the oldest are dropped after a burst."""
_EXCESS: Final = 1
"""Blocks above DEPTH that may wait all the time before some are left out: with more, sound from
WebRTC, which was evened out before, is over 60 ms behind its picture."""
_WINDOW: Final = 200
"""Blocks over which the fewest that wait are taken: 2 s."""

_CROSS: Final = (np.arange(BLOCK, dtype=np.float32) + 0.5) / BLOCK


class ReturnedBuffer:
    """Blocks in as they come, blocks out evenly; for one thread."""

    def __init__(self, offset: float = 0.0) -> None:
        """Play so many s later than need be; nothing can be played earlier."""
        self._more = 0
        """Blocks that wait for the sake of the offset."""
        self.set_offset(offset)
        self._waiting: deque[Samples] = deque()
        self._is_dry = True
        self._fewest = _MOST
        self._pulls = 0
        self.dropped = 0
        """Blocks left out, as more came than were played."""
        self.dried = 0
        """Times that there was nothing to play, after there had been something."""

    def set_offset(self, offset: float) -> None:
        """Play `offset` s later than need be from now on, with a pause; in any thread."""
        self._more = max(0, round(offset / BLOCK_SECONDS))

    @property
    def depth(self) -> int:
        """Blocks that wait."""
        return len(self._waiting)

    def push(self, samples: Samples, _at: float) -> None:
        """Add the next block."""
        self._waiting.append(samples)

    def pull(self, _now: float) -> Samples:
        """Return the next block, faded where sound begins, ends or leaves a block out."""
        if self._is_dry:
            if len(self._waiting) < DEPTH + self._more:
                return silence()
            self._is_dry = False
            return faded_in(self._waiting.popleft())
        block = self._waiting.popleft()
        excess = self._excess()
        if len(self._waiting) <= self._more:
            self._is_dry = True
            self.dried += 1
            return faded_out(block)
        return self._leave_out(block, excess) if excess else block

    def clear(self) -> None:
        """Drop what waits, and begin again."""
        self._waiting.clear()
        self._is_dry = True
        self._fewest, self._pulls = _MOST, 0

    def _excess(self) -> int:
        """Return how many blocks to leave out now: after a burst, or when too many always wait."""
        waiting = len(self._waiting) - self._more
        if waiting > _MOST:
            return waiting - DEPTH
        self._fewest = min(self._fewest, waiting)
        self._pulls += 1
        if self._pulls < _WINDOW:
            return 0
        fewest, self._fewest, self._pulls = self._fewest, _MOST, 0
        return fewest - DEPTH if fewest > DEPTH + _EXCESS else 0

    def _leave_out(self, block: Samples, count: int) -> Samples:
        """Return `block` faded over to the one `count` later, which is then played."""
        for _ in range(count - 1):
            self._waiting.popleft()
        later = self._waiting.popleft()
        self.dropped += count
        return np.rint(block + (later.astype(np.float32) - block) * _CROSS).astype(np.int16)
