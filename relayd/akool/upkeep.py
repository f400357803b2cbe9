"""Background work beside a relay's sessions: closing orphaned sessions, reading the credit."""

import asyncio

from relayd.akool.client import AkoolClient
from relayd.akool.closing import close_orphaned_sessions
from relayd.akool.journal import Journal
from relayd.clock import Backoff
from relayd.errors import RelaydError
from relayd.logs import LogEvent, get

ORPHANS_BACKOFF = 0.5, 60.0
"""s, first and longest wait between two attempts to close orphans, which are billed meanwhile."""
ORPHANS_INTERVAL = 30.0
"""s between two searches for orphans while all are closed; a search reads one folder."""
CREDIT_INTERVAL = 600.0
"""s between two requests for the credit left."""

_log = get("akool")


async def keep_closing_orphaned_sessions(client: AkoolClient, journal: Journal) -> None:
    """Close orphaned sessions, for ever.

    These are sessions that a killed relay left open, and each session of this relay whose close
    the service did not confirm: the network may have been down for longer than a close is tried.
    One that this account can never close is reported once.
    """
    backoff = Backoff(*ORPHANS_BACKOFF)
    unclosable: dict[str, str] = {}
    while True:
        try:
            results = await close_orphaned_sessions(client, journal, unclosable=unclosable)
            all_closed = all(one.closed or one.record.id in unclosable for one in results)
        except RelaydError as fault:
            _log.error(LogEvent.SESSION_ORPHANS_NOT_CLOSED, reason=str(fault))
            all_closed = False
        except Exception:  # noqa: BLE001 - open sessions cost money
            _log.exception(LogEvent.SESSION_ORPHANS_NOT_CLOSED)
            all_closed = False
        if all_closed:
            backoff.reset()
        await asyncio.sleep(ORPHANS_INTERVAL if all_closed else backoff.next_wait())


class CreditWatch:
    """Reads the account's credit now and then, if the service reports it."""

    def __init__(self, client: AkoolClient) -> None:
        self._client = client
        self.left: float | None = None
        """As last reported; None if it was not."""

    async def run(self) -> None:
        """Read it, for ever."""
        while True:
            try:
                self.left = await self._client.credit()
            except RelaydError as fault:
                _log.debug(LogEvent.SERVICE_CREDIT_UNKNOWN, reason=str(fault))
            await asyncio.sleep(CREDIT_INTERVAL)
