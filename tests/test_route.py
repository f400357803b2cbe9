import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import SecretStr

from relayd import route as route_module
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.config import RtcSettings, VideoSettings
from relayd.errors import LibraryUnavailable, WorkerDied
from relayd.frames import SourceFrame, SwappedFrame
from relayd.route import Route, RouteParts
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget
from tests.test_clock import FakeClock

FACE = FaceChoice("http://127.0.0.1:9/a.png")


class Session:
    """An open session; how the service sees it is not asked here."""

    def __init__(self, *, ready: bool = True) -> None:
        self.ready, self.opened = ready, False
        self.answers_renewal = True
        names = ("id", "channel_id", "front_user_id", "algorithm_user_id", "app_id")
        self.live = SimpleNamespace(
            **dict.fromkeys(names, "x"), front_rtc_token=SecretStr("token-of-the-tests")
        )
        self.token = self.live.front_rtc_token
        self.newer: SecretStr | None = None
        self.opened_at = self.token_at = 0.0
        self.closed = False

    async def wait_ready(self, *, within: float) -> None:
        if not self.ready:
            await asyncio.Event().wait()

    async def renew_token(self) -> bool:
        if not self.answers_renewal:
            await asyncio.Event().wait()
        if self.newer:
            self.token = self.newer
        return self.newer is not None

    async def close(self, *, within: float) -> bool:
        self.closed = True
        return True


class Worker:
    """Joins at once; the newest one is kept."""

    newest: "Worker"

    def __init__(self, *_: Any, on_event: Any, on_picture: Any, **__: Any) -> None:
        self.tell, self._on_picture = on_event, on_picture
        self.token_age = 0.0
        self.tokens: list[str] = []
        Worker.newest = self

    def start(self) -> None:
        self.tell(LinkEvent(LinkEventKind.READY))

    def join(self, target: LinkTarget) -> None:
        self.tokens.append(target.token)
        self.token_age = target.token_age
        self.tell(LinkEvent(LinkEventKind.JOINED))
        self.tell(LinkEvent(LinkEventKind.FIRST_PICTURE))

    def show(self, received_at: float) -> None:
        self._on_picture(SwappedFrame(np.zeros((720, 640), np.uint8), received_at))

    def publish(self, frame: SourceFrame) -> None:
        pass

    def renew(self, token: str) -> None:
        self.tokens.append(token)

    def stop(self, within: float) -> None:
        pass


class UnstoppableWorker(Worker):
    def stop(self, within: float) -> None:
        raise RuntimeError("cannot join thread before it is started")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def open_route(
    monkeypatch: pytest.MonkeyPatch, session: Session, clock: FakeClock, worker: type[Worker]
) -> Route:
    async def open_session(_: FaceChoice) -> Session:
        session.opened = True
        return session

    monkeypatch.setattr(route_module, "RtcWorker", worker)
    keeper = cast("SessionKeeper", SimpleNamespace(open_session=open_session))
    rtc = RtcSettings(kind="webrtc")
    parts = RouteParts(keeper, rtc, VideoSettings(), clock, Path("/nowhere"))
    return Route(parts, lambda _route, _frame: None)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_session_is_closed_even_if_its_worker_cannot_be_stopped(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    session = Session()
    route = open_route(monkeypatch, session, clock, UnstoppableWorker)
    await route.open(FACE, lambda _stage: None)
    with pytest.raises(RuntimeError):
        await route.close()
    assert session.closed


async def test_a_token_that_ends_is_replaced_where_the_service_gives_another(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    session = Session()
    route = open_route(monkeypatch, session, clock, Worker)
    await route.open(FACE, lambda _stage: None)
    session.newer = SecretStr("a-newer-token")
    Worker.newest.tell(LinkEvent(LinkEventKind.TOKEN_EXPIRING))
    await settle()
    assert Worker.newest.tokens == ["token-of-the-tests", "a-newer-token"]
    assert not route.ends_soon
    await route.rejoin(lambda _stage: None)
    assert Worker.newest.tokens == ["a-newer-token"]
    await route.close()


async def test_a_token_that_ends_and_cannot_be_replaced_asks_for_a_successor(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    route = open_route(monkeypatch, Session(), clock, Worker)
    await route.open(FACE, lambda _stage: None)
    Worker.newest.tell(LinkEvent(LinkEventKind.TOKEN_EXPIRING))
    await settle()
    assert route.ends_soon
    assert Worker.newest.tokens == ["token-of-the-tests"]
    await route.close()


async def test_links_that_break_soon_after_they_came_up_are_counted_however_long_they_mend(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    route = open_route(monkeypatch, Session(), clock, Worker)
    await route.open(FACE, lambda _stage: None)
    for expected in (1, 2):
        Worker.newest.show(clock.time + 1)
        clock.time += 20
        await route.rejoin(lambda _stage: None)
        assert route.short_links == expected
    Worker.newest.show(clock.time + 60)
    clock.time += 60
    await route.rejoin(lambda _stage: None)
    assert route.short_links == 0
    await route.close()


class Unloadable(Worker):
    """Its library cannot be loaded."""

    def start(self) -> None:
        error = LibraryUnavailable("no library")
        self.tell(LinkEvent(LinkEventKind.REFUSED, error=error))


async def test_no_session_is_opened_for_a_worker_that_cannot_use_it(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    session = Session()
    route = open_route(monkeypatch, session, clock, Unloadable)
    with pytest.raises(LibraryUnavailable):
        await route.open(FACE, lambda _stage: None)
    assert not session.opened
    await route.close()


class DiesInTheQueue(Worker):
    def start(self) -> None:
        super().start()
        asyncio.get_running_loop().call_later(
            0.01, self.tell, LinkEvent(LinkEventKind.DIED, error=WorkerDied("gone"))
        )


async def test_a_worker_that_dies_ends_the_wait_for_the_sessions_turn(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    session = Session(ready=False)
    route = open_route(monkeypatch, session, clock, DiesInTheQueue)
    with pytest.raises(WorkerDied):
        await route.open(FACE, lambda _stage: None)
    await route.close()
    assert session.closed


async def test_a_renewal_under_way_is_given_up_when_the_route_closes(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    session = Session()
    route = open_route(monkeypatch, session, clock, Worker)
    await route.open(FACE, lambda _stage: None)
    session.answers_renewal = False
    Worker.newest.tell(LinkEvent(LinkEventKind.TOKEN_EXPIRING))
    await settle()
    await route.close()
    assert session.closed


async def test_the_link_is_told_how_old_its_token_is(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    session = Session()
    route = open_route(monkeypatch, session, clock, Worker)
    await route.open(FACE, lambda _stage: None)
    session.token_at = clock.now()
    clock.time += 1000
    await route.rejoin(lambda _stage: None)
    assert Worker.newest.token_age == 1000
    await route.close()


async def test_a_link_that_mended_itself_gets_time_to_show_a_picture(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
):
    route = open_route(monkeypatch, Session(), clock, Worker)
    await route.open(FACE, lambda _stage: None)
    Worker.newest.show(clock.now())
    Worker.newest.tell(LinkEvent(LinkEventKind.DEGRADED, "interrupted"))
    for _ in range(40):  # twice the limit of a stall
        await settle()
        clock.time += 0.2
        route.publish(SourceFrame(np.zeros((720, 640), np.uint8), clock.now()))
        route.check()
    Worker.newest.tell(LinkEvent(LinkEventKind.RECOVERED))
    await settle()
    route.check()
    clock.time += 0.2
    route.check()
    await route.close()
