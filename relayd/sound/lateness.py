"""How late a source's blocks come: the least delay that loses none of them."""

from math import inf
from typing import Final

from relayd.sound.blocks import RATE
from relayd.sound.timeline import EDGE

_MARGIN: Final = EDGE / RATE + 0.003
"""s beyond the greatest lateness: to fade out before the sound ends, and for an uneven tick."""
_MOST: Final = 0.5
"""s: what comes later than that is a fault, not unevenness; the delay does not grow by it."""
_PART: Final = 50
"""Pulls in each of the parts that the window consists of: 0.5 s."""
_PARTS: Final = 4
"""Parts of the window: 2 s in all."""


class Lateness:
    """The greatest lateness of the last 2 s."""

    def __init__(self) -> None:
        self._earliest = inf
        self._greatest = [-inf] * _PARTS
        self._pulls = 0
        self.least_delay = 0.0
        """Delay in s at which each block of the last 2 s came in time."""

    def pushed(self, at: float) -> None:
        """Take note of a block captured at `at`."""
        self._earliest = min(self._earliest, at)

    def pulled(self, now: float, *, was_away: bool) -> None:
        """Take note of the time `now`, when all that has come was pushed.

        If the caller was away before, what had to wait for it says nothing about the source.
        """
        self._pulls += 1
        if self._pulls % _PART == 0:
            self._greatest = [*self._greatest[1:], -inf]
        late, self._earliest = now - self._earliest, inf
        if late <= _MOST and not was_away:
            self._greatest[-1] = max(self._greatest[-1], late)
        greatest = max(self._greatest)
        self.least_delay = max(0.0, greatest + _MARGIN)
