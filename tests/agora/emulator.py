"""`python -m tests.agora.emulator`: the emulator of the service, with Agora as its transport.

Everything is `relayd emulator` itself; beside it each session gets its channel in the hub, and
the swap engine is the channel's algorithm user. The front user counts as publisher and player
while it is there; its sound comes back if the fault `sound` says so. The fault `drop_rtc` lets the
front user fail with reason 16, connection lost.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import numpy as np

import relayd.emulator.app
from relayd import logs
from relayd.emulator.faults import FaultBoard
from relayd.emulator.rtc import BITRATE_KBIT, FPS, GEOMETRY
from relayd.emulator.server import EmulatorSettings, run
from relayd.emulator.sessions import Connection as Presence
from relayd.emulator.sessions import Role, Session, SessionRules, SessionStore
from relayd.emulator.swap import SourceFace
from relayd.media.frames import I420
from tests.agora.connection import Connection
from tests.agora.control import Control, Refused
from tests.agora.member import BROADCASTER
from tests.agora.returned import EngineVoice, block_of
from tests.agora.wire import Message, Reason, encode

GLANCE = 0.02
"""s between two checks of the session store."""
H264 = 2
"""Agora's number of the codec."""


class FrontUser:
    """What a session holds of its front user: one of its two directions."""

    def __init__(
        self,
        push: Callable[[I420], None] = lambda _picture: None,
        drop: Callable[[], None] = lambda: None,
    ) -> None:
        self._push, self._drop = push, drop

    def push(self, picture: I420, captured_at: float) -> None:
        """Send a swapped picture; from any thread."""
        self._push(picture)

    async def close(self) -> None:
        """Nothing: the channel's end closes it."""

    async def vanish(self) -> None:
        """Let its connection be lost."""
        await asyncio.to_thread(self._drop)


class Room:
    """One session's channel, from its start to its end, with the engine in it."""

    def __init__(
        self,
        session: Session[SourceFace],
        store: SessionStore[SourceFace],
        faults: FaultBoard,
        control: Control,
        hub: str,
    ) -> None:
        self._session, self._store, self._control, self._hub = session, store, control, hub
        self._faults = faults
        self._voice: EngineVoice | None = None
        self._present: list[Presence] = []

    async def run(self, app_id: str) -> None:
        """Serve the channel until cancelled; then it is closed."""
        session = self._session
        uids = [session.front_user_id, session.algorithm_user_id]
        channel = session.channel_id
        opening = {"app_id": app_id, "channel": channel, "token": session.token, "uids": uids}
        await asyncio.to_thread(self._control.ask, "open", **opening)
        try:
            await asyncio.sleep(max(0.0, self._store.queue_left(session)))
            connection = await Connection.to(self._hub)
            voice = EngineVoice(connection, session.id, self._faults, lambda: session.picture_delay)
            speaking = asyncio.create_task(voice.way_back.run())
            self._voice = voice
            try:
                self._enter(connection, app_id)
                async for message in connection.messages():
                    await self._handle(connection, message)
            finally:
                voice.stop()
                await speaking
                await connection.close()
        finally:
            with suppress(Refused):  # the next test has begun and cleared all channels away
                self._control.ask("close", channel=channel)

    def _enter(self, connection: Connection, app_id: str) -> None:
        session, front = self._session, self._session.front_user_id
        bitrate = BITRATE_KBIT * 1000
        for line in (
            encode(
                "join",
                app_id,
                session.channel_id,
                session.algorithm_user_id,
                session.token,
                BROADCASTER,
            ),
            encode("encoder", GEOMETRY.width, GEOMETRY.height, int(FPS), bitrate, bitrate, H264),
            encode("publish", "video"),
            encode("subscribe", front),
            encode("subscribe_sound", front, 0),
        ):
            connection.post(line)

    async def _handle(self, connection: Connection, message: Message) -> None:
        front = self._session.front_user_id
        match message.name, *message.words:
            case "joined", uid if uid == front:
                await self._on_front_joined(connection)
            case "left", uid, _ if uid == front:
                await self._on_front_left()
            case "video_subscribed", uid if uid == front:
                connection.post(encode("intra", uid))
            case "frame", uid, width, height, *_ if uid == front:
                self._take(int(width), int(height), message)
            case "sound", uid, *_ if uid == front:
                self._session.hear(*block_of(message))

    async def _on_front_joined(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()

        def push(picture: I420) -> None:
            loop.call_soon_threadsafe(_show, connection, self._session.algorithm_user_id, picture)

        camera, screen = FrontUser(drop=self._drop), FrontUser(push=push)
        self._present = [
            Presence("camera", Role.PUBLISHER, camera),
            Presence("screen", Role.PLAYER, screen, self._voice.way_back if self._voice else None),
        ]
        for presence in self._present:
            await self._store.connect(self._session, presence)

    async def _on_front_left(self) -> None:
        for presence in self._present:
            await self._store.disconnect(self._session, presence)

    def _take(self, width: int, height: int, message: Message) -> None:
        engine = self._session.engine
        if engine is not None and width % 2 == height % 2 == 0:  # the engine takes no odd sizes
            picture = np.frombuffer(message.payload, np.uint8).reshape(height * 3 // 2, width)
            engine.put(picture, time.monotonic())

    def _drop(self) -> None:
        wish = {"uid": self._session.front_user_id, "channel": self._session.channel_id}
        self._control.ask("end_membership", state="failed", reason=Reason.LOST, **wish)


def _show(connection: Connection, uid: str, picture: I420) -> None:
    rows, width = picture.shape
    line = encode("frame", width, rows * 2 // 3, 0, 0, length=picture.nbytes)
    connection.show(uid, line, picture.data.cast("B"))


class Bridge:
    """Gives each open session of a store its room, between open and close."""

    def __init__(
        self, store: SessionStore[SourceFace], faults: FaultBoard, hub: str, app_id: str
    ) -> None:
        self._store, self._faults, self._hub, self._app_id = store, faults, hub, app_id
        self._control = Control(hub)
        self._rooms: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Open and close rooms as sessions begin and end, until cancelled."""
        try:
            while True:
                open_now = {session.id: session for session in self._store.open()}
                for new in open_now.keys() - self._rooms:
                    room = Room(open_now[new], self._store, self._faults, self._control, self._hub)
                    self._rooms[new] = asyncio.create_task(room.run(self._app_id))
                await self._end(self._rooms.keys() - open_now)
                await asyncio.sleep(GLANCE)
        finally:
            await self._end(set(self._rooms))
            self._control.close()

    async def _end(self, sessions: set[str]) -> None:
        rooms = [self._rooms.pop(session) for session in sessions]
        for room in rooms:
            room.cancel()
        for fault in await asyncio.gather(*rooms, return_exceptions=True):
            if isinstance(fault, Exception):
                logs.get("bridge").error("room_failed", exc_info=fault)


def bridged(hub: str, app_id: str) -> type[relayd.emulator.app.Emulator]:
    """Return the emulator's class, with a bridge to the hub."""

    class BridgedEmulator(relayd.emulator.app.Emulator):
        _bridge: asyncio.Task[None]

        async def __aenter__(self) -> Self:
            await super().__aenter__()
            bridge = Bridge(self.sessions, self.faults, hub, app_id)
            self._bridge = asyncio.create_task(bridge.run())
            return self

        async def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            await super().__aexit__(kind, error, trace)
            self._bridge.cancel()
            await asyncio.gather(self._bridge, return_exceptions=True)

    return BridgedEmulator


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.agora.emulator")
    parser.add_argument("--hub", required=True, help="the hub's socket")
    parser.add_argument("--app-id", required=True, help="the app whose channels these are")
    parser.add_argument("--queue-seconds", type=float, default=0.3)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    logs.configure()
    relayd.emulator.app.Emulator = bridged(asked.hub, asked.app_id)  # type: ignore[misc]  # `run` makes a bridged one
    rules = SessionRules(queue_seconds=asked.queue_seconds)
    return run(EmulatorSettings(port=asked.port, sessions=rules))


if __name__ == "__main__":
    raise SystemExit(main())
