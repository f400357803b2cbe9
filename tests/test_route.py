from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from relayd import route as route_module
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.config import RtcSettings, VideoSettings
from relayd.route import Route, RouteParts
from relayd.rtc.link import LinkEvent, LinkEventKind
from tests.test_clock import FakeClock


class Session:
    """An open session; how the service sees it is not asked here."""

    def __init__(self) -> None:
        names = ("id", "channel_id", "front_user_id", "algorithm_user_id", "app_id")
        self.live = SimpleNamespace(
            **dict.fromkeys(names, "x"), front_rtc_token=SecretStr("token-of-the-tests")
        )
        self.opened_at = 0.0
        self.closed = False

    async def wait_ready(self, *, within: float) -> None:
        pass

    async def close(self, *, within: float) -> bool:
        self.closed = True
        return True


class UnstoppableWorker:
    """Joins at once, and cannot be stopped."""

    def __init__(self, *_: Any, on_event: Any, **__: Any) -> None:
        self._tell = on_event

    def start(self) -> None:
        pass

    def join(self, _: object) -> None:
        self._tell(LinkEvent(LinkEventKind.JOINED))
        self._tell(LinkEvent(LinkEventKind.FIRST_PICTURE))

    def stop(self, _: float) -> None:
        raise RuntimeError("cannot join thread before it is started")


async def test_a_session_is_closed_even_if_its_worker_cannot_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
):
    session = Session()

    async def open_session(_: FaceChoice) -> Session:
        return session

    monkeypatch.setattr(route_module, "RtcWorker", UnstoppableWorker)
    keeper = cast("SessionKeeper", SimpleNamespace(open_session=open_session))
    parts = RouteParts(keeper, RtcSettings(), VideoSettings(), FakeClock())
    route = Route(parts, lambda _route, _frame: None)
    await route.open(FaceChoice("http://127.0.0.1:9/a.png"), lambda _stage: None)
    with pytest.raises(RuntimeError):
        await route.close()
    assert session.closed
