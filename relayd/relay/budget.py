"""Watches how long sessions were open today, and tells when the day's limit is near or reached."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from relayd.akool.budget import BudgetReading, BudgetState
from relayd.akool.journal import Journal
from relayd.logs import get

LOOK_AGAIN = 60.0
"""s after which the journal is read anew while a limit is set: other relays may share it."""

_log = get("budget")


class BudgetWatch:
    """Reads the journal when a session opens or closes, and when the answer may have changed."""

    def __init__(
        self, journal: Journal, daily_limit: float, on_reading: Callable[[BudgetReading], None]
    ) -> None:
        """Watch a limit of so many minutes a day (0: none); `on_reading` hears of each reading."""
        self._journal, self._limit, self._on_reading = journal, daily_limit, on_reading
        self._changed = asyncio.Event()
        self._told = BudgetState.OK

    def set_limit(self, daily_limit: float) -> None:
        """Watch another limit from now on, in minutes; 0: none."""
        self._limit = daily_limit
        self._changed.set()

    def look(self) -> None:
        """A session was opened or closed: read anew."""
        self._changed.set()

    async def run(self) -> None:
        """Watch, until cancelled."""
        while True:
            self._changed.clear()
            reading = await asyncio.to_thread(self._journal.budget, self._limit)
            self._warn(reading)
            self._on_reading(reading)
            wait = reading.next_change_in
            if self._limit:
                wait = min(wait, LOOK_AGAIN)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def _warn(self, reading: BudgetReading) -> None:
        if reading.state is not self._told and reading.state is not BudgetState.OK:
            _log.warning("budget", state=reading.state.value, reason=reading.words)
        self._told = reading.state
