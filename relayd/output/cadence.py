"""When the outputs get their pictures: as soon as one arrives, within the limits of an even rate.

Each tick, 1/fps seconds apart, has a window: a picture that arrives within it is shown at once,
one that came before is shown when it opens, and when it closes without one the last is repeated.
The windows follow the arrivals, so that few pictures come before or after theirs.
"""

from collections import deque
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

STEADY_FOR: Final = 10.0
"""s over which the rate is kept."""
TOLERANCE: Final = 0.00098
"""Share by which the rate over STEADY_FOR may differ: 20 fps stay within 19.98 and 20.02, with
0.2 ms left for a thread that wakes up late."""
WIDEST: Final = 0.3
"""Share of a period by which two gaps may differ from it, whatever the rate allows."""
_SHORTEST_GAP: Final = 0.7
"""Periods between two pictures at least, also after one that was late."""


class Cadence:
    """Decides when each picture is shown; pure, all times monotonic s.

    Tell it of each arrival (`arrived`) and of each picture shown (`shown`); it says when the next
    one is due.
    """

    def __init__(self, fps: float, now: float) -> None:
        """Begin with a window that closes at `now`."""
        self._period = 1.0 / fps
        self._reach = min(WIDEST * self._period, TOLERANCE * STEADY_FOR)
        self._tick = self._origin = now
        self._offsets: deque[float] = deque([0.0], maxlen=ceil(STEADY_FOR * fps) + 2)
        self._phase = _Phase(self._period, self._reach)
        self._opens = self._closes = now
        self._window = (0.0, 0.0)
        """s after the tick: when the window opens and closes, had no picture been late."""
        self._closed = float("-inf")
        self._arrived = float("-inf")

    def arrived(self, at: float) -> None:
        """Note that a picture arrived at `at`."""
        self._arrived = at
        self._phase.note(at - self._origin)

    def due(self, *, is_new: bool) -> float:
        """When to show the newest picture, if none arrives before; `is_new`: not shown yet.

        One that came when the last window was open, and found another shown in it, would be late
        for good: it is shown only if none comes in this window.
        """
        return self._opens if is_new and self._arrived > self._closed else self._closes

    def shown(self, at: float) -> int:
        """Note that a picture was shown at `at`; returns how many ticks were left out."""
        opens, closes = self._window
        offset = at - self._tick
        left_out = max(0, int((offset - closes) / self._period))
        # What was intended: a machine that was late once is no reason to be late ten seconds.
        self._offsets.append(min(max(offset, opens), closes))
        self._closed = self._closes
        self._tick += (1 + left_out) * self._period
        self._phase.follow()
        self._open_window(at)
        return left_out

    def _open_window(self, shown_at: float) -> None:
        """Set the window of the next tick.

        All offsets from the ticks within STEADY_FOR stay within `reach` of one another: then no
        gap and no rate is out of bounds, however the wanted phase moves.
        """
        lowest, highest = min(self._offsets), max(self._offsets)
        wanted = self._phase.offset
        closes = max(highest - self._reach, min(wanted, lowest + self._reach))
        opens = min(closes, max(wanted - self._reach, highest - self._reach))
        self._window = opens, closes
        self._opens = max(self._tick + opens, shown_at + _SHORTEST_GAP * self._period)
        self._closes = max(self._tick + closes, self._opens)


class _Phase:
    """Where in a period the windows should close, so that pictures wait the least."""

    MEMORY = 20.0
    """s that arrivals are remembered. Those of a source of 59.94 fps move by 17 ms and back in that
    time; windows that followed them would always be late."""
    RECENT = 60
    """Arrivals that count twice: what changed for good is followed soon."""
    FEWEST = 10
    """Arrivals needed before anything is changed."""
    EVERY = 20
    """Ticks between two searches for a better phase."""
    STEP = 0.0005
    """s between the phases that are tried."""
    LOST = 0.1
    """s of waiting that a picture counts for which shares its window with the next one, and so
    is not shown; elsewhere one is shown twice."""
    CLOSE, CLOSE_COST = 0.003, 0.003
    """s before the close in which a picture may soon miss it, and s that this counts for."""
    WORTH = 0.0002
    """s of waiting by which another phase must be better."""
    MOVING = 0.03
    """s of waiting that each s of moving counts for: it narrows the windows for ten seconds."""

    def __init__(self, period: float, reach: float) -> None:
        self._period, self._reach = period, reach
        self._arrivals: deque[float] = deque()
        self._ticks = 0
        self.offset = 0.0
        """s after the ticks, the phase to close windows at; not limited to one period."""

    def note(self, at: float) -> None:
        """Note an arrival at `at`, s since the first tick."""
        self._arrivals.append(at)
        while at - self._arrivals[0] > self.MEMORY:
            self._arrivals.popleft()

    def follow(self) -> None:
        """Search for a better phase, at some of the ticks."""
        self._ticks += 1
        if self._ticks % self.EVERY or len(self._arrivals) < self.FEWEST:
            return
        half = round(self._period / 2 / self.STEP)
        moves = np.arange(-half, half + 1, dtype=np.float64) * np.float64(self.STEP)
        costs = self._costs(self.offset + moves) + np.abs(moves) * self.MOVING
        best = int(costs.argmin())
        if costs[best] + self.WORTH < costs[half]:
            self.offset += float(moves[best])

    def _costs(self, closes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what pictures wait, and what that costs, with windows that close so."""
        arrivals = np.array(self._arrivals)
        ticks = np.ceil((arrivals - closes[:, None]) / self._period)
        before_close = closes[:, None] + ticks * self._period - arrivals
        waits = np.maximum(before_close - self._reach, 0.0)
        near = np.clip(1 - before_close / self.CLOSE, 0, 1) * self.CLOSE_COST
        lost = np.diff(ticks, append=np.inf) == 0  # the next one comes before the same close
        costs = waits + near + lost * self.LOST
        mean: NDArray[np.float64] = costs.mean(1) + costs[:, -self.RECENT :].mean(1)
        return mean / 2
