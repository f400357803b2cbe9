"""The worker process that carries a session's pictures: one at a time.

A worker that is replaced is stopped first. Its late events and pictures are ignored.
"""

import asyncio
from collections.abc import Callable
from threading import Lock

from relayd.config.settings import SoundSettings
from relayd.errors import InternalFault, LinkError, LinkLost, RelaydError
from relayd.logs import LogEvent, get
from relayd.media.frames import SourceFrame, SwappedFrame
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.parts import LinkParts
from relayd.relay.stall import StallWatch
from relayd.rtc.kinds import worker_environment
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget
from relayd.rtc.process import RtcWorker
from relayd.sound.blocks import OwnSound, ReturnedSound

LEAVE_DEADLINE = 2.0
"""s for the worker to leave the channel before it is killed."""
STOP_DEADLINE = 5.0
"""s that the stop of a worker is awaited: twice what it may take."""

_log = get("link")


class WorkerLink:
    """The link of one session; lives in one event loop."""

    def __init__(self, number: int, parts: LinkParts, emit: Callable[[Event], None]) -> None:
        """Start without a worker; `emit` gets each event of session `number`, in the loop."""
        self._number, self._parts, self._emit = number, parts, emit
        self._loop = asyncio.get_running_loop()
        self._worker: RtcWorker | None = None
        self._lock = asyncio.Lock()
        self._ended = False
        self._send_lock = Lock()
        self._sending = False
        self._stall = StallWatch(
            parts.clock,
            self._loop.call_at,
            parts.rtc.stall_timeout,
            lambda error, last_at: emit(on.PicturesStopped(number, error, last_at)),
        )

    async def start(self) -> None:
        """Start a worker, replacing an existing one; a failure is emitted as an event."""
        async with self._lock:
            await self._stop_worker()
            if self._ended:
                return
            try:
                self._worker = self._make_worker()
                self._worker.start()
            except RelaydError as error:
                self._emit(on.LinkLost(self._number, error))
            except Exception as fault:  # noqa: BLE001 - the relay goes on
                _log.exception(LogEvent.WORKER_START_FAILED)
                self._emit(on.LinkLost(self._number, InternalFault.of(fault)))

    def join(self, target: LinkTarget) -> None:
        """Join a channel, and send pictures from now on."""
        if self._worker:
            try:
                self._worker.join(target)
            except LinkError as error:
                self._emit(on.LinkLost(self._number, error))
            else:
                self._sending = True

    def renew(self, token: str) -> None:
        """Use another token from now on."""
        if self._worker:
            try:
                self._worker.renew(token)
            except LinkError as error:  # the worker reports a lost link itself
                _log.warning(LogEvent.TOKEN_NOT_HANDED_OVER, reason=str(error))

    def publish(self, frame: SourceFrame) -> bool:
        """Send one source picture if possible; called in the pacer's thread."""
        with self._send_lock:
            if not self._sending or self._worker is None:
                return False
            self._stall.sent(self._parts.clock.now())
            self._worker.publish(frame)
            return True

    def publish_sound(self, sound: OwnSound) -> None:
        """Send a block of the voice if possible; called in the sound's thread."""
        with self._send_lock:
            if self._sending and self._worker is not None:
                self._worker.publish_sound(sound)

    async def end(self) -> None:
        """Stop the worker permanently, within STOP_DEADLINE."""
        self._ended = True
        async with self._lock:
            await self._stop_worker()

    async def _stop_worker(self) -> None:
        with self._send_lock:  # no picture may reach a worker whose memory is being freed
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
            _log.error(LogEvent.WORKER_STOP_HANGS, pid=worker.pid)
        elif fault := stopping.exception():
            _log.error(LogEvent.WORKER_STOP_FAILED, pid=worker.pid, exc_info=fault)

    def _make_worker(self) -> RtcWorker:
        def on_event(event: LinkEvent) -> None:
            self._loop.call_soon_threadsafe(self._on_worker_event, worker, event)

        worker = RtcWorker(
            self._parts.video.geometry,
            on_picture=self._take_picture,
            kind=self._parts.rtc.kind,
            engine=self._parts.engine.name,
            environment=worker_environment(self._parts.rtc.kind),
            on_event=on_event,
            on_sound=self._take_sound,
            sound=self._parts.sound is not None and _exchanges_sound(self._parts.sound_settings),
        )
        return worker

    def _take_picture(self, frame: SwappedFrame) -> None:
        """Offer a swapped picture to the outputs; called in the worker's arrival thread."""
        self._parts.gate.put(self._number, frame)
        if self._stall.received(frame.received_at):
            self._loop.call_soon_threadsafe(self._emit, on.PicturesFlow(self._number))

    def _take_sound(self, sound: ReturnedSound) -> None:
        """Offer returned sound of the shown session; called in the worker's sound thread."""
        if self._parts.sound and self._parts.gate.epoch == self._number:
            self._parts.sound.put_returned(sound)

    def _on_worker_event(self, worker: RtcWorker, event: LinkEvent) -> None:
        """Log and pass on an event of the link; ignore those of a replaced worker."""
        if worker is not self._worker:
            return
        if event.kind is LinkEventKind.STATS:
            _log.debug(LogEvent.LINK_STATS, stats=str(event.stats))
        else:
            _log.info(
                LogEvent(f"link.{event.kind.value}"), reason=event.reason or str(event.error or "")
            )
        if event.kind is LinkEventKind.DIED and self._parts.rtc.kind == "webrtc":
            self._parts.engine.worker_died()
        if event.kind is LinkEventKind.FIRST_PICTURE:
            self._stall.start()
        if (session_event := _session_event(self._number, event)) is not None:
            self._emit(session_event)


def _exchanges_sound(settings: SoundSettings) -> bool:
    return settings.publish or settings.play == "returned"


def _session_event(number: int, event: LinkEvent) -> Event | None:
    """Return the session event for an event of the link; None: it is only logged."""
    match event.kind:
        case LinkEventKind.REFUSED | LinkEventKind.LOST | LinkEventKind.DIED:
            return on.LinkLost(number, event.error or LinkLost(event.reason))
        case LinkEventKind.DEGRADED:
            return on.LinkDegraded(number, event.reason)
        case kind:
            simple = _SIMPLE.get(kind)
            return simple(number) if simple else None


_SIMPLE = {
    LinkEventKind.READY: on.LinkReady,
    LinkEventKind.JOINED: on.LinkJoined,
    LinkEventKind.FIRST_PICTURE: on.PicturesFlow,
    LinkEventKind.RECOVERED: on.LinkRecovered,
    LinkEventKind.TOKEN_EXPIRING: on.TokenExpiring,
}
