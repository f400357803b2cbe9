"""A fake relay, and a server over real sockets in front of it."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from relayd.control.access import Access
from relayd.control.api import Pictures, build_app
from relayd.control.server import ControlServer
from relayd.errors import RelaydError
from relayd.media.delay import Spread
from relayd.relay.metrics import Metrics
from relayd.relay.status import DemandState, RelayState, RelayStatus, SoundStatus
from tests.control.credentials import BEARER, TOKEN

SOUND = SoundStatus(
    muted=False,
    silent_for=(),
    delay=0.45,
    target=0.46,
    level=-20.0,
    rate_ppm=-4000.0,
    blocks={"captured": 300, "sent": 0, "played": 299},
    dropped={"captured.full": 2, "played.late": 1},
    gaps=0.5,
    cuts={"pause": 3, "speech": 0, "skip": 0, "resync": 0},
    listeners={"relayd microphone": 1, "other": None},
)
STATUS = RelayStatus(
    name="studio",
    state=RelayState.LIVE,
    reason="",
    since=12.5,
    uptime=100.0,
    source="rtsp://user:***@camera/stream",
    source_alive=True,
    session_id="63f1",
    sessions_open=1,
    fps=20.0,
    delay=Spread(0.31, 0.42, 100),
    own_delay=Spread(0.012, 0.02, 100),
    longest_gap=0.052,
    frames={"source": 30, "shown": 20},
    dropped={"pacer.late": 3, "arrival.replaced": 2},
    reconnects={"link": 1},
    outputs={"/dev/video10": "ok"},
    healthy=True,
    session_seconds=77.5,
    readers={"/dev/video10": 1},
    on_demand=DemandState.LIVE,
    sessions_doubtful=2,
    spent_today=1800.0,
    daily_limit=3600.0,
    source_behind=31.5,
    source_slow="decoding is too slow: 32 s behind",
    source_buffer=4.4,
)


class FakeRelay:
    """Records its calls; fails as the test wants."""

    def __init__(self) -> None:
        self.now = STATUS
        self.asked: list[tuple[str, ...]] = []
        self.failure: RelaydError | None = None

    def change(self, **fields: object) -> None:
        self.now = dataclasses.replace(self.now, **fields)  # type: ignore[arg-type]  # test data

    def status(self) -> RelayStatus:
        return self.now

    def _ask(self, *what: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.asked.append(what)

    async def set_face(self, image: str, landmarks: str) -> None:
        self._ask("face", image, landmarks)

    async def pause(self) -> None:
        self._ask("pause")
        self.change(paused=True, state=RelayState.STANDBY, reason="paused")

    async def resume(self) -> None:
        self._ask("resume")
        self.change(paused=False, state=RelayState.LIVE, reason="")

    async def mute(self) -> None:
        self._ask("mute")
        muted = dataclasses.replace(
            SOUND, muted=True, silent_for=("muted",), level=-100.0, delay=0.0
        )
        self.change(sound=muted)

    async def unmute(self) -> None:
        self._ask("unmute")
        self.change(sound=SOUND)

    def retry_source(self) -> None:
        self._ask("retry")


class FakeFeed:
    """Offers a picture of `size` bytes whose content is its number."""

    def __init__(self, size: int = 400) -> None:
        self.size = size
        self.number = 1

    def latest_jpeg(self, after: int = 0) -> tuple[int, bytes] | None:
        if self.number <= after:
            return None
        return self.number, (b"\xff\xd8picture %06d" % self.number).ljust(self.size, b".")


@pytest.fixture
def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
def feed() -> FakeFeed:
    return FakeFeed()


@pytest.fixture
async def server(relay: FakeRelay, feed: FakeFeed, tmp_path: Path) -> AsyncIterator[ControlServer]:
    app = build_app(relay, Metrics(), Pictures(output=feed), Access(TOKEN))
    server = ControlServer(app, tmp_path / "run" / "control.sock", ("127.0.0.1", 0))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def client(server: ControlServer) -> AsyncIterator[httpx.AsyncClient]:
    assert server.url
    # Plain HTTP: reading all CA certificates would take each client 25 ms.
    made = httpx.AsyncClient(base_url=server.url, headers=BEARER, timeout=5, verify=False)
    async with made as client:
        yield client


@pytest.fixture
def app_of(relay: FakeRelay) -> Callable[..., ControlServer]:
    def make(pictures: Pictures, **where: object) -> ControlServer:
        app = build_app(relay, Metrics(), pictures, Access(TOKEN))
        return ControlServer(app, **where)  # type: ignore[arg-type]  # test data

    return make
