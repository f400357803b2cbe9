"""A route: one session of the service and the worker that carries its pictures.

Its life: `open` starts the worker and, once that has its library, asks for the session, waits
for its turn, joins the channel and returns at the first swapped picture.
`check` then says whether the link still holds; `rejoin` brings a new worker into the same
session. `close` ends both and is safe at any point.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from relayd.akool.session import FaceChoice, SessionKeeper, SwapSession
from relayd.clock import Clock
from relayd.config import RtcSettings, VideoSettings
from relayd.errors import JoinFailed, LinkLost, LinkStalled, RelaydError, WorkerDied
from relayd.frames import SourceFrame, SwappedFrame
from relayd.logs import get
from relayd.relay.status import RelayState
from relayd.rtc.kinds import worker_environment
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget
from relayd.rtc.process import RtcWorker

READY_TIMEOUT = 20.0
"""s for a worker to load its library; half a second is usual, a cold disk takes a few."""
QUEUE_TIMEOUT = 120.0
"""s that a session may wait for its turn; starts of 5 to 15 s are usual."""
JOIN_TIMEOUT = 15.0
"""s from the order to join until the channel is joined."""
RECOVERY_TIMEOUT = 15.0
"""s that a link may mend itself before a new worker is tried: some five rejoins."""
SENDING_GAP = 0.5
"""s without a picture sent after which silence of the engine is no fault of the link."""
LEAVE_DEADLINE = 2.0
"""s for the worker to say goodbye before it is killed."""
STEADY_AFTER = 10.0
"""s that a link stays up after which its end counts as the first again."""
CLOSE_DEADLINE = 10.0
"""s for the service to confirm a close; after that the journal keeps the session."""

_log = get("route")


@dataclass(frozen=True)
class RouteParts:
    """What every route of a relay is made from."""

    keeper: SessionKeeper
    rtc: RtcSettings
    video: VideoSettings
    clock: Clock
    state_directory: Path
    """Where a link's library may keep its logs and caches."""


class Route:
    """One session and its worker; used from one event loop."""

    def __init__(
        self, parts: RouteParts, on_swapped: Callable[["Route", SwappedFrame], None]
    ) -> None:
        """Plan a route; `on_swapped` gets each swapped picture, in the worker's arrival thread."""
        self._parts, self._on_swapped = parts, on_swapped
        self._loop = asyncio.get_running_loop()
        self._worker: RtcWorker | None = None
        self._session: SwapSession | None = None
        self._handing_over = Lock()
        self._ready = asyncio.Event()
        self._joined = asyncio.Event()
        self._first_picture = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: RelaydError | None = None
        self._billed = 0.0
        self._sending = False
        self._sent_at = self._expecting_since = self._picture_at = float("-inf")
        self._live_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None
        self.degraded = ""
        """Why the link is reconnecting by itself; empty while it is well."""
        self.short_links = 0
        """Links in a row that ended soon after they had come up."""
        self.ends_soon = False
        """The token runs out and the service has no other: the session needs a successor."""

    @property
    def session_id(self) -> str | None:
        """The service's id of the session, once there is one."""
        return self._session.live.id if self._session else None

    @property
    def billed(self) -> float:
        """Seconds that the service has counted for the session so far, or counted in all."""
        if self._session is None:
            return self._billed
        return self._parts.clock.now() - self._session.opened_at

    async def open(self, face: FaceChoice, on_stage: Callable[[RelayState], None]) -> None:
        """Go from nothing to the first swapped picture.

        `on_stage` hears of each stage. Raises ServiceError, SessionFailed or LinkError; the
        caller closes the route whatever happens.
        """
        on_stage(RelayState.OPENING)
        self._start_worker()
        # A session bills from its first moment: none is opened for a worker that cannot use it.
        late = JoinFailed(f"the RTC library does not load within {READY_TIMEOUT:g} s")
        await self._reach(self._ready, READY_TIMEOUT, late)
        self._session = await self._parts.keeper.open_session(face)
        on_stage(RelayState.QUEUED)
        await self._unless_failed(self._session.wait_ready(within=QUEUE_TIMEOUT))
        await self._join(on_stage)

    async def rejoin(self, on_stage: Callable[[RelayState], None]) -> None:
        """Bring a new worker into the same session, up to its first swapped picture."""
        lasted = self._picture_at - self._live_at
        self.short_links = self.short_links + 1 if lasted < STEADY_AFTER else 0
        await self._stop_worker()
        self._failure, self.degraded = None, ""
        for event in (self._ready, self._joined, self._first_picture, self._failed):
            event.clear()
        self._start_worker()
        await self._join(on_stage)

    async def update_face(self, face: FaceChoice) -> None:
        """Put another face on, within the session."""
        if self._session:
            await self._session.update_face(face)

    def publish(self, frame: SourceFrame) -> bool:
        """Send one source picture, if it can be now; called by the pacer's thread."""
        with self._handing_over:
            if not self._sending or self._worker is None:
                return False
            now = self._parts.clock.now()
            if now - self._sent_at > SENDING_GAP:
                self._expecting_since = now
            self._sent_at = now
            self._worker.publish(frame)
            return True

    def check(self) -> None:
        """Raise the LinkError that ended the link, or LinkStalled when no picture comes back."""
        if self._failure:
            raise self._failure
        now, limit = self._parts.clock.now(), self._parts.rtc.stall_timeout
        if self.degraded:
            limit += RECOVERY_TIMEOUT  # the link mends itself, or says that it cannot
        if now - self._sent_at > SENDING_GAP:
            return  # the engine has nothing to swap
        if now - max(self._picture_at, self._expecting_since) > limit:
            raise LinkStalled(f"no swapped picture for {limit:g} s")

    async def close(self) -> bool:
        """Leave the channel and close the session; True when the service confirmed."""
        try:
            if self._renewing:
                self._renewing.cancel()
                await asyncio.gather(self._renewing, return_exceptions=True)
            await self._stop_worker()
        finally:  # whatever became of the worker, the session bills until it is closed
            confirmed = await self._close_session()
        return confirmed

    async def _close_session(self) -> bool:
        if self._session is None:
            return True
        confirmed = await self._session.close(within=CLOSE_DEADLINE)
        self._billed, self._session = self.billed, None
        return confirmed

    async def _join(self, on_stage: Callable[[RelayState], None]) -> None:
        assert self._session is not None
        assert self._worker is not None
        on_stage(RelayState.JOINING)
        live, rtc = self._session.live, self._parts.rtc
        self._worker.join(
            LinkTarget(
                kind=rtc.kind,
                session_id=live.id,
                channel_id=live.channel_id,
                front_user_id=live.front_user_id,
                algorithm_user_id=live.algorithm_user_id,
                token=self._session.token.get_secret_value(),
                token_age=self._parts.clock.now() - self._session.token_at,
                app_id=live.app_id or rtc.app_id,
                state_directory=str(self._parts.state_directory),
                publish_url=rtc.publish_url,
                play_url=rtc.play_url,
                geometry=self._parts.video.geometry,
                fps=self._parts.video.fps,
                bitrate_kbit=self._parts.video.bitrate,
                first_frame_timeout=rtc.first_frame_timeout,
                recovery_timeout=RECOVERY_TIMEOUT,
            )
        )
        self._sending = True
        await self._reach(
            self._joined, JOIN_TIMEOUT, JoinFailed(f"channel not joined within {JOIN_TIMEOUT:g} s")
        )
        on_stage(RelayState.WAITING)
        limit = rtc.first_frame_timeout
        await self._reach(
            self._first_picture, limit, LinkStalled(f"no swapped picture within {limit:g} s")
        )
        self._live_at = self._parts.clock.now()

    async def _reach(self, goal: asyncio.Event, limit: float, late: RelaydError) -> None:
        """Wait for `goal`, which a failure sets too; raise the failure, or `late`."""
        try:
            async with asyncio.timeout(limit):
                await goal.wait()
        except TimeoutError:
            raise late from None
        if self._failure:
            raise self._failure

    async def _unless_failed(self, job: Coroutine[Any, Any, object]) -> None:
        """Wait for a job, but no longer than the link holds; raise what ends either."""
        tasks = asyncio.ensure_future(job), asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._failure:
                raise self._failure
            tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start_worker(self) -> None:
        worker = RtcWorker(
            self._parts.video.geometry,
            on_picture=self._take_picture,
            kind=self._parts.rtc.kind,
            environment=worker_environment(self._parts.rtc.kind),
            on_event=lambda event: self._from_thread(worker, event),
        )
        self._worker = worker
        worker.start()

    async def _stop_worker(self) -> None:
        with self._handing_over:  # no picture may reach a worker whose memory is being freed
            self._sending = False
            worker, self._worker = self._worker, None
        if worker:
            await asyncio.to_thread(worker.stop, LEAVE_DEADLINE)

    def _take_picture(self, frame: SwappedFrame) -> None:
        """Pass on a swapped picture; in the worker's arrival thread."""
        self._picture_at = frame.received_at
        self._on_swapped(self, frame)

    def _from_thread(self, worker: RtcWorker, event: LinkEvent) -> None:
        self._loop.call_soon_threadsafe(self._hear_worker, worker, event)

    def _hear_worker(  # noqa: C901 - one row an event
        self, worker: RtcWorker, event: LinkEvent
    ) -> None:
        """Take in what the link tells; ignored from a worker that was replaced."""
        if worker is not self._worker:
            return
        match event.kind:
            case LinkEventKind.READY:
                self._ready.set()
            case LinkEventKind.JOINED:
                self._joined.set()
            case LinkEventKind.FIRST_PICTURE:
                self._first_picture.set()
            case LinkEventKind.DEGRADED:
                self.degraded = event.reason
            case LinkEventKind.RECOVERED:
                self.degraded = ""
                self._expecting_since = self._parts.clock.now()
            case LinkEventKind.TOKEN_EXPIRING:
                if self._renewing is None or self._renewing.done():
                    self._renewing = asyncio.create_task(self._renew(), name="relayd-token")
            case LinkEventKind.REFUSED | LinkEventKind.LOST | LinkEventKind.DIED:
                self._fail(event.error or LinkLost(event.reason))
            case _:
                pass  # of interest to the log alone
        if event.kind is not LinkEventKind.STATS:
            _log.info(f"link.{event.kind.value}", reason=event.reason or str(event.error or ""))

    async def _renew(self) -> None:
        """Give the link a newer token, if the service has one."""
        if self._session is None or not await self._session.renew_token():
            self.ends_soon = True
            return
        if self._worker:
            with suppress(WorkerDied):  # which is told by an event of its own
                self._worker.renew(self._session.token.get_secret_value())

    def _fail(self, error: RelaydError) -> None:
        self._failure = error
        for event in (self._ready, self._joined, self._first_picture, self._failed):
            event.set()
