import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relayd.media.frames import I420, Geometry
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget
from relayd.rtc.webrtc.engine import PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer
from relayd.rtc.webrtc.link import WebRtcLink
from relayd.sound.blocks import BLOCK_SECONDS, Samples

GEOMETRY = Geometry(320, 240)
TOKEN = "front-token-0815"
TIMEOUT = 15.0  # s; a connection takes far under one


def draw_picture(geometry: Geometry = GEOMETRY, shift: int = 0) -> I420:
    """A ramp with four blocks of colour: survives a codec, and no two regions are alike."""
    picture = np.empty(geometry.shape, np.uint8)
    ramp = np.linspace(30 + shift, 200 + shift, geometry.width).astype(np.uint8)
    picture[: geometry.height] = ramp
    chroma = picture[geometry.height :].reshape(2, geometry.height // 2, geometry.width // 2)
    half = geometry.width // 4
    chroma[0, :, :half], chroma[0, :, half:] = 80, 170
    chroma[1, : geometry.height // 4], chroma[1, geometry.height // 4 :] = 90, 160
    return picture


def psnr(one: I420, other: I420) -> float:
    """Peak signal-to-noise ratio over all planes in dB; 30 is a good picture."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def wait_for(condition: Callable[[], object], within: float = TIMEOUT) -> bool:
    """Wait until `condition` holds; False when it did not in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@dataclass
class Received:
    """One request the server got."""

    method: str
    path: str
    token: str


@dataclass
class EchoServer:
    """A WHIP and WHEP server whose swap engine inverts; each endpoint can misbehave."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    offers: dict[str, str] = field(default_factory=dict)
    """The newest of each kind."""
    whip: Callable[[Request], Response | None] = lambda _: None
    """Answers a WHIP POST in place of the server."""
    whep: Callable[[Request], Response | None] = lambda _: None
    locate: Callable[[str], dict[str, str]] = lambda path: {"Location": path}
    echo: Callable[[I420], I420] = lambda picture: 255 - picture
    delay: float = 0.0
    """s before a POST is answered."""
    sound: bool = False
    """Whether sound is taken, and echoed."""
    peers: dict[str, AiortcPeer] = field(default_factory=dict)
    loop: asyncio.AbstractEventLoop | None = None

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/{channel}/{user}/{kind}", self._post, methods=["POST"]),
                Route("/{channel}/{user}/{kind}/{number}", self._delete, methods=["DELETE"]),
            ]
        )

    def posts(self, kind: str) -> list[Received]:
        return [one for one in self.requests if one.method == "POST" and one.path.endswith(kind)]

    def deletes(self, kind: str = "") -> list[Received]:
        return [one for one in self.requests if one.method == "DELETE" and kind in one.path]

    def run(self, work: Callable[[AiortcPeer], object], kind: str) -> None:
        """Do something to the newest peer of one kind, in the server's loop."""

        async def do() -> None:
            paths = [path for path in self.peers if f"/{kind}/" in path]
            result = work(self.peers[paths[-1]])
            if asyncio.iscoroutine(result):
                await result

        assert self.loop
        asyncio.run_coroutine_threadsafe(do(), self.loop).result(5)

    def _record(self, request: Request) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.requests.append(Received(request.method, request.url.path, token))

    async def _post(self, request: Request) -> Response:
        self._record(request)
        kind = request.path_params["kind"]
        offer = self.offers[kind] = (await request.body()).decode()
        await asyncio.sleep(self.delay)
        if answer := (self.whip if kind == "whip" else self.whep)(request):
            return answer
        path = f"{request.url.path}/{len(self.requests)}"
        peer = AiortcPeer(
            geometry=GEOMETRY,
            fps=20,
            bitrate_kbit=2000,
            on_state=lambda state: self._on_state(path, state),
            on_picture=self._swap,
            on_sound=self._echo_sound if self.sound else None,
            sends_sound=self.sound,
        )
        self.peers[path] = peer
        sdp = await peer.answer(offer)
        return Response(sdp, 201, self.locate(path), media_type="application/sdp")

    def _on_state(self, path: str, state: PeerState) -> None:
        if state in (PeerState.DISCONNECTED, PeerState.FAILED):
            self.peers.pop(path, None)

    async def _delete(self, request: Request) -> Response:
        self._record(request)
        if peer := self.peers.pop(request.url.path, None):
            await peer.close()
        return Response(status_code=200)

    def _swap(self, picture: I420, received_at: float) -> None:
        swapped = self.echo(picture)
        for path, peer in self.peers.items():
            if "/whep/" in path:
                peer.push(swapped, received_at)

    def _echo_sound(self, samples: Samples, at: float) -> None:
        for path, peer in self.peers.items():
            if "/whep/" in path:
                peer.push_sound(samples, at)

    async def serve(self, listener: socket.socket, stop: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        config = uvicorn.Config(self.app(), log_level="critical", ws="none", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listener]))
        while not stop.is_set():  # noqa: ASYNC110 - set from another thread
            await asyncio.sleep(0.02)
        server.should_exit = server.force_exit = True
        await serving
        for peer in list(self.peers.values()):
            await peer.close()


def _run_echo_server() -> Iterator[EchoServer]:
    listener = socket.create_server(("127.0.0.1", 0))
    echo = EchoServer(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(echo.serve(listener, stop)))
    thread.start()
    yield echo
    stop.set()
    thread.join()
    listener.close()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    yield from _run_echo_server()


@pytest.fixture
def other_server() -> Iterator[EchoServer]:
    yield from _run_echo_server()


def target_of(server: EchoServer, **changes: object) -> LinkTarget:
    values: dict[str, object] = {
        "kind": "webrtc",
        "channel_id": "channel one",  # the space must be percent-encoded
        "front_user_id": "1",
        "algorithm_user_id": "2",
        "token": TOKEN,
        "geometry": GEOMETRY,
        "fps": 20.0,
        "bitrate_kbit": 2000,
        "token_age": 0.0,
        "session_id": "session one",
        "app_id": "",
        "state_directory": "",
        "publish_url": server.url + "/{channel_id}/{front_user_id}/whip",
        "play_url": server.url + "/{channel_id}/{algorithm_user_id}/whep",
        "first_frame_timeout": 10.0,
        "recovery_timeout": 15.0,
        "engine": "aiortc",
    }
    return LinkTarget(**(values | changes))  # type: ignore[arg-type]  # values of several types


class EventCollector:
    """Collects a link's events and pictures."""

    def __init__(self) -> None:
        self.events: list[LinkEvent] = []
        self.pictures: list[tuple[I420, float]] = []
        self.blocks: list[tuple[Samples, float]] = []

    def on_event(self, event: LinkEvent) -> None:
        self.events.append(event)

    def on_picture(self, picture: I420, received_at: float) -> None:
        self.pictures.append((picture.copy(), received_at))

    def on_sound(self, samples: Samples, received_at: float) -> None:
        self.blocks.append((samples, received_at))

    def kinds(self) -> list[LinkEventKind]:
        return [event.kind for event in self.events if event.kind is not LinkEventKind.STATS]

    def wait_for(self, kind: LinkEventKind, within: float = TIMEOUT) -> LinkEvent:
        """Wait for an event of this kind and return the newest."""
        assert wait_for(lambda: kind in self.kinds(), within), f"no {kind}: {self.events}"
        return [event for event in self.events if event.kind is kind][-1]


@pytest.fixture
def collector() -> EventCollector:
    return EventCollector()


Links = Callable[[LinkTarget, EventCollector], WebRtcLink]


@pytest.fixture
def links() -> Iterator[Links]:
    """Makes links and leaves each at the end."""
    made: list[WebRtcLink] = []

    def make(target: LinkTarget, collector: EventCollector) -> WebRtcLink:
        link = WebRtcLink(target, collector.on_picture, collector.on_event, collector.on_sound)
        made.append(link)
        link.join()
        return link

    yield make
    for link in made:
        link.leave(time.monotonic() + 3)


class Pump:
    """Pushes the test picture at 20 fps until the test ends."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, publish: Callable[[I420, float], None], picture: I420) -> None:
        def run() -> None:
            while not self._stop.wait(0.05):
                publish(picture, time.monotonic())

        self._run(run)

    def speak(self, publish: Callable[[Samples, float], None], block: Samples) -> None:
        """Push the block 100 times a second as well."""

        def run() -> None:
            due = time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                publish(block, due)
                due += BLOCK_SECONDS

        self._run(run)

    def _run(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@dataclass(frozen=True)
class Kit:
    """The helpers above, for test modules: they cannot import this file."""

    pump: Pump
    geometry: Geometry = GEOMETRY
    token: str = TOKEN
    timeout: float = TIMEOUT
    picture: Callable[..., I420] = draw_picture
    psnr: Callable[[I420, I420], float] = psnr
    wait_for: Callable[..., bool] = wait_for
    target: Callable[..., LinkTarget] = target_of


@pytest.fixture
def kit() -> Iterator[Kit]:
    kit = Kit(Pump())
    yield kit
    kit.pump.stop()
