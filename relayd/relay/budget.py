"""Watches how long sessions were open today and warns when the day's limit is near or reached."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from relayd.akool.budget import BudgetReading, BudgetState
from relayd.akool.journal import Journal
from relayd.logs import LogEvent, get

_log = get("budget")


class BudgetWatch:
    """Reads the journal when a session opens or closes, and when time alone changes the result."""

    def __init__(
        self, journal: Journal, daily_limit: float, on_reading: Callable[[BudgetReading], None]
    ) -> None:
        """Watch a limit in minutes a day (0: none); `on_reading` is called with each reading."""
        self._journal, self._limit, self._on_reading = journal, daily_limit, on_reading
        self._changed = asyncio.Event()
        self._last_state = BudgetState.OK

    def set_limit(self, daily_limit: float) -> None:
        """Use another limit from now on, in minutes; 0: none."""
        self._limit = daily_limit
        self._changed.set()

    def refresh(self) -> None:
        """Read again, because a session was opened or closed."""
        self._changed.set()

    async def read(self) -> BudgetReading:
        """Read today's usage and report it. Raises Unavailable."""
        self._changed.clear()
        reading = await asyncio.to_thread(self._journal.budget, self._limit)
        self._warn(reading)
        self._on_reading(reading)
        return reading

    async def run(self) -> None:
        """Watch, until cancelled."""
        while True:
            reading = await self.read()
            with suppress(TimeoutError):
                async with asyncio.timeout(reading.next_change_in):
                    await self._changed.wait()

    def _warn(self, reading: BudgetReading) -> None:
        if reading.state is not self._last_state and reading.state is not BudgetState.OK:
            _log.warning(LogEvent.RELAY_BUDGET, state=reading.state.value, reason=reading.text)
        self._last_state = reading.state
