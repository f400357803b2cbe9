"""Pictures for the page: single JPEGs, and motion JPEG, which every browser shows in an <img>.

Motion JPEG is an endless multipart/x-mixed-replace answer: each part replaces the previous one.
Each viewer gets the newest picture after it has taken the last one, so that a slow viewer skips
pictures and delays no other.
"""

import asyncio
from contextlib import suppress
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relayd.control.guard import refuse

MAX_VIEWERS = 8
"""Motion JPEG viewers at a time, over all pictures; each gets 10 pictures/s of 40 kB."""
_POLL_PERIOD = 0.025
"""s between two checks for a newer picture; one is made every 100 ms."""
_FIRST_PICTURE_TIMEOUT = 2.0
"""s to wait for the first picture: longer than one period of the slowest feed."""
_BOUNDARY = "relayd-picture"


class PictureFeed(Protocol):
    """A source of pictures; called outside the event loop's thread."""

    def latest_jpeg(self, after: int = 0) -> tuple[int, bytes] | None:
        """Return the newest picture's number and JPEG if its number is above `after`, else None."""


class Viewers:
    """The present viewers of motion JPEG."""

    def __init__(self) -> None:
        self._streams: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def full(self) -> bool:
        """Whether no further viewer is accepted."""
        return self._closed or len(self._streams) >= MAX_VIEWERS

    def end_all(self) -> None:
        """End every stream and accept no new one."""
        self._closed = True
        for stream in self._streams:
            stream.cancel()

    async def watch(self, stream: asyncio.Task[None], receive: Receive) -> None:
        """Count `stream` until it ends, its viewer disconnects, or `end_all` is called."""
        self._streams.add(stream)
        leaving = asyncio.create_task(_wait_for_disconnect(receive), name="relayd-viewer-leaves")
        try:
            await asyncio.wait({stream, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.discard(stream)
            for task in (stream, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await task


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class MotionJpeg(Response):
    """An answer that goes on until its viewer disconnects."""

    media_type = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"

    def __init__(self, feed: PictureFeed, viewers: Viewers) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._feed = feed
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send pictures until the viewer disconnects or the server stops."""
        if self._viewers.full:
            refusal = refuse(503, f"there are {MAX_VIEWERS} viewers already", "close another page")
            await refusal(scope, receive, send)
            return
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )
        stream = asyncio.create_task(self._stream(send), name="relayd-viewer")
        await self._viewers.watch(stream, receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, send: Send) -> None:
        # Browsers show a part when the boundary after it arrives, so it follows at once.
        boundary = f"--{_BOUNDARY}\r\n".encode()
        await send({"type": "http.response.body", "body": boundary, "more_body": True})
        number = 0
        while True:
            number, jpeg = await newest(self._feed, number)
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            body = b"".join((head, jpeg, b"\r\n", boundary))
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def newest(feed: PictureFeed, after: int) -> tuple[int, bytes]:
    """Wait for a picture above number `after`."""
    while True:
        picture = await asyncio.to_thread(feed.latest_jpeg, after)
        if picture is not None:
            return picture
        await asyncio.sleep(_POLL_PERIOD)


async def still(feed: PictureFeed) -> Response:
    """Answer with the newest picture, or 503 if there is none in time."""
    try:
        _, jpeg = await asyncio.wait_for(newest(feed, 0), _FIRST_PICTURE_TIMEOUT)
    except TimeoutError:
        return refuse(503, "there is no picture yet", "try again in a moment")
    return Response(jpeg, media_type="image/jpeg")
