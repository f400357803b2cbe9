"""A running emulator, and clients that use it as a relay or a browser would."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import relayd.emulator
from relayd.emulator.account import AccountRules
from relayd.emulator.app import FACE_THREADS
from relayd.emulator.images import png
from relayd.emulator.server import EmulatorServer, EmulatorSettings
from relayd.emulator.sessions import SessionRules
from relayd.emulator.swap import decode_image, find_faces
from relayd.http.client import Answer, HttpClient
from relayd.media.frames import I420, Geometry
from relayd.rtc.webrtc.engine import PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer
from relayd.sound.blocks import BLOCK_SECONDS, Samples

MEDIA = Path(relayd.emulator.__file__).parent / "media"
PATHS = {
    "getToken": "/api/open/v3/getToken",
    "detect_faces": "/interface/detect-api/detect_faces",
    "create": "/api/open/v3/faceswap/live/create",
    "update": "/api/open/v3/faceswap/live/update",
    "close": "/api/open/v3/faceswap/live/close",
    "info": "/api/open/v3/faceswap/live/info",
}
OPTS = "262,175:363,175:313,215:272,279"
FPS = 20


class RunningEmulator:
    """An EmulatorServer on its own thread."""

    def __init__(self, **settings: Any) -> None:
        ready = threading.Event()
        self.server = EmulatorServer(
            EmulatorSettings(port=0, **settings), on_ready=lambda _url: ready.set()
        )
        self.url = self.server.url
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve()), name="relayd-emulator-test"
        )
        self._thread.start()
        assert ready.wait(20)

    def stop(self) -> None:
        self.server.stop()
        self._thread.join()


class Client:
    """A client of an emulator."""

    def __init__(self, url: str, http: HttpClient) -> None:
        self.url, self.http = url, http

    async def post(self, name: str, body: Any, **headers: str) -> Answer:
        sent = headers or {"x-api-key": "key"}
        sent = {key.replace("_", "-"): value for key, value in sent.items() if value}
        path = PATHS.get(name, name)
        return await self.http.request("POST", self.url + path, json_body=body, headers=sent)

    async def call(self, name: str, body: Any, **headers: str) -> dict[str, Any]:
        answer = await self.post(name, body, **headers)
        assert answer.status == 200
        return dict(answer.json())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.http.request("GET", self.url + path, headers=headers)

    async def upload(self, image: bytes) -> str:
        answer = await self.http.request(
            "POST",
            self.url + "/emulator/images",
            content=image,
            headers={"content-type": "image/png"},
        )
        assert answer.status == 201
        return str(answer.json()["url"])

    async def create(self, image: bytes) -> dict[str, Any]:
        """Create a session with the face of an image file and wait for status 2."""
        source = [{"path": await self.upload(image), "opts": OPTS}]
        answer = await self.call("create", {"sourceImage": source})
        assert answer["code"] == 1000, answer
        session = dict(answer["data"])
        await self.until_status(session["_id"], 2)
        return session

    async def until_status(self, session_id: str, status: int) -> None:
        async with asyncio.timeout(10):
            while await self._status(session_id) != status:  # noqa: ASYNC110  over HTTP
                await asyncio.sleep(0.02)

    async def _status(self, session_id: str) -> int:
        return int((await self.call("info", {"_id": session_id}))["data"]["faceswap_status"])

    async def fault(self, **request: Any) -> dict[str, Any]:
        answer = await self.post("/emulator/faults", request)
        assert answer.status in {200, 201}, answer.text
        return dict(answer.json())

    async def state(self) -> dict[str, Any]:
        return dict((await self.get("/emulator/state")).json())

    async def session(self, session_id: str) -> dict[str, Any]:
        state = await self.state()
        return next(one for one in state["sessions"] + state["ended"] if one["_id"] == session_id)

    async def publish(
        self, session: dict[str, Any], picture: I420, *, sound: bool = False
    ) -> "Participant":
        """Publish one picture FPS times a second, over WHIP; `sound` offers it too."""
        publisher = Participant(self, session, "whip", sound=sound)
        await publisher.join()
        publisher.feed(picture)
        return publisher

    async def play(self, session: dict[str, Any], *, sound: bool = False) -> "Participant":
        """Play what comes back, over WHEP."""
        player = Participant(self, session, "whep", sound=sound)
        await player.join()
        return player


class Participant:
    """One connection of a channel; a relay has two."""

    def __init__(self, caller: Client, session: dict[str, Any], kind: str, *, sound: bool) -> None:
        self._caller, self._kind = caller, kind
        self._bearer = {"authorization": f"Bearer {session['front_rtc_token']}"}
        user = session["front_user_id" if kind == "whip" else "algorithm_user_id"]
        self._url = f"{caller.url}/rtc/{session['channel_id']}/{user}/{kind}"
        self.states: list[PeerState] = []
        self.pictures: list[tuple[float, I420]] = []
        self.blocks: list[tuple[float, Samples]] = []
        self.spoke_at = 0.0
        """When block 0 was sent."""
        self._feeding: list[asyncio.Task[None]] = []
        self.peer = AiortcPeer(
            geometry=Geometry(640, 480),
            fps=FPS,
            bitrate_kbit=5000,
            on_state=self.states.append,
            on_picture=lambda picture, at: self.pictures.append((at, picture)),
            on_sound=self._hear if sound else None,
            sends_sound=sound,
        )

    async def join(self) -> None:
        sending = self._kind == "whip"
        offer = await (self.peer.offer_sending() if sending else self.peer.offer_receiving())
        answer = await self._caller.http.request(
            "POST",
            self._url,
            content=offer,
            headers={"content-type": "application/sdp", **self._bearer},
        )
        assert answer.status == 201, answer.text
        self.location = self._caller.url + answer.headers["location"]
        await self.peer.accept_answer(answer.text)

    async def leave(self) -> Answer:
        return await self._caller.http.request("DELETE", self.location, headers=self._bearer)

    def feed(self, picture: I420) -> None:
        async def feed() -> None:
            while True:
                self.peer.push(picture, time.monotonic())
                await asyncio.sleep(1 / FPS)

        self._feeding.append(asyncio.create_task(feed()))

    def speak(self, block: Callable[[int], Samples]) -> None:
        """Send the block of each number, 100 times a second."""

        async def speak() -> None:
            begin = self.spoke_at = time.monotonic()
            for number in itertools.count():
                at = begin + number * BLOCK_SECONDS
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                self.peer.push_sound(block(number), at)

        self._feeding.append(asyncio.create_task(speak()))

    def _hear(self, samples: Samples, at: float) -> None:
        self.blocks.append((at, samples))

    async def picture_after(self, moment: float, within: float = 8.0) -> tuple[float, I420]:
        """Wait for the first picture that came after `moment`."""
        async with asyncio.timeout(within):
            while True:
                for at, picture in self.pictures:
                    if at > moment:
                        return at, picture
                await asyncio.sleep(0.01)

    async def until_state(self, state: PeerState, within: float = 8.0) -> None:
        async with asyncio.timeout(within):
            while state not in self.states:  # noqa: ASYNC110  a plain list
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for task in self._feeding:
            task.cancel()
        await asyncio.gather(*self._feeding, return_exceptions=True)
        await self.peer.close()


@pytest.fixture
def start_emulator() -> Iterator[Callable[..., RunningEmulator]]:
    """Return a function that starts emulators with the test's own settings."""
    running: list[RunningEmulator] = []

    def start(
        account: AccountRules | None = None, sessions: SessionRules | None = None, **settings: Any
    ) -> RunningEmulator:
        emulator = RunningEmulator(
            account=account or AccountRules(),
            sessions=sessions or SessionRules(queue_seconds=0.05),
            **settings,
        )
        running.append(emulator)
        return emulator

    yield start
    for emulator in running:
        emulator.stop()


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


@pytest.fixture
def client_of(http: HttpClient) -> Callable[[str], Client]:
    """Return a function that makes a caller of the emulator at a URL."""
    return lambda url: Client(url, http)


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[RunningEmulator]:
    """Run one emulator with a short queue for all tests that need no settings of their own."""
    emulator = RunningEmulator(sessions=SessionRules(queue_seconds=0.05))

    async def start_its_face_threads() -> None:
        async with HttpClient() as http:
            caller = Client(emulator.url, http)
            url = await caller.upload(png(np.zeros((1200, 1200, 3), np.uint8)))
            looks = [caller.call("detect_faces", {"url": url}) for _ in range(FACE_THREADS)]
            await asyncio.gather(*looks)

    try:
        asyncio.run(start_its_face_threads())
        yield emulator
    finally:
        emulator.stop()


@pytest.fixture
async def emulator(
    shared_emulator: RunningEmulator, client_of: Callable[[str], Client]
) -> AsyncIterator[Client]:
    """Return a caller of the shared emulator; afterwards it is reset."""
    caller = client_of(shared_emulator.url)
    yield caller
    assert (await caller.post("/emulator/reset", {})).status == 200


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """Return an image file with one face."""
    return (MEDIA / "portrait.png").read_bytes()


@pytest.fixture(scope="session")
def other_portrait() -> bytes:
    """Return an image file with another person's face."""
    return (MEDIA / "portrait2.png").read_bytes()


@pytest.fixture(scope="session")
def camera_picture() -> I420:
    """Return a 640x480 picture of a third person, as a camera would."""
    with av.open(str(MEDIA / "person.mp4")) as clip:
        frame = next(clip.decode(video=0))
    left = (frame.width - frame.height * 4 // 3) // 2
    whole = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    cropped = np.ascontiguousarray(whole[:, left : frame.width - left])
    scaled = av.VideoFrame.from_ndarray(cropped, "bgr24").reformat(640, 480, "yuv420p")
    return np.asarray(scaled.to_ndarray(), np.uint8)


@pytest.fixture(scope="session")
def no_face() -> bytes:
    """Return an image file without a face."""
    shades = np.linspace(0, 255, 320, dtype=np.uint8)
    picture = np.repeat(np.tile(shades, (240, 1))[:, :, None], 3, axis=2)
    assert not find_faces(decode_image(png(picture)))
    return png(picture)
