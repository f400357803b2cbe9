"""When blocks of sound are handed to the SDK: one each 10 ms, by absolute deadlines.

The SDK plays out at its own pace and buffers a thousand seconds: a burst would become a delay that
stays. So whatever comes in a burst waits here, and what still waits after two seconds is dropped.
"""

from collections import deque
from threading import Lock

from relayd.sound.blocks import BLOCK_SECONDS, Samples

MOST_WAITING = 50
"""Blocks: half a second, more than any container's sound comes at once."""
WINDOW = 200
"""Blocks over which the standing queue is measured: two seconds."""
CUSHION = 1
"""Blocks that may always wait, for a source that is not quite even."""


class Pacer:
    """A queue that gives out one block each 10 ms; two threads may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks: deque[Samples] = deque()
        self._due = float("-inf")
        self._taken = 0
        self._least_left = MOST_WAITING
        self.dropped = 0
        """Blocks that were not sent, as too many waited."""

    def put(self, samples: Samples) -> bool:
        """Add a block; True if none waited, so that whoever takes must be woken."""
        with self._lock:
            if len(self._blocks) == MOST_WAITING:
                self._drop(1)
            self._blocks.append(samples)
            return len(self._blocks) == 1

    def wait(self, now: float) -> float:
        """Return the seconds until a block is due; infinite if none waits."""
        with self._lock:
            return max(0.0, self._due - now) if self._blocks else float("inf")

    def take(self, now: float) -> Samples | None:
        """Return the block that is due at `now`, if any; what was missed is not caught up."""
        with self._lock:
            if not self._blocks or now < self._due:
                return None
            is_on_time = now < self._due + BLOCK_SECONDS
            self._due = (self._due if is_on_time else now) + BLOCK_SECONDS
            samples = self._blocks.popleft()
            self._shorten()
            return samples

    def clear(self) -> None:
        """Drop what waits."""
        with self._lock:
            self._blocks.clear()

    def _shorten(self) -> None:
        """Drop what waited all through a window: only a delay, of no use against unevenness."""
        self._taken += 1
        self._least_left = min(self._least_left, len(self._blocks))
        if self._taken % WINDOW == 0:
            self._drop(max(0, self._least_left - CUSHION))
            self._least_left = MOST_WAITING

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._blocks.popleft()
        self.dropped += count
