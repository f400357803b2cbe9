"""What is wanted of a relay: which face, and whether a session is of any use.

That hangs on the person who may pause it, on who looks at the cameras, and on the source:
without a picture to swap no session is of use.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from relayd.akool.session import FaceChoice
from relayd.clock import Clock
from relayd.config import Settings
from relayd.ondemand import Demand, is_on_demand
from relayd.source.health import SourceHealth

SOURCE_PATIENCE = 30.0
"""s that a session is kept, and paid, while the source is away; then it is closed."""
WATCH_INTERVAL = 0.1
"""s between two looks at what is wanted, or for a stall: a fifth of the 0.5 s that standby may
take to show."""
NOBODY_LOOKS = "nobody looks at the camera"
STILL_CLOSING = "the last session is being closed"


class Wishes:
    """What a person, the readers and the source ask of a relay; lives in its event loop."""

    def __init__(self, settings: Settings, clock: Clock, on_demand: Callable[[], None]) -> None:
        """Begin as the settings say; `on_demand` is called after each change of the demand."""
        self._clock = clock
        self.face = FaceChoice(settings.face.image, settings.face.landmarks)
        """The face to put on."""
        self.paused = False
        """A person wants no session until it is resumed."""
        self.source = SourceHealth()
        self.demand = Demand(
            enabled=is_on_demand(settings),
            grace=settings.on_demand.grace,
            clock=clock,
            on_change=on_demand,
        )
        self.asked = asyncio.Event()
        """Somebody changed what is wanted: no wait goes on."""

    @property
    def asks(self) -> bool:
        """Whether a session may be opened."""
        return self.demand.asks and self._is_of_use(patience=0.0)

    @property
    def keeps(self) -> bool:
        """Whether a session that is open, or being opened, is kept."""
        return self.demand.keeps and self._is_of_use(SOURCE_PATIENCE)

    @property
    def why_none(self) -> str:
        """Why no session may be opened, in words."""
        if self.paused:
            return "paused"
        if not self.demand.asks:
            return STILL_CLOSING if self.demand.is_looked_at else NOBODY_LOOKS
        return self.source.reason

    async def sleep(self, seconds: float) -> bool:
        """Wait, but not longer than until somebody changes what is wanted: then True."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.asked.wait()
        asked = self.asked.is_set()
        self.asked.clear()
        return asked

    async def watch_grace(self) -> None:
        """Let the time after the last reader left run out, for ever."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            self.demand.step()

    def _is_of_use(self, patience: float) -> bool:
        """Whether nobody paused the relay and the source is not away for longer than `patience`."""
        return not self.paused and self.source.away(self._clock.now()) <= patience
