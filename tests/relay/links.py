"""A fake session and worker, to test the session link between them."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import SecretStr

from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.clock import MonotonicClock
from relayd.config.settings import RtcSettings, VideoSettings
from relayd.errors import RelaydError
from relayd.media.frames import SourceFrame, SwappedFrame
from relayd.media.slots import LatestSlot
from relayd.relay import worker_link
from relayd.relay.events import Event
from relayd.relay.gate import FrameGate
from relayd.relay.parts import LinkParts
from relayd.relay.session_link import SessionLink
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget

FACE = FaceChoice("http://127.0.0.1:9/a.png")


class Session:
    """An open session, without a service."""

    def __init__(self) -> None:
        self.ready, self.answers_renewal = True, True
        names = ("id", "channel_id", "front_user_id", "algorithm_user_id", "app_id")
        self.live = SimpleNamespace(**dict.fromkeys(names, "x"))
        self.token = SecretStr("token-of-the-tests")
        self.newer: SecretStr | None = None
        self.token_at = 0.0
        self.refusal: RelaydError | None = None
        self.faces: list[FaceChoice] = []
        self.closed = asyncio.Event()

    def seconds(self) -> float:
        return 7.0

    async def wait_ready(self, *, within: float) -> None:
        if not self.ready:
            await asyncio.Event().wait()

    async def update_face(self, face: FaceChoice) -> None:
        if self.refusal:
            raise self.refusal
        self.faces.append(face)

    async def renew_token(self) -> bool:
        if not self.answers_renewal:
            await asyncio.Event().wait()
        if self.newer:
            self.token = self.newer
        return self.newer is not None

    async def close(self, *, within: float) -> bool:
        self.closed.set()
        return True


class Keeper:
    """Opens the one session that it has."""

    def __init__(self, session: Session) -> None:
        self.session, self.doubtful = session, 0
        self.refusal: BaseException | None = None

    async def open_session(self, _: FaceChoice) -> Session:
        if self.refusal:
            raise self.refusal
        return self.session


class Worker:
    """Joins at once; the newest one is kept."""

    newest: "Worker"
    pid = 1

    def __init__(self, *_: Any, on_event: Any, on_picture: Any, **__: Any) -> None:
        self.emit, self._on_picture = on_event, on_picture
        self.targets: list[LinkTarget] = []
        self.tokens: list[str] = []
        self.stopped = False
        Worker.newest = self

    def start(self) -> None:
        self.emit(LinkEvent(LinkEventKind.READY))

    def join(self, target: LinkTarget) -> None:
        self.targets.append(target)
        self.emit(LinkEvent(LinkEventKind.JOINED))
        self.emit(LinkEvent(LinkEventKind.FIRST_PICTURE))

    def show(self, received_at: float) -> None:
        self._on_picture(SwappedFrame(np.zeros((720, 640), np.uint8), received_at))

    def publish(self, frame: SourceFrame) -> None:
        pass

    def renew(self, token: str) -> None:
        self.tokens.append(token)

    def stop(self, within: float) -> None:
        self.stopped = True


class Rig:
    """One session link, and the events that it emits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, worker: type[Worker] = Worker) -> None:
        monkeypatch.setattr(worker_link, "RtcWorker", worker)
        self.session = Session()
        self.keeper = Keeper(self.session)
        self.clock = MonotonicClock()
        self.events: list[Event] = []
        self.gate = FrameGate(LatestSlot(), holds=False)
        self.parts = LinkParts(
            cast("SessionKeeper", self.keeper),
            RtcSettings(kind="webrtc", stall_timeout=0.2),
            VideoSettings(),
            self.clock,
            self.gate,
            Path("/nowhere"),
        )
        self._received = asyncio.Event()
        self.link = SessionLink(1, self.parts, self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._received.set()

    @property
    def event_names(self) -> list[str]:
        """The names of the events so far."""
        return [type(event).__name__ for event in self.events]

    async def until(self, name: str) -> Event:
        """Wait until an event of this class has been emitted."""
        async with asyncio.timeout(5):
            while name not in self.event_names:
                self._received.clear()
                await self._received.wait()
        return self.events[self.event_names.index(name)]

    async def live(self) -> None:
        """Go from nothing to the first picture."""
        self.link.start()
        await self.until("LinkReady")
        self.link.open(FACE)
        await self.until("SessionReady")
        self.link.join()
        await self.until("PicturesFlow")

    def send(self) -> None:
        """Send a source picture."""
        self.link.publish(SourceFrame(np.zeros((720, 640), np.uint8), self.clock.now()))
