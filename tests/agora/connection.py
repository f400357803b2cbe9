"""One connection to or from the hub: messages in, messages out, and pictures that never queue.

What is posted goes out in order. A picture that is shown waits in a slot of its sender's: a
newer one takes its place, so that a slow reader gets fewer pictures, not older ones.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from typing import Self

from tests.agora.wire import Message, Payload, decode

SOCKET_BUFFER = 1 << 20
"""Bytes that the kernel is asked for each way: two pictures."""
CHUNK = 1 << 16
"""Bytes asked of the socket when a line is due."""


class Connection:
    """A connected Unix socket on the running event loop."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            peer.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        self._socket = peer
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._posts: deque[tuple[bytes, Payload]] = deque()
        self._pictures: dict[str, tuple[bytes, Payload]] = {}
        self._wake = asyncio.Event()
        self._writer = asyncio.create_task(self._write(), name="agora-writer")
        self.shown = self.replaced = 0
        """Pictures given to the socket, and pictures that a newer one replaced before that."""

    @classmethod
    async def to(cls, hub: str) -> Self:
        """Connect to the hub at this path."""
        peer = socket.socket(socket.AF_UNIX)
        peer.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(peer, hub)
        except OSError:
            peer.close()
            raise
        return cls(peer)

    @property
    def pid(self) -> int:
        """The process at the other end."""
        size = struct.calcsize("3i")
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", credentials)[0])

    def post(self, line: bytes, payload: Payload = b"") -> None:
        """Send a message after all that was posted before."""
        self._posts.append((line, payload))
        self._wake.set()

    def show(self, uid: str, line: bytes, payload: Payload) -> None:
        """Send a picture of this user, instead of one of the user's that still waits."""
        self.replaced += uid in self._pictures
        self._pictures[uid] = line, payload
        self._wake.set()

    def forget_pictures(self) -> None:
        """Send none of the pictures that still wait."""
        self._pictures.clear()

    async def line(self) -> bytes:
        """Read a line; EOFError when there is no more."""
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            chunk = await self._loop.sock_recv(self._socket, CHUNK)
            if not chunk:
                raise EOFError
            self._unread += chunk
        line = bytes(self._unread[: end + 1])
        del self._unread[: end + 1]
        return line

    async def receive(self) -> Message:
        """Read a message; EOFError when there is no more, ValueError when it is none."""
        name, words, length = decode(await self.line())
        return Message(name, words, await self._payload(length) if length else b"")

    async def messages(self) -> AsyncIterator[Message]:
        """Read messages until the other end hangs up."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                yield await self.receive()
                await asyncio.sleep(0)  # data at hand never suspends: let the others have a turn

    async def close(self) -> None:
        """Hang up; what was posted and not sent is lost."""
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._socket.close()

    async def _payload(self, length: int) -> bytearray:
        payload = bytearray(length)
        have = min(length, len(self._unread))
        payload[:have] = self._unread[:have]
        del self._unread[:have]
        with memoryview(payload) as view:
            while have < length:
                got = await self._loop.sock_recv_into(self._socket, view[have:])
                if not got:
                    raise EOFError
                have += got
        return payload

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):  # the reading side sees the end
            while await self._wake.wait():
                while message := self._next():
                    for part in message:
                        if part:
                            await self._loop.sock_sendall(self._socket, part)
                self._wake.clear()

    def _next(self) -> tuple[bytes, Payload] | None:
        if self._posts:
            return self._posts.popleft()
        if self._pictures:
            self.shown += 1
            return self._pictures.pop(next(iter(self._pictures)))
        return None
