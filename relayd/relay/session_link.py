"""One session of the service, with the link that carries its pictures.

It does what the state machine commands and answers with events; it decides nothing. Each command
starts a task of its own and returns at once. `close` cancels whatever is going on, then closes the
session and stops the worker in parallel, so that neither waits for the other.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from relayd.akool.session import FaceChoice, SwapSession
from relayd.errors import InternalFault, RelaydError, SessionDoubtful, SessionFailed
from relayd.logs import LogEvent, get
from relayd.media.frames import SourceFrame
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.parts import LinkParts
from relayd.relay.sessions import QUEUE_TIMEOUT, RECOVERY_TIMEOUT
from relayd.relay.worker_link import WorkerLink
from relayd.rtc.link import LinkTarget
from relayd.sound.blocks import OwnSound

CLOSE_DEADLINE = 10.0
"""s for the service to confirm a close; after that the journal keeps the session."""
OPENING_DEADLINE = 25.0
"""s for a cancelled opening to end: a create in flight is awaited, and its session closed."""

T = TypeVar("T")

_log = get("session")


class SessionLink:
    """A session and its link; lives in one event loop."""

    def __init__(self, number: int, parts: LinkParts, emit: Callable[[Event], None]) -> None:
        """Start with neither; `emit` gets each event, in the event loop."""
        self.number = number
        self._parts, self._emit = parts, emit
        self._worker = WorkerLink(number, parts, emit)
        self._session: SwapSession | None = None
        self._billed = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        """Calls to the service on behalf of the open session."""

    @property
    def session_id(self) -> str | None:
        """The service's id of the session, while it is open."""
        return self._session.live.id if self._session else None

    @property
    def billed(self) -> float:
        """Billed seconds of the session, so far or in total."""
        return self._session.seconds() if self._session else self._billed

    # Commands.

    def start(self) -> None:
        """Start a worker; an existing one is replaced."""
        _spawn(self._starting, self._worker.start(), "relayd-worker-start")

    def open(self, face: FaceChoice) -> None:
        """Create the session at the service, and wait for its turn."""
        self._opening = asyncio.create_task(self._open(face), name="relayd-session-open")

    def join(self) -> None:
        """Join the session's channel."""
        if self._session:
            self._worker.join(self._target(self._session))

    def update_face(self, face: FaceChoice) -> asyncio.Task[RelaydError | None]:
        """Switch to another face; the task returns why the session refused it, or None."""
        return _spawn(self._calls, self._update_face(face), "relayd-session-face")

    def renew_token(self) -> None:
        """Get a newer token and pass it to the link."""
        _spawn(self._calls, self._renew_token(), "relayd-session-token")

    def close(self) -> asyncio.Task[None]:
        """Close the session and stop the worker in any state; the task never fails."""
        return asyncio.create_task(self._close(), name="relayd-session-close")

    def publish(self, frame: SourceFrame) -> bool:
        """Send one source picture if possible; called in the pacer's thread."""
        return self._worker.publish(frame)

    def publish_sound(self, sound: OwnSound) -> None:
        """Send a block of the voice if possible; called in the sound's thread."""
        self._worker.publish_sound(sound)

    # How they are carried out.

    async def _open(self, face: FaceChoice) -> None:
        keeper = self._parts.keeper
        doubtful = keeper.doubtful
        try:
            self._session = await keeper.open_session(face)
        except asyncio.CancelledError:
            if keeper.doubtful > doubtful:
                error = SessionDoubtful("stopped before the service answered")
                self._emit(on.SessionDoubtful(self.number, error))
            raise
        except RelaydError as error:
            # It may also be open if it could be neither recorded nor closed.
            is_doubtful = isinstance(error, SessionDoubtful) or keeper.doubtful > doubtful
            kind = on.SessionDoubtful if is_doubtful else on.SessionRefused
            self._emit(kind(self.number, error))
        except Exception as fault:  # noqa: BLE001 - the relay goes on
            _log.exception(LogEvent.SESSION_OPEN_FAILED)
            self._emit(on.SessionDoubtful(self.number, InternalFault.of(fault)))
        else:
            self._emit(on.SessionOpened(self.number))
            await self._wait_ready(self._session)

    async def _wait_ready(self, session: SwapSession) -> None:
        try:
            await session.wait_ready(within=QUEUE_TIMEOUT)
        except RelaydError as error:
            self._emit(on.SessionEnded(self.number, error))
        except Exception as fault:  # noqa: BLE001 - the relay goes on
            _log.exception(LogEvent.SESSION_WAIT_FAILED)
            self._emit(on.SessionEnded(self.number, InternalFault.of(fault)))
        else:
            self._emit(on.SessionReady(self.number))

    async def _update_face(self, face: FaceChoice) -> RelaydError | None:
        error: RelaydError | None = None
        try:
            if self._session:
                await self._session.update_face(face)
        except asyncio.CancelledError:
            error = SessionFailed("the session is being closed")
        except RelaydError as refusal:
            error = refusal
        except Exception as fault:  # noqa: BLE001 - the relay goes on
            _log.exception(LogEvent.SESSION_FACE_FAILED)
            error = InternalFault.of(fault)
        self._emit(
            on.FaceRefused(self.number, face, error) if error else on.FaceApplied(self.number, face)
        )
        return error

    async def _renew_token(self) -> None:
        renewed = False
        try:
            renewed = self._session is not None and await self._session.renew_token()
        except Exception:  # noqa: BLE001 - the session goes on with the token it has
            _log.exception(LogEvent.SESSION_RENEWAL_FAILED)
        if renewed and self._session:
            self._worker.renew(self._session.token.get_secret_value())
        else:
            self._emit(on.TokenFinal(self.number))

    async def _close(self) -> None:
        try:
            ends = await asyncio.gather(
                self._end_session(), self._worker.end(), return_exceptions=True
            )
            for end in ends:
                if isinstance(end, BaseException):
                    _log.error(LogEvent.SESSION_CLOSE_FAILED, session=self.session_id, exc_info=end)
        finally:
            self._emit(on.SessionClosed(self.number))

    async def _end_session(self) -> None:
        """Cancel calls to the service, and close what it opened."""
        for task in self._calls:
            task.cancel()
        if self._opening and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening}, timeout=OPENING_DEADLINE)
        if self._session:
            await self._session.close(within=CLOSE_DEADLINE)
            self._billed, self._session = self.billed, None

    def _target(self, session: SwapSession) -> LinkTarget:
        live, rtc, video = session.live, self._parts.rtc, self._parts.video
        return LinkTarget(
            kind=rtc.kind,
            channel_id=live.channel_id,
            front_user_id=live.front_user_id,
            algorithm_user_id=live.algorithm_user_id,
            session_id=live.id,
            token=session.token.get_secret_value(),
            token_age=self._parts.clock.now() - session.token_at,
            app_id=live.app_id or rtc.app_id,
            engine=self._parts.engine.name,
            state_directory=str(self._parts.state_directory),
            publish_url=rtc.publish_url.reveal(),
            play_url=rtc.play_url.reveal(),
            geometry=video.geometry,
            fps=video.fps,
            bitrate_kbit=video.bitrate,
            first_frame_timeout=rtc.first_frame_timeout,
            recovery_timeout=RECOVERY_TIMEOUT,
            publish_sound=self._parts.sound is not None and self._parts.sound_settings.publish,
            return_sound=self._parts.sound is not None
            and self._parts.sound_settings.play == "returned",
        )


def _spawn(
    tasks: set[asyncio.Task[Any]], job: Coroutine[Any, Any, T], name: str
) -> asyncio.Task[T]:
    """Run a job in a task that `tasks` keeps alive until it ends."""
    task = asyncio.create_task(job, name=name)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
