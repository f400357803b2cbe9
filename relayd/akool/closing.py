"""Closing sessions: each stays in the journal until the service confirmed its close."""

import asyncio
from dataclasses import dataclass

from relayd import logs
from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal, JournalEntry
from relayd.akool.records import JournalRecord
from relayd.errors import InternalFault, ServiceError, Unavailable
from relayd.logs import LogEvent
from relayd.urls.safe import service_url

CLOSE_WITHIN = 10.0
"""s that a close is tried for by default."""
AT_ONCE = 4
"""Orphaned sessions closed at the same time."""
OF_ANOTHER_KEY = "unknown to this key; it was opened with another one: close it with that"
"""Why a session that the service does not know stays in the journal."""

_log = logs.get("akool")


@dataclass(frozen=True, slots=True)
class OrphanResult:
    """What happened to one orphaned session."""

    record: JournalRecord
    closed: bool
    reason: str
    """Why not, as text; empty when it was closed."""


async def close_orphaned_sessions(
    client: AkoolClient,
    journal: Journal,
    *,
    session_id: str | None = None,
    within: float = CLOSE_WITHIN,
    unclosable: dict[str, str] | None = None,
) -> list[OrphanResult]:
    """Close the sessions in the journal whose owner died, or only the one named.

    Sessions at another service than `client`'s are skipped: its answer would be about a different
    session. A caller that repeats this passes the same dict as `unclosable` each time: sessions
    that this client can never close are put there, id to reason, and are tried and reported only
    once. A failure with one session does not prevent closing the others. Raises Unavailable when
    the journal cannot be read.
    """
    unclosable = {} if unclosable is None else unclosable
    turns = asyncio.Semaphore(AT_ONCE)

    async def close_one(entry: JournalEntry) -> OrphanResult:
        session = entry.record.id
        try:
            async with turns:
                reason = unclosable.get(session) or await _close_orphaned_session(
                    client, entry, within, unclosable
                )
        except Exception as fault:  # noqa: BLE001 - the others must still be closed
            _log.error(LogEvent.SESSION_CLOSE_FAILED, session=session, exc_info=fault)
            reason = str(InternalFault.of(fault))
        finally:
            entry.release()
        return OrphanResult(entry.record, closed=not reason, reason=reason)

    entries = await asyncio.to_thread(journal.orphans)
    chosen = [entry for entry in entries if session_id in (None, entry.record.id)]
    try:
        return await asyncio.gather(*(close_one(entry) for entry in chosen))
    finally:
        for entry in entries:
            entry.release()


async def _close_orphaned_session(
    client: AkoolClient, entry: JournalEntry, within: float, unclosable: dict[str, str]
) -> str:
    """Close a session whose owner died; return "" or why the close is not confirmed."""
    record, here = entry.record, service_url(client.base_url)
    if service_url(record.base_url) != here:
        reason = f"it is open at {record.base_url}, not at {here}"
        _log.warning(LogEvent.SESSION_ELSEWHERE, session=record.id, reason=reason)
        unclosable[record.id] = reason
        return reason
    reason = await close_entry(client, entry, within)
    if reason == OF_ANOTHER_KEY:
        unclosable[record.id] = reason
    return reason


async def close_entry(client: AkoolClient, entry: JournalEntry, within: float) -> str:
    """Close a session and remove it from the journal; return "" or why that is not confirmed."""
    session, account = entry.record.id, entry.record.account
    try:
        known = await client.close(session, within=within)
    except ServiceError as fault:
        _log.error(LogEvent.SESSION_CLOSE_FAILED, session=session, reason=str(fault))
        return str(fault)
    except Exception as fault:  # noqa: BLE001 - reported as the result
        _log.exception(LogEvent.SESSION_CLOSE_FAILED, session=session)
        return str(InternalFault.of(fault))
    else:
        if not known and account not in ("", client.account):
            _log.warning(LogEvent.SESSION_OF_ANOTHER_KEY, session=session)
            return OF_ANOTHER_KEY
        _log.info(LogEvent.SESSION_CLOSED, session=session, relay=entry.record.relay)
        try:
            await asyncio.to_thread(entry.remove)
        except Unavailable as fault:
            # Closing it again at the next start does no harm.
            _log.warning(LogEvent.JOURNAL_KEPT, session=session, reason=str(fault))
        return ""
    finally:
        entry.release()
