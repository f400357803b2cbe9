"""Connections that were given up and may still hold a camera, and when the next one may start."""

from typing import Final

from relayd.clock import Clock
from relayd.source.connection import SourceConnection

MOST_HUNG: Final = 2
"""Abandoned connections in which FFmpeg still hangs; at this number no other one is started until
one of them ends, even on request: each is a thread and a connection to the camera."""
HUNG_CHECK: Final = 0.25
"""s between checks whether one of them has ended."""
RELEASE_WAIT: Final = 0.3
"""s that an abandoned connection gets to close its device or socket before another one opens it:
a few frames at 20 fps. A capture device would be busy until then."""
FRUITLESS_SPACING: Final = 0.5
"""s from the start of a connection that showed nothing to the next one, however often one is
requested: a camera that does not answer is not to be flooded."""


class AbandonedConnections:
    """Those whose threads still run; used by one thread."""

    def __init__(self) -> None:
        self._connections: list[SourceConnection] = []
        self._abandoned_at = self._not_before = float("-inf")

    def add(self, connection: SourceConnection, now: float) -> None:
        """Abandon a connection."""
        connection.abandon()
        self._abandoned_at = now
        is_fruitless = connection.first_picture_at is None and connection.error is None
        self._not_before = connection.started_at + (FRUITLESS_SPACING if is_fruitless else 0.0)
        self._connections.append(connection)
        self._forget_ended()

    @property
    def hung(self) -> int:
        """How many of them still have something open."""
        self._forget_ended()
        return sum(not earlier.ended.is_set() for earlier in self._connections)

    def next_start(self, now: float) -> float:
        """Return when to look again whether another connection may start; `now` if it may."""
        hung = self.hung
        if hung >= MOST_HUNG:
            for earlier in self._connections:
                earlier.abandon()
            return now + HUNG_CHECK
        release = self._abandoned_at + RELEASE_WAIT if hung else now
        return max(now, self._not_before, release)

    def join(self, deadline: float, clock: Clock) -> bool:
        """Wait until `deadline` for their threads; whether all have ended."""
        ended = [earlier.join(max(0.0, deadline - clock.now())) for earlier in self._connections]
        return all(ended)

    def _forget_ended(self) -> None:
        self._connections = [earlier for earlier in self._connections if earlier.alive]
