"""A session's life: opened, on the journal before it is used, and closed whatever happens.

The service bills a session from create to close. So a create in flight is waited for even when
its task is cancelled, what it opened is closed, and what could not be closed stays on the journal
for `close_leftovers`, of this process or a later one. Left over for nobody is only a session
whose create answer never arrived, or arrived at a process killed before the write: the API cannot
list sessions. `session.maybe_open` in the log says so where it is known.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from relayd import logs
from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal, JournalEntry, JournalRecord
from relayd.akool.models import LiveSession, Status
from relayd.akool.retry import never_acted_on, repeated_if_not_acted_on
from relayd.errors import (
    FaceRejected,
    ServiceError,
    SessionFailed,
    Unavailable,
)

CLOSE_WITHIN = 10.0
"""s that a close is tried for, where the caller does not say."""
ANSWER_WITHIN = 10.0
"""s that a cancelled open waits for the answer of a create in flight."""
LOOKUP_FAILURES = 3
"""Failed status look-ups in a row after which the session is taken for ready."""
AT_ONCE = 4
"""Leftovers closed at the same time."""

_log = logs.get("akool")


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """Whose face: an image that the service can fetch, and where in it."""

    image_url: str
    landmarks: str = ""
    """"x,y:x,y:x,y:x,y" in pixels; empty: the service is asked for the one face in it."""


class Readiness(Enum):
    """Why a session is taken for ready to be joined."""

    CONFIRMED = "confirmed"
    """The service said "processing"."""
    ASSUMED = "assumed"
    """The status cannot be looked up; the first swapped frame will tell."""


@dataclass(frozen=True, slots=True)
class LeftoverResult:
    """What became of one session that nobody cared for."""

    record: JournalRecord
    closed: bool
    reason: str
    """Why not, in words; empty when it was closed."""


class SwapSession:
    """An open session, on the journal. Whoever has it closes it."""

    def __init__(
        self,
        live: LiveSession,
        entry: JournalEntry,
        keeper: "SessionKeeper",
        opened_at: float,
    ) -> None:
        self.live = live
        self.opened_at = opened_at
        """Monotonic seconds."""
        self.token = live.front_rtc_token
        """What the channel is joined with."""
        self.token_at = opened_at
        """When it was given, monotonic seconds."""
        self.status = live.status
        """As last heard."""
        self.closed = False
        """Whether the close was confirmed."""
        self._entry = entry
        self._keeper = keeper
        self._closing = asyncio.Lock()

    async def wait_ready(self, *, poll: float = 1.0, within: float = 120.0) -> Readiness:
        """Wait until the engine is in the channel, asking each `poll` s for up to `within` s.

        Raises SessionFailed when the service ended the session or it is still queued then.
        The session stays open: close it.
        """
        keeper, failures = self._keeper, 0
        deadline = keeper.now() + within
        while True:
            if self.status is Status.PROCESSING:
                return Readiness.CONFIRMED
            if self.status in (Status.SUCCESS, Status.FAILED):
                words = "gave the session up" if self.status is Status.FAILED else "ended it"
                raise SessionFailed(f"the service {words} before it could be joined")
            if keeper.now() >= deadline:
                raise SessionFailed(f"the session is still queued after {within:g} s")
            await keeper.sleep(poll)
            try:
                self.status = await keeper.client.status(self.live.id)
            except ServiceError as fault:
                failures += 1
                _log.info("status.failed", session=self.live.id, reason=str(fault))
                if failures == LOOKUP_FAILURES:
                    return Readiness.ASSUMED
            else:
                failures = 0
                if self.status is None:
                    return Readiness.ASSUMED

    async def update_face(self, face: FaceChoice) -> None:
        """Swap to another face without a new session.

        Raises FaceRejected, SessionUnknown when the session is gone, or another ServiceError.
        """
        landmarks = await self._keeper.landmarks(face)
        await self._keeper.client.update(self.live.id, face.image_url, landmarks)
        _log.info("session.face_changed", session=self.live.id)

    async def renew_token(self) -> bool:
        """Take over a newer RTC token, if the service gives one; True when it did."""
        try:
            token = await self._keeper.client.fresh_token(self.live.id)
        except ServiceError as fault:
            _log.info("token.not_renewed", session=self.live.id, reason=str(fault))
            return False
        if token is None or token == self.token:
            return False
        self.token, self.token_at = token, self._keeper.now()
        return True

    async def close(self, *, within: float = CLOSE_WITHIN) -> bool:
        """Close at the service, trying for `within` s; True when that is confirmed.

        Otherwise it stays on the journal, given free for `close_leftovers`. May be called again.
        """
        async with self._closing:
            if not self.closed:
                self.closed = await _close(self._keeper.client, self._entry, within) == ""
            return self.closed


class SessionKeeper:
    """Opens sessions for one relay, at one account, on one journal."""

    def __init__(
        self,
        client: AkoolClient,
        journal: Journal,
        *,
        relay: str,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        answer_within: float = ANSWER_WITHIN,
        close_within: float = CLOSE_WITHIN,
    ) -> None:
        self.client = client
        self.now = now
        self.sleep = sleep
        self._journal = journal
        self._relay = relay
        self._answer_within = answer_within
        self._close_within = close_within
        self._known_landmarks: dict[str, str] = {}

    async def open_session(self, face: FaceChoice) -> SwapSession:
        """Open a session, put it on the journal, and only then hand it out.

        Raises FaceRejected when the image has no face or several, Unavailable when the journal
        cannot be written (before anything is opened, if that can be known), SessionFailed or the
        ServiceError of create. A refusal that left a session behind has closed it.

        Cancelled while a create is in flight, it waits up to `answer_within` s for the answer,
        closes what was opened (`close_within` s) and only then ends, however often it is
        cancelled meanwhile.
        """
        landmarks = await self.landmarks(face)
        await asyncio.to_thread(self._journal.probe)
        return await repeated_if_not_acted_on(self._open_once, face.image_url, landmarks)

    async def landmarks(self, face: FaceChoice) -> str:
        """Give the landmarks chosen, else those of the only face in the image.

        Raises FaceRejected when it has none, or several: their landmarks are in the message.
        """
        if face.landmarks:
            return face.landmarks
        if face.image_url not in self._known_landmarks:
            faces = await self.client.detect_faces(face.image_url)
            if not faces:
                raise FaceRejected(
                    "no face was found in [face] image", mend="choose a picture with a clear face"
                )
            if len(faces) > 1:
                found = "; ".join(f'"{face.landmarks}"' for face in faces[:10])
                raise FaceRejected(
                    f"[face] image has {len(faces)} faces: {found}",
                    mend="set [face] landmarks to one of them",
                )
            self._known_landmarks = {face.image_url: faces[0].landmarks}
        return self._known_landmarks[face.image_url]

    async def _open_once(self, image_url: str, landmarks: str) -> SwapSession:
        """Send one create in tasks of its own, so that no cancellation can lose its answer."""
        asking = asyncio.create_task(
            self.client.create(image_url, landmarks), name="relayd-akool-create"
        )
        opening = asyncio.create_task(self._record(asking), name="relayd-akool-open")
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            undoing = asyncio.create_task(self._undo(asking, opening), name="relayd-akool-undo")
            await _to_the_end(undoing)
            raise

    async def _record(self, asking: asyncio.Task[LiveSession]) -> SwapSession:
        """Put what create answers on the journal, and give it if it can be used."""
        try:
            live = await asking
        except asyncio.CancelledError:
            _log.error("session.maybe_open", reason="stopped before create was answered")
            raise
        except ServiceError as fault:
            if fault.retryable and not never_acted_on(fault):
                _log.error("session.maybe_open", reason=str(fault))
            raise
        opened_at = self.now()
        try:
            entry = await asyncio.to_thread(
                self._journal.record,
                live,
                base_url=logs.redact(self.client.base_url),
                relay=self._relay,
                account=self.client.account,
            )
        except Exception:
            await self._close_unrecorded(live)
            raise
        _log.info("session.created", session=live.id, channel=live.channel_id, relay=self._relay)
        session = SwapSession(live, entry, self, opened_at)
        if live.flaw is not None:
            await session.close(within=self._close_within)
            live.check()
        return session

    async def _close_unrecorded(self, live: LiveSession) -> None:
        try:
            await self.client.close(live.id, within=self._close_within)
        except ServiceError as fault:
            _log.error("session.left_open_unrecorded", session=live.id, reason=str(fault))
        else:
            _log.info("session.closed", session=live.id, reason="it could not be recorded")

    async def _undo(
        self, asking: asyncio.Task[LiveSession], opening: asyncio.Task[SwapSession]
    ) -> None:
        """Wait for a create in flight, no longer than `answer_within`; close what it opened."""
        await asyncio.wait({asking}, timeout=self._answer_within)
        asking.cancel()  # without effect on one that was answered
        await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().close(within=self._close_within)


async def close_leftovers(
    client: AkoolClient,
    journal: Journal,
    *,
    session_id: str | None = None,
    within: float = CLOSE_WITHIN,
) -> list[LeftoverResult]:
    """Close the sessions on the journal whose owner died, or only the one named.

    Those at another service than `client`'s are left alone: its answer would be about a stranger.
    Raises Unavailable when the journal cannot be read.
    """
    here = logs.redact(client.base_url)
    turns = asyncio.Semaphore(AT_ONCE)

    async def settle(entry: JournalEntry) -> LeftoverResult:
        if entry.record.base_url != here:
            entry.release()
            reason = f"it is open at {entry.record.base_url}, not at {here}"
            _log.warning("session.elsewhere", session=entry.record.id, reason=reason)
        else:
            async with turns:
                reason = await _close(client, entry, within)
        return LeftoverResult(entry.record, closed=not reason, reason=reason)

    entries = await asyncio.to_thread(journal.leftovers)
    chosen = [entry for entry in entries if session_id in (None, entry.record.id)]
    try:
        return await asyncio.gather(*(settle(entry) for entry in chosen))
    finally:
        for entry in entries:
            entry.release()


async def _close(client: AkoolClient, entry: JournalEntry, within: float) -> str:
    """Close a session and take it off the journal; "" or why that is not confirmed."""
    session, account = entry.record.id, entry.record.account
    try:
        known = await client.close(session, within=within)
    except ServiceError as fault:
        _log.error("session.close_failed", session=session, reason=str(fault))
        return str(fault)
    else:
        if not known and account not in ("", client.account):
            _log.warning("session.of_another_key", session=session)
            return "unknown to this key; it was opened with another one: close it with that"
        _log.info("session.closed", session=session, relay=entry.record.relay)
        try:
            await asyncio.to_thread(entry.remove)
        except Unavailable as fault:
            # Closing it once more at the next start does no harm.
            _log.warning("journal.kept", session=session, reason=str(fault))
        return ""
    finally:
        entry.release()


async def _to_the_end(task: asyncio.Task[None]) -> None:
    """Wait for a task that ends by its own deadlines, whatever cancels us meanwhile."""
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error("session.undo_failed", exc_info=fault)
