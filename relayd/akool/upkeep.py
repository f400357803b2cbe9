"""What goes on beside a relay's sessions: closing orphaned sessions, following the credit."""

import asyncio

from relayd.akool.client import AkoolClient
from relayd.akool.closing import close_orphaned_sessions
from relayd.akool.journal import Journal
from relayd.clock import Backoff
from relayd.errors import RelaydError
from relayd.logs import LogEvent, get

ORPHANS_BACKOFF = 0.5, 60.0
"""s, first and longest wait between two tries to close what was left open: it bills meanwhile."""
ORPHANS_INTERVAL = 30.0
"""s between two looks for it while all is closed; a look reads a folder."""
CREDIT_INTERVAL = 600.0
"""s between two looks at the credit left."""

_log = get("akool")


async def keep_closing_orphaned_sessions(client: AkoolClient, journal: Journal) -> None:
    """Close what nobody cares for, for ever.

    That is what a killed relay left open, and each session of this one whose close the service
    did not confirm: the network may have been away for longer than a close is tried. One that
    this account can never close is told once.
    """
    backoff = Backoff(*ORPHANS_BACKOFF)
    hopeless: dict[str, str] = {}
    while True:
        try:
            results = await close_orphaned_sessions(client, journal, hopeless=hopeless)
            all_closed = all(one.closed or one.record.id in hopeless for one in results)
        except RelaydError as fault:
            _log.error(LogEvent.SESSION_ORPHANS_NOT_CLOSED, reason=str(fault))
            all_closed = False
        except Exception:  # noqa: BLE001 - what bills is closed whatever happens
            _log.exception(LogEvent.SESSION_ORPHANS_NOT_CLOSED)
            all_closed = False
        if all_closed:
            backoff.reset()
        await asyncio.sleep(ORPHANS_INTERVAL if all_closed else backoff.next_wait())


class CreditWatch:
    """Looks the account's credit up now and then, where the service tells it."""

    def __init__(self, client: AkoolClient) -> None:
        self._client = client
        self.left: float | None = None
        """As last told; None where it is not."""

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            try:
                self.left = await self._client.credit()
            except RelaydError as fault:
                _log.debug(LogEvent.SERVICE_CREDIT_UNKNOWN, reason=str(fault))
            await asyncio.sleep(CREDIT_INTERVAL)
