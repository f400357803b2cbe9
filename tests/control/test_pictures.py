import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from relayd.control.api import Pictures
from relayd.control.mjpeg import MAX_VIEWERS
from relayd.control.server import ControlServer
from relayd.errors import ServerFault
from tests.control.credentials import BEARER, raw_get


async def parts(response: httpx.Response) -> AsyncIterator[bytes]:
    """Each part's picture of a multipart answer, with its headers checked."""
    boundary = b"--relayd-picture\r\n"
    buffer = b""
    async for chunk in response.aiter_raw():
        buffer += chunk
        # A part is whole once the boundary after it is there, as browsers see it.
        while buffer.count(boundary) > 1:
            before, part, buffer = buffer.split(boundary, 2)
            buffer = boundary + buffer
            assert before == b""
            head, rest = part.split(b"\r\n\r\n", 1)
            kind, length = head.split(b"\r\n")
            assert kind == b"Content-Type: image/jpeg"
            assert length == b"Content-Length: %d" % (len(rest) - 2)
            yield rest[:-2]


async def until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        await asyncio.sleep(0.01)


async def test_a_viewer_sees_each_new_picture_once(client: httpx.AsyncClient, feed: Any) -> None:
    seen = []
    async with client.stream("GET", "/preview/output.mjpeg") as response:
        kind = response.headers["content-type"]
        assert kind == "multipart/x-mixed-replace; boundary=relayd-picture"
        assert "content-length" not in response.headers
        async for picture in parts(response):
            seen.append(picture.rstrip(b".")[-6:])
            feed.number += 1
            if len(seen) == 5:
                break
    assert seen == [b"%06d" % number for number in range(1, 6)]


async def test_a_viewer_that_leaves_is_forgotten_at_once(
    client: httpx.AsyncClient, server: ControlServer, feed: Any
) -> None:
    viewers = server._app.viewers
    async with client.stream("GET", "/preview/output.mjpeg") as response:
        await anext(parts(response))
        assert len(viewers) == 1
    await until(lambda: len(viewers) == 0, 0.5)


async def test_a_slow_viewer_skips_pictures_and_delays_no_other(
    client: httpx.AsyncClient, server: ControlServer, feed: Any
) -> None:
    feed.size = 400_000  # far above the socket's buffers
    assert server.address
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, server.address)
        await loop.sock_sendall(slow, raw_get("/preview/output.mjpeg"))
        await until(lambda: len(server._app.viewers) == 1)
        seen = 0
        async with client.stream("GET", "/preview/output.mjpeg") as response:
            async for _ in parts(response):
                seen += 1
                feed.number += 1
                if seen == 40:
                    break
        # The slow one now reads: after what the buffers held comes the newest, not number 2.
        numbers: list[int] = []
        data = b""
        while not numbers or numbers[-1] < 41:
            data += await asyncio.wait_for(loop.sock_recv(slow, 1 << 20), 3)
            *whole, data = data.split(b"\xff\xd8picture ")
            numbers += [int(rest[:6]) for rest in (*whole[1:], data) if rest[:6].isdigit()]
            data = b""
        assert len(set(numbers)) < 30
    await until(lambda: len(server._app.viewers) == 0)


async def test_more_viewers_than_allowed_are_refused_until_one_leaves(
    client: httpx.AsyncClient, server: ControlServer, feed: Any
) -> None:
    assert server.address
    loop = asyncio.get_running_loop()
    sockets = []
    try:
        for _ in range(MAX_VIEWERS):
            viewer = socket.create_connection(server.address)
            viewer.setblocking(False)
            sockets.append(viewer)
            await loop.sock_sendall(viewer, raw_get("/preview/output.mjpeg"))
        await until(lambda: server._app.viewers.full)
        refused = await client.get("/preview/output.mjpeg")
        assert refused.status_code == 503
        assert "viewers" in refused.json()["error"]
        assert (await client.get("/preview/output.jpg")).status_code == 200
        sockets.pop().close()
        await until(lambda: not server._app.viewers.full)
        async with client.stream("GET", "/preview/output.mjpeg") as response:
            assert response.status_code == 200
    finally:
        for viewer in sockets:
            viewer.close()


async def test_a_single_picture_is_a_jpeg(client: httpx.AsyncClient) -> None:
    answer = await client.get("/preview/output.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"\xff\xd8")


async def test_a_picture_that_does_not_come_is_a_503(
    client: httpx.AsyncClient, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relayd.control.mjpeg._FIRST_PICTURE_TIMEOUT", 0.05)
    feed.number = 0
    assert (await client.get("/preview/output.jpg")).status_code == 503


@pytest.mark.parametrize("name", ["source.mjpeg", "source.jpg", "other.mjpeg", "output.png"])
async def test_a_picture_that_was_not_given_is_not_there(
    client: httpx.AsyncClient, name: str
) -> None:
    assert (await client.get(f"/preview/{name}")).status_code == 404


async def test_the_source_is_shown_where_it_was_given(app_of: Any, feed: Any) -> None:
    server = app_of(Pictures(output=feed, source=feed), tcp=("127.0.0.1", 0))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=BEARER) as client:
            assert (await client.get("/preview/source.jpg")).status_code == 200
            assert 'data-source="shown"' in (await client.get("/")).text
    finally:
        await server.stop()


async def test_the_page_hides_the_source_where_it_was_not_given(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'data-source="absent"' in page.text
    assert "{{" not in page.text


async def test_a_feed_that_fails_ends_its_own_viewer_only(
    client: httpx.AsyncClient,
    server: ControlServer,
    feed: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(after: int = 0) -> None:
        raise ServerFault("no encoder")

    async with client.stream("GET", "/preview/output.mjpeg") as response:
        await anext(parts(response))
        monkeypatch.setattr(feed, "latest_jpeg", fail)
        await until(lambda: len(server._app.viewers) == 0)
    assert (await client.get("/api/status")).status_code == 200
