"""A session's life: opened, on the journal before it is used, and closed whatever happens.

The service bills a session from create to close. So a create in flight is waited for even when
its task is cancelled, what it opened is closed, and what could not be closed stays on the journal
for `close_orphaned_sessions`, of this process or a later one. Only a session whose create answer
never arrived, or arrived at a process killed before the write, can be lost: the API cannot list
sessions. The journal tells of these as doubts, and `session.maybe_open` in the log.
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
"""Failed status look-ups in a row after which the session is taken for ready."""
LANDMARKS_KEPT_FOR = 600.0
"""s that the landmarks of an image are known: a change of session asks for no new detection, and
another picture under the same URL is seen in time."""

_log = logs.get("akool")


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """Whose face: an image that the service can fetch, and where in it."""

    image_url: str = field(repr=False)
    landmarks: str = ""
    """"x,y:x,y:x,y:x,y" in pixels; empty: the service is asked for the one face in it."""


class Readiness(Enum):
    """Why a session is taken for ready to be joined."""

    CONFIRMED = "confirmed"
    """The service said "processing"."""
    ASSUMED = "assumed"
    """The status cannot be looked up; the first swapped frame will tell."""


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
        self._opened_boottime = keeper.boottime()
        self._lasted: float | None = None

    def seconds(self) -> float:
        """Seconds that it was open until now, or until its close was confirmed.

        Those in which the machine slept count as well: the service bills them.
        """
        if self._lasted is not None:
            return self._lasted
        return max(0.0, self._keeper.boottime() - self._opened_boottime)

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
        """Take over a newer RTC token, if the service gives one; True when it did."""
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

        Otherwise it stays on the journal, free for `close_orphaned_sessions`. May be called again.
        """
        async with self._closing:
            if not self.closed:
                self.closed = await close_entry(self._keeper.client, self._entry, within) == ""
                if self.closed:
                    self._lasted = self.seconds()
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
        """Creates so far after which a session may be open that nobody knows of."""
        self._journal = journal
        self._relay = relay
        self._answer_within = answer_within
        self._close_within = close_within
        self._known_landmarks: tuple[str, str, float] | None = None

    async def open_session(self, face: FaceChoice) -> SwapSession:
        """Open a session, put it on the journal, and only then hand it out.

        Raises FaceRejected when the image has no face or several, Unavailable when the journal
        cannot be written (before anything is opened, if that can be known), SessionDoubtful when
        a session may be open that nobody knows of, or the ServiceError of create, which opened
        none. An answer that names a session without what is needed to use it has closed it.

        Cancelled while a create is in flight, it waits up to `answer_within` s for the answer,
        closes what was opened (`close_within` s) and only then ends, however often it is
        cancelled meanwhile.
        """
        landmarks = await self.landmarks(face)
        await asyncio.to_thread(self._journal.probe)
        return await repeated_if_not_acted_on(self._open_once, face.image_url, landmarks)

    async def landmarks(self, face: FaceChoice, *, fresh: bool = False) -> str:
        """Return the landmarks chosen, else those of the only face in the image.

        With `fresh`, the image is looked at again, as there may be another one at its URL. Raises
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
        """Send one create in tasks of its own, so that no cancellation can lose its answer."""
        intent = await self._begin_create()
        asking = asyncio.create_task(
            self.client.create(image_url, landmarks), name="relayd-akool-create"
        )
        opening = asyncio.create_task(self._settle(asking, intent), name="relayd-akool-open")
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            undoing = asyncio.create_task(self._undo(asking, opening), name="relayd-akool-undo")
            await _to_the_end(undoing)
            raise

    async def _begin_create(self) -> CreateIntent:
        """Note on the journal that a create will be sent; cancelled, that none is."""
        writing = asyncio.create_task(
            asyncio.to_thread(
                self._journal.begin_create, self._base_url, self._relay, self.client.account
            ),
            name="relayd-akool-intent",
        )
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await _to_the_end(asyncio.create_task(_withdraw(writing), name="relayd-akool-undo"))
            raise

    @property
    def _base_url(self) -> str:
        return service_url(self.client.base_url)

    async def _settle(self, asking: asyncio.Task[LiveSession], intent: CreateIntent) -> SwapSession:
        """Put what create answers on the journal, and give it if it can be used."""
        try:
            live = await asking
        except asyncio.CancelledError:
            await self._doubt(intent, "stopped before create was answered")
            raise
        except SessionDoubtful as fault:
            await self._doubt(intent, str(fault.__cause__ or fault))
            raise
        except ServiceError:
            await asyncio.to_thread(intent.answered)
            raise
        except Exception as fault:
            await self._doubt(intent, f"{type(fault).__name__}: {fault}")
            raise doubt_of(fault) from fault
        session = await self._record(live, intent)
        if live.flaw is not None:
            await session.close(within=self._close_within)
            live.check()
        return session

    async def _doubt(self, intent: CreateIntent, reason: str) -> None:
        self.doubtful += 1
        _log.error(LogEvent.SESSION_MAYBE_OPEN, reason=reason)
        await asyncio.to_thread(intent.doubtful, reason)

    async def _record(self, live: LiveSession, intent: CreateIntent) -> SwapSession:
        """Put a session on the journal; close it where that fails."""
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
        await asyncio.to_thread(intent.answered)
        _log.info(
            LogEvent.SESSION_CREATED, session=live.id, channel=live.channel_id, relay=self._relay
        )
        return SwapSession(live, entry, self, opened_at)

    async def _close_unrecorded(self, live: LiveSession, intent: CreateIntent) -> None:
        try:
            await self.client.close(live.id, within=self._close_within)
        except Exception as fault:  # noqa: BLE001 - whatever it was, it may be open
            _log.error(LogEvent.SESSION_NOT_RECORDED, session=live.id, reason=str(fault))
            reason = (
                f"{live.id} could be neither recorded nor closed: relayd sessions close {live.id}"
            )
            await self._doubt(intent, reason)
        else:
            _log.info(LogEvent.SESSION_CLOSED, session=live.id, reason="it could not be recorded")
            await asyncio.to_thread(intent.answered)

    async def _undo(
        self, asking: asyncio.Task[LiveSession], opening: asyncio.Task[SwapSession]
    ) -> None:
        """Wait for a create in flight, no longer than `answer_within`; close what it opened."""
        await asyncio.wait({asking}, timeout=self._answer_within)
        asking.cancel()  # without effect on one that was answered
        await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().close(within=self._close_within)


async def _withdraw(writing: asyncio.Task[CreateIntent]) -> None:
    """Take an intent back once it is written: nothing was sent."""
    await asyncio.wait({writing})
    if not writing.cancelled() and writing.exception() is None:
        await asyncio.to_thread(writing.result().answered)


async def _to_the_end(task: asyncio.Task[None]) -> None:
    """Wait for a task that ends by its own deadlines, whatever cancels us meanwhile."""
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error(LogEvent.SESSION_UNDO_FAILED, exc_info=fault)
