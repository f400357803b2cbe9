"""One session of the service and the worker that carries its pictures.

It does what the state machine orders and answers with events; it decides nothing. Each order
begins a task of its own and returns at once. `close` ends whatever is going on, and then closes
the session and stops the worker side by side, so that neither waits for the other.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from relayd.akool.session import FaceChoice, SessionKeeper, SwapSession
from relayd.clock import Clock
from relayd.config import RtcSettings, VideoSettings
from relayd.errors import (
    InternalFault,
    LinkLost,
    RelaydError,
    SessionDoubtful,
    SessionFailed,
    WorkerDied,
)
from relayd.frames import SourceFrame, SwappedFrame
from relayd.logs import get
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.gate import FrameGate
from relayd.relay.sessions import QUEUE_TIMEOUT, RECOVERY_TIMEOUT
from relayd.relay.stall import StallWatch
from relayd.rtc.kinds import worker_environment
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget
from relayd.rtc.process import RtcWorker

LEAVE_DEADLINE = 2.0
"""s for the worker to say goodbye before it is killed."""
STOP_DEADLINE = 5.0
"""s after which nobody waits any more for a worker to be stopped: twice what it may take."""
CLOSE_DEADLINE = 10.0
"""s for the service to confirm a close; after that the journal keeps the session."""
OPENING_DEADLINE = 25.0
"""s for an opening that is broken off to end: a create in flight is waited for, and closed."""

T = TypeVar("T")

_log = get("session")


@dataclass(frozen=True)
class LinkParts:
    """What every session of a relay is made from."""

    keeper: SessionKeeper
    rtc: RtcSettings
    video: VideoSettings
    clock: Clock
    state_directory: Path
    """Where a link's library may keep its logs and caches."""


class SessionLink:
    """A session and its worker; lives in one event loop."""

    def __init__(
        self, number: int, parts: LinkParts, gate: FrameGate, emit: Callable[[Event], None]
    ) -> None:
        """Have neither yet; `emit` gets each event, in the event loop."""
        self.number = number
        self._parts, self._gate, self._emit = parts, gate, emit
        self._loop = asyncio.get_running_loop()
        self._worker: RtcWorker | None = None
        self._session: SwapSession | None = None
        self._handing_over = Lock()
        self._sending = False
        self._stall = StallWatch(
            parts.clock,
            self._loop.call_at,
            parts.rtc.stall_timeout,
            lambda error, last_at: emit(on.PicturesStopped(number, error, last_at)),
        )
        self._billed = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        """Calls to the service on behalf of the open session."""
        self._starting: set[asyncio.Task[Any]] = set()
        self._worker_turn = asyncio.Lock()
        self._closing = False

    @property
    def session_id(self) -> str | None:
        """The service's id of the session, while it is open."""
        return self._session.live.id if self._session else None

    @property
    def billed(self) -> float:
        """Seconds that the service has counted for the session so far, or counted in all."""
        return self._session.seconds() if self._session else self._billed

    # Orders.

    def start(self) -> None:
        """Start a worker, in place of the one there is."""
        _keep(self._starting, self._restart_worker(), "relayd-worker-start")

    def open(self, face: FaceChoice) -> None:
        """Ask the service for the session, and wait for its turn."""
        self._opening = asyncio.create_task(self._open(face), name="relayd-session-open")

    def join(self) -> None:
        """Join the session's channel."""
        if self._worker is None or self._session is None:
            return  # what ended it is told by an event of its own
        live, rtc, video = self._session.live, self._parts.rtc, self._parts.video
        target = LinkTarget(
            kind=rtc.kind,
            channel_id=live.channel_id,
            front_user_id=live.front_user_id,
            algorithm_user_id=live.algorithm_user_id,
            session_id=live.id,
            token=self._session.token.get_secret_value(),
            token_age=self._parts.clock.now() - self._session.token_at,
            app_id=live.app_id or rtc.app_id,
            state_directory=str(self._parts.state_directory),
            publish_url=rtc.publish_url,
            play_url=rtc.play_url,
            geometry=video.geometry,
            fps=video.fps,
            bitrate_kbit=video.bitrate,
            first_frame_timeout=rtc.first_frame_timeout,
            recovery_timeout=RECOVERY_TIMEOUT,
        )
        with suppress(WorkerDied):  # which is told by an event of its own
            self._worker.join(target)
            self._sending = True

    def update_face(self, face: FaceChoice) -> asyncio.Task[RelaydError | None]:
        """Put another face on, within the session; the task gives why that was refused."""
        return _keep(self._calls, self._update_face(face), "relayd-session-face")

    def renew_token(self) -> None:
        """Ask for a newer token and hand it to the link."""
        _keep(self._calls, self._renew_token(), "relayd-session-token")

    def close(self) -> asyncio.Task[None]:
        """Close the session and stop the worker, whatever is going on; the task never fails."""
        self._closing = True
        return asyncio.create_task(self._close(), name="relayd-session-close")

    def publish(self, frame: SourceFrame) -> bool:
        """Send one source picture, if it can be now; called by the pacer's thread."""
        with self._handing_over:
            if not self._sending or self._worker is None:
                return False
            self._stall.sent(self._parts.clock.now())
            self._worker.publish(frame)
            return True

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
        except SessionDoubtful as error:
            self._emit(on.SessionDoubtful(self.number, error))
            return
        except RelaydError as error:
            self._emit(on.SessionRefused(self.number, error))
            return
        except Exception as fault:  # noqa: BLE001 - the relay goes on
            _log.exception("session.open_failed")
            self._emit(on.SessionDoubtful(self.number, _unexpected(fault)))
            return
        self._emit(on.SessionOpened(self.number))
        try:
            await self._session.wait_ready(within=QUEUE_TIMEOUT)
        except RelaydError as error:
            self._emit(on.SessionEnded(self.number, error))
        except Exception as fault:  # noqa: BLE001 - the relay goes on
            _log.exception("session.wait_failed")
            self._emit(on.SessionEnded(self.number, _unexpected(fault)))
        else:
            self._emit(on.SessionReady(self.number))

    async def _update_face(self, face: FaceChoice) -> RelaydError | None:
        error: RelaydError | None = None
        try:
            if self._session is None:
                raise SessionFailed("the session is closed")
            await self._session.update_face(face)
        except asyncio.CancelledError:
            error = SessionFailed("the session is being closed")
        except RelaydError as refusal:
            error = refusal
        except Exception as fault:  # noqa: BLE001 - the relay goes on
            _log.exception("session.face_failed")
            error = _unexpected(fault)
        self._emit(
            on.FaceRefused(self.number, face, error) if error else on.FaceApplied(self.number, face)
        )
        return error

    async def _renew_token(self) -> None:
        renewed = False
        try:
            renewed = self._session is not None and await self._session.renew_token()
        except Exception:  # noqa: BLE001 - the session goes on with the token it has
            _log.exception("session.renewal_failed")
        if not renewed or self._session is None:
            self._emit(on.TokenFinal(self.number))
        elif self._worker:
            with suppress(WorkerDied):  # which is told by an event of its own
                self._worker.renew(self._session.token.get_secret_value())

    async def _close(self) -> None:
        try:
            ends = await asyncio.gather(
                self._end_session(), self._stop_worker(), return_exceptions=True
            )
            for end in ends:
                if isinstance(end, BaseException):
                    _log.error("session.close_failed", session=self.session_id, exc_info=end)
        finally:
            self._emit(on.SessionClosed(self.number))

    async def _end_session(self) -> None:
        """Break off what is asked of the service, and close what it opened."""
        for task in self._calls:
            task.cancel()
        if self._opening and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening}, timeout=OPENING_DEADLINE)
        if self._session:
            await self._session.close(within=CLOSE_DEADLINE)
            self._billed, self._session = self.billed, None

    async def _restart_worker(self) -> None:
        await self._stop_worker()
        async with self._worker_turn:
            if self._closing:
                return
            try:
                self._worker = self._make_worker()
                self._worker.start()
            except RelaydError as error:
                self._emit(on.LinkLost(self.number, error))
            except Exception as fault:  # noqa: BLE001 - the relay goes on
                _log.exception("worker.start_failed")
                self._emit(on.LinkLost(self.number, _unexpected(fault)))

    def _make_worker(self) -> RtcWorker:
        def tell(event: LinkEvent) -> None:
            self._loop.call_soon_threadsafe(self._on_worker_event, worker, event)

        worker = RtcWorker(
            self._parts.video.geometry,
            on_picture=self._take_picture,
            kind=self._parts.rtc.kind,
            environment=worker_environment(self._parts.rtc.kind),
            on_event=tell,
        )
        return worker

    async def _stop_worker(self) -> None:
        async with self._worker_turn:
            with self._handing_over:  # no picture may reach a worker whose memory is freed
                self._sending = False
                worker, self._worker = self._worker, None
            self._stall.stop()
            if worker is None:
                return
            stopping = asyncio.create_task(
                asyncio.to_thread(worker.stop, LEAVE_DEADLINE), name="relayd-worker-stop"
            )
            await asyncio.wait({stopping}, timeout=STOP_DEADLINE)
            if not stopping.done():
                _log.error("worker.stop_hangs", pid=worker.pid)
            elif fault := stopping.exception():
                _log.error("worker.stop_failed", pid=worker.pid, exc_info=fault)

    # What the worker tells.

    def _take_picture(self, frame: SwappedFrame) -> None:
        """Offer a swapped picture to the outputs; in the worker's arrival thread."""
        self._gate.put(self.number, frame)
        if self._stall.received(frame.received_at):
            self._loop.call_soon_threadsafe(self._emit, on.PicturesFlow(self.number))

    def _on_worker_event(self, worker: RtcWorker, event: LinkEvent) -> None:
        """Pass on what the link tells; nothing from a worker that was replaced."""
        if worker is not self._worker:
            return
        if event.kind is not LinkEventKind.STATS:
            _log.info(f"link.{event.kind.value}", reason=event.reason or str(event.error or ""))
        match event.kind:
            case LinkEventKind.READY:
                self._emit(on.LinkReady(self.number))
            case LinkEventKind.JOINED:
                self._emit(on.LinkJoined(self.number))
            case LinkEventKind.FIRST_PICTURE:
                self._stall.start()
                self._emit(on.PicturesFlow(self.number))
            case LinkEventKind.DEGRADED:
                self._emit(on.LinkDegraded(self.number, event.reason))
            case LinkEventKind.RECOVERED:
                self._emit(on.LinkRecovered(self.number))
            case LinkEventKind.TOKEN_EXPIRING:
                self._emit(on.TokenExpiring(self.number))
            case LinkEventKind.REFUSED | LinkEventKind.LOST | LinkEventKind.DIED:
                self._emit(on.LinkLost(self.number, event.error or LinkLost(event.reason)))
            case LinkEventKind.PUBLISHING | LinkEventKind.STATS | LinkEventKind.LEFT:
                pass  # of interest to the log alone


def _keep(tasks: set[asyncio.Task[Any]], job: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run a job in a task that is kept in `tasks` until it ends."""
    task = asyncio.create_task(job, name=name)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _unexpected(fault: Exception) -> InternalFault:
    return InternalFault(f"unexpected {type(fault).__name__}: {fault}")
