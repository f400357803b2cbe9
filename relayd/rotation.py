"""Make before break: a new session is live before the old one, grown old, is closed.

Delay grows over a session's life at some services, and sessions have a longest life. So
after `session_max` a successor is opened beside the live route, and takes over with its
first swapped picture: the outputs never show standby in between.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from relayd.clock import Clock
from relayd.errors import RelaydError
from relayd.logs import get
from relayd.route import Route

RETRY = 60.0
"""s between two tries to take a new session while the old one still works."""
LEAST_LIFE = 20.0
"""s that a session lives at least, even if it is said to end early: whatever says so of each new
one, no loop of billed sessions comes of it."""

_log = get("rotation")


class Rotation:
    """Watches the age of the live session and has a successor made when it is due."""

    def __init__(
        self,
        session_max: float,
        clock: Clock,
        open_successor: Callable[[], Coroutine[Any, Any, Route]],
    ) -> None:
        """Rotate each `session_max` seconds (0: never); `open_successor` opens a route to live."""
        self.set_life(session_max)
        self._clock = clock
        self._open_successor = open_successor
        self._began = self._due = float("inf")
        self._hurried = False
        self._opening: asyncio.Task[Route] | None = None

    @property
    def in_progress(self) -> bool:
        """A successor is being opened."""
        return self._opening is not None

    def set_life(self, session_max: float) -> None:
        """Rotate each `session_max` seconds (0: never), from the next session on."""
        self._life = session_max or float("inf")

    def begin(self) -> None:
        """A session is live from now on."""
        self._began = self._clock.now()
        self._due = self._began + self._life
        self._hurried = False

    def hurry(self) -> None:
        """The live session will end before its time: a successor is due."""
        if not self._hurried:
            self._hurried = True
            self._due = min(self._due, max(self._clock.now(), self._began + LEAST_LIFE))

    def step(self) -> Route | None:
        """Do what is due; gives the successor once it is live."""
        if self._opening is None:
            if self._clock.now() >= self._due:
                self._opening = asyncio.create_task(self._open_successor(), name="relayd-rotation")
            return None
        if not self._opening.done():
            return None
        opening, self._opening = self._opening, None
        try:
            successor = opening.result()
        except RelaydError as fault:
            _log.warning("rotation.failed", reason=str(fault), retry_in=RETRY)
            self._due = self._clock.now() + RETRY
            return None
        self.begin()
        return successor

    async def end(self) -> None:
        """Give up a successor in the making; whoever opens it closes it."""
        opening, self._opening = self._opening, None
        self._due = float("inf")
        if opening:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
