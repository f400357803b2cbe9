"""A session's life: opened, put in the journal before it is used, and closed whatever happens.

The service bills a session from create to close. So a create in flight is awaited even when its
task is cancelled, what it opened is closed, and what could not be closed stays in the journal for
`close_orphaned_sessions`, of this process or a later one. Only a session whose create answer
never arrived, or arrived at a process killed before the write, can be lost: the API cannot list
sessions. The journal reports these as doubts, the log as `session.maybe_open`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

from relayd import logs
from relayd.akool.boottime import boottime as machine_boottime
from relayd.akool.client import AkoolClient
from relayd.akool.closing import CLOSE_WITHIN, close_entry
from relayd.akool.doubts import CreateIntent
from relayd.akool.journal import Journal, JournalEntry
from relayd.akool.models import LiveSession, Status
from relayd.akool.retry import doubt_of, repeated_if_not_acted_on
from relayd.errors import (
    FaceRejected,
    ServiceError,
    SessionDoubtful,
    SessionFailed,
)
from relayd.logs import LogEvent
from relayd.urls.safe import service_url

ANSWER_WITHIN = 10.0
"""s that a cancelled open waits for the answer of a create in flight."""
LOOKUP_FAILURES = 3
"""Failed status calls in a row after which the session is assumed to be ready."""
LANDMARKS_KEPT_FOR = 600.0
"""s that the landmarks of an image are cached: a change of session needs no new detection, and a
new picture at the same URL is noticed in time."""

_log = logs.get("akool")


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """The face to use: an image that the service can fetch, and where the face is in it."""

    image_url: str = field(repr=False)
    landmarks: str = ""
    """"x,y:x,y:x,y:x,y" in pixels; if empty, the service is asked for the only face in it."""


class Readiness(Enum):
    """Why a session counts as ready to be joined."""

    CONFIRMED = "confirmed"
    """The service said "processing"."""
    ASSUMED = "assumed"
    """The status is not available; the first swapped frame will show it."""


class SwapSession:
    """An open session, in the journal. Its owner must close it."""

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
        """The token to join the channel with."""
        self.token_at = opened_at
        """When it was issued, monotonic seconds."""
        self.status = live.status
        """As last reported by the service."""
        self.closed = False
        """Whether the close was confirmed."""
        self._entry = entry
        self._keeper = keeper
        self._closing = asyncio.Lock()
        self._opened_boottime = keeper.boottime()
        self._total_seconds: float | None = None

    def seconds(self) -> float:
        """Seconds that it has been open until now, or until its close was confirmed.

        Time in which the machine slept counts as well: the service bills it.
        """
        if self._total_seconds is not None:
            return self._total_seconds
        return max(0.0, self._keeper.boottime() - self._opened_boottime)

    async def wait_ready(self, *, poll: float = 1.0, within: float = 120.0) -> Readiness:
        """Wait until the engine is in the channel, asking each `poll` s for up to `within` s.

        Raises SessionFailed when the service ended the session, or it is still queued after that.
        The session stays open: close it.
        """
        keeper, failures = self._keeper, 0
        deadline = keeper.now() + within
        while True:
            if self.status is Status.PROCESSING:
                return Readiness.CONFIRMED
            if self.status in (Status.SUCCESS, Status.FAILED):
                end = "gave the session up" if self.status is Status.FAILED else "ended it"
                raise SessionFailed(f"the service {end} before it could be joined")
            if keeper.now() >= deadline:
                raise SessionFailed(f"the session is still queued after {within:g} s")
            await keeper.sleep(poll)
            try:
                self.status = await keeper.client.status(self.live.id)
            except ServiceError as fault:
                failures += 1
                _log.info(LogEvent.SESSION_STATUS_FAILED, session=self.live.id, reason=str(fault))
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
        _log.info(LogEvent.SESSION_FACE_CHANGED, session=self.live.id)

    async def renew_token(self) -> bool:
        """Use a newer RTC token, if the service returns one; True when it did."""
        try:
            token = await self._keeper.client.fresh_token(self.live.id)
        except ServiceError as fault:
            _log.info(LogEvent.TOKEN_NOT_RENEWED, session=self.live.id, reason=str(fault))
            return False
        if token is None or token == self.token:
            return False
        self.token, self.token_at = token, self._keeper.now()
        return True

    async def close(self, *, within: float = CLOSE_WITHIN) -> bool:
        """Close at the service, trying for `within` s; True when that is confirmed.

        Otherwise it stays in the journal for `close_orphaned_sessions`. May be called again.
        """
        async with self._closing:
            if not self.closed:
                self.closed = await close_entry(self._keeper.client, self._entry, within) == ""
                if self.closed:
                    self._total_seconds = self.seconds()
            return self.closed


class SessionKeeper:
    """Opens sessions for one relay, with one account and one journal."""

    def __init__(
        self,
        client: AkoolClient,
        journal: Journal,
        *,
        relay: str,
        now: Callable[[], float] = time.monotonic,
        boottime: Callable[[], float] = machine_boottime,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        answer_within: float = ANSWER_WITHIN,
        close_within: float = CLOSE_WITHIN,
    ) -> None:
        self.client = client
        self.now = now
        self.boottime = boottime
        self.sleep = sleep
        self.doubtful = 0
        """Number of creates so far that may have opened an unknown session."""
        self._journal = journal
        self._relay = relay
        self._answer_within = answer_within
        self._close_within = close_within
        self._known_landmarks: tuple[str, str, float] | None = None

    async def open_session(self, face: FaceChoice) -> SwapSession:
        """Open a session, put it in the journal, and only then return it.

        Raises FaceRejected when the image has no face or several, Unavailable when the journal
        cannot be written (checked before anything is opened), SessionDoubtful when an unknown
        session may be open, or the ServiceError of a create that opened nothing. A session whose
        answer lacks what is needed to use it is closed first.

        Cancelled while a create is in flight, it waits up to `answer_within` s for the answer,
        closes what was opened (`close_within` s) and only then ends, however often it is
        cancelled meanwhile.
        """
        landmarks = await self.landmarks(face)
        await asyncio.to_thread(self._journal.probe)
        return await repeated_if_not_acted_on(self._open_once, face.image_url, landmarks)

    async def landmarks(self, face: FaceChoice, *, fresh: bool = False) -> str:
        """Return the configured landmarks, else those of the only face in the image.

        With `fresh`, faces are detected again, as the picture at the URL may have changed. Raises
        FaceRejected when it has no face, or several: their landmarks are in the message.
        """
        if face.landmarks:
            return face.landmarks
        if self._known_landmarks is not None and not fresh:
            url, known, asked_at = self._known_landmarks
            if url == face.image_url and self.now() - asked_at < LANDMARKS_KEPT_FOR:
                return known
        self._known_landmarks = None
        found = await self._only_face(face.image_url)
        self._known_landmarks = (face.image_url, found, self.now())
        return found

    async def _only_face(self, image_url: str) -> str:
        faces = await self.client.detect_faces(image_url)
        if not faces:
            raise FaceRejected(
                "no face was found in [face] image", hint="choose a picture with a clear face"
            )
        if len(faces) > 1:
            found = "; ".join(f'"{face.landmarks}"' for face in faces[:10])
            raise FaceRejected(
                f"[face] image has {len(faces)} faces: {found}",
                hint="set [face] landmarks to one of them",
            )
        return faces[0].landmarks

    async def _open_once(self, image_url: str, landmarks: str) -> SwapSession:
        """Send one create in separate tasks, so that a cancellation cannot lose its answer."""
        intent = await self._begin_create()
        answer_task = asyncio.create_task(
            self.client.create(image_url, landmarks), name="relayd-akool-create"
        )
        open_task = asyncio.create_task(
            self._finish_open(answer_task, intent), name="relayd-akool-open"
        )
        try:
            return await asyncio.shield(open_task)
        except asyncio.CancelledError:
            undo_task = asyncio.create_task(
                self._undo(answer_task, open_task), name="relayd-akool-undo"
            )
            await _wait_to_the_end(undo_task)
            raise

    async def _begin_create(self) -> CreateIntent:
        """Record in the journal that a create will be sent; undo that when cancelled."""
        write_task = asyncio.create_task(
            asyncio.to_thread(
                self._journal.begin_create, self._base_url, self._relay, self.client.account
            ),
            name="relayd-akool-intent",
        )
        try:
            return await asyncio.shield(write_task)
        except asyncio.CancelledError:
            await _wait_to_the_end(
                asyncio.create_task(_withdraw(write_task), name="relayd-akool-undo")
            )
            raise

    @property
    def _base_url(self) -> str:
        return service_url(self.client.base_url)

    async def _finish_open(
        self, answer_task: asyncio.Task[LiveSession], intent: CreateIntent
    ) -> SwapSession:
        """Put the session that create returns in the journal; return it if it can be used."""
        try:
            live = await answer_task
        except asyncio.CancelledError:
            await self._record_doubt(intent, "stopped before create was answered")
            raise
        except SessionDoubtful as fault:
            await self._record_doubt(intent, str(fault.__cause__ or fault))
            raise
        except ServiceError:
            await asyncio.to_thread(intent.mark_answered)
            raise
        except Exception as fault:
            await self._record_doubt(intent, f"{type(fault).__name__}: {fault}")
            raise doubt_of(fault) from fault
        session = await self._record(live, intent)
        if live.flaw is not None:
            await session.close(within=self._close_within)
            live.check()
        return session

    async def _record_doubt(self, intent: CreateIntent, reason: str) -> None:
        self.doubtful += 1
        _log.error(LogEvent.SESSION_MAYBE_OPEN, reason=reason)
        await asyncio.to_thread(intent.mark_doubtful, reason)

    async def _record(self, live: LiveSession, intent: CreateIntent) -> SwapSession:
        """Put a session in the journal; close it if that fails."""
        opened_at = self.now()
        try:
            entry = await asyncio.to_thread(
                self._journal.record,
                live,
                base_url=self._base_url,
                relay=self._relay,
                account=self.client.account,
            )
        except Exception:
            await self._close_unrecorded(live, intent)
            raise
        await asyncio.to_thread(intent.mark_answered)
        _log.info(
            LogEvent.SESSION_CREATED, session=live.id, channel=live.channel_id, relay=self._relay
        )
        return SwapSession(live, entry, self, opened_at)

    async def _close_unrecorded(self, live: LiveSession, intent: CreateIntent) -> None:
        try:
            await self.client.close(live.id, within=self._close_within)
        except Exception as fault:  # noqa: BLE001 - the session may be open
            _log.error(LogEvent.SESSION_NOT_RECORDED, session=live.id, reason=str(fault))
            reason = (
                f"{live.id} could be neither recorded nor closed: relayd sessions close {live.id}"
            )
            await self._record_doubt(intent, reason)
        else:
            _log.info(LogEvent.SESSION_CLOSED, session=live.id, reason="it could not be recorded")
            await asyncio.to_thread(intent.mark_answered)

    async def _undo(
        self, answer_task: asyncio.Task[LiveSession], open_task: asyncio.Task[SwapSession]
    ) -> None:
        """Wait for a create in flight, no longer than `answer_within`; close what it opened."""
        await asyncio.wait({answer_task}, timeout=self._answer_within)
        answer_task.cancel()  # no effect once it was answered
        await asyncio.wait({open_task})
        if not open_task.cancelled() and open_task.exception() is None:
            await open_task.result().close(within=self._close_within)


async def _withdraw(write_task: asyncio.Task[CreateIntent]) -> None:
    """Remove an intent once it is written: nothing was sent."""
    await asyncio.wait({write_task})
    if not write_task.cancelled() and write_task.exception() is None:
        await asyncio.to_thread(write_task.result().mark_answered)


async def _wait_to_the_end(task: asyncio.Task[None]) -> None:
    """Wait for a task that ends by its own deadlines, even if we are cancelled meanwhile."""
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error(LogEvent.SESSION_UNDO_FAILED, exc_info=fault)
