"""A member of a channel in plain Python, like the library in C."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from tests.agora.connection import Connection
from tests.agora.member import BROADCASTER
from tests.agora.pictures import Picture, Plane
from tests.agora.wire import Payload, encode

TIMEOUT = 5.0
"""s that an event or a picture may take on a busy machine."""


@dataclass(frozen=True, slots=True)
class Received:
    """A picture as received."""

    uid: str
    width: int
    height: int
    strides: tuple[int, int, int]
    """Bytes of a row of Y, U and V."""
    rotation: int
    """Degrees that it must be turned clockwise to be upright."""
    render_ms: int
    payload: Payload

    @property
    def planes(self) -> list[Plane]:
        """Its planes without padding, not turned."""
        pad = self.strides[0] - self.width
        return Picture(self.width, self.height, self.rotation, self.payload, pad).planes()


@dataclass(frozen=True, slots=True)
class Heard:
    """A block of sound as received."""

    uid: str
    rate: int
    channels: int
    presentation_ms: int
    payload: Payload


class Caller:
    """One member; a task records all that the hub sends it."""

    def __init__(self, connection: Connection, uid: str) -> None:
        self.uid = uid
        self.connection = connection
        self.events: list[tuple[str, ...]] = []
        """All but pictures and sound, in their order; each a name and its words."""
        self.sounds: list[Heard] = []
        self.pictures: list[Received] = []
        self._news = asyncio.Condition()
        self.start_reading()

    @classmethod
    @asynccontextmanager
    async def join(
        cls, hub: str, *, app_id: str, channel: str, uid: str, token: str, role: int = BROADCASTER
    ) -> AsyncIterator[Self]:
        """Ask to join, the answer is an event; disconnects at the end."""
        caller = cls(await Connection.to(hub), uid)
        caller.send("join", app_id, channel, uid, token, role)
        try:
            yield caller
        finally:
            await caller.disconnect_hard()

    def send(self, name: str, *words: str | int) -> None:
        """Send anything that has no payload: publish, subscribe, intra, renew, encoder, leave."""
        self.connection.post(encode(name, *words))

    def push(self, picture: Picture, timestamp: int = 0) -> None:
        """Send a picture; it replaces one that still waits."""
        line = encode(
            "frame",
            picture.width,
            picture.height,
            picture.rotation,
            timestamp,
            length=len(picture.payload),
        )
        self.connection.show(self.uid, line, picture.payload)

    def say(self, pcm: Payload, *, rate: int = 48_000, channels: int = 1, pts_ms: int = 0) -> None:
        """Send a block of sound now."""
        words = (rate, channels, pts_ms, round(time.monotonic() * 1e6))
        self.connection.post(encode("sound", *words, length=len(pcm)), pcm)

    async def event(self, name: str, *words: str | int, within: float = TIMEOUT) -> tuple[str, ...]:
        """Wait for an event that begins like this, past ones included."""
        wanted = (name, *map(str, words))

        def found() -> list[tuple[str, ...]]:
            return [event for event in self.events if event[: len(wanted)] == wanted]

        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(found)
        return found()[0]

    async def picture(self, number: int = 0, within: float = TIMEOUT) -> Received:
        """Wait for the picture of this number, counted from the first since forget()."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: len(self.pictures) > number)
        return self.pictures[number]

    def forget(self) -> None:
        """Begin to count events and pictures again."""
        self.events.clear()
        self.pictures.clear()
        self.sounds.clear()

    def start_reading(self) -> None:
        """Record all that comes in."""
        self._listening = asyncio.create_task(self._listen(), name=f"agora-caller-{self.uid}")

    async def stop_reading(self) -> None:
        """Leave all that comes in the socket, as a member that hangs does."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def disconnect_hard(self) -> None:
        """End the connection without leaving first."""
        await self.stop_reading()
        await self.connection.close()

    async def _listen(self) -> None:
        async for message in self.connection.messages():
            async with self._news:
                if message.name == "frame":
                    uid, *numbers = message.words
                    width, height, y, u, v, rotation, render_ms = map(int, numbers)
                    self.pictures.append(
                        Received(
                            uid, width, height, (y, u, v), rotation, render_ms, message.payload
                        )
                    )
                elif message.name == "sound":
                    uid, *numbers = message.words
                    rate, channels, presentation_ms = map(int, numbers)
                    heard = Heard(uid, rate, channels, presentation_ms, message.payload)
                    self.sounds.append(heard)
                else:
                    self.events.append((message.name, *message.words))
                self._news.notify_all()
