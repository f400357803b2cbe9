"""A look at the beginning of what a server sends."""

import asyncio
import hashlib
import re
from collections.abc import Iterator

import pytest

from relayd.errors import ServiceUnreachable
from relayd.http.client import Answer, HttpClient
from tests.support.refusing import Reply, WebServer, web_server

ENDLESS = b"frame" * 1_000_000


async def peek(url: str, **how: object) -> Answer:
    async with HttpClient() as client:
        return await client.peek(url, most=1000, seconds=2, **how)  # type: ignore[arg-type]  # headers


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    replies = {
        "endless": Reply(200, ENDLESS, "video/mp2t"),
        "moved": Reply(302, headers={"Location": "/endless"}),
    }
    with web_server(replies, login="me:p@ss/word") as running:
        yield running


async def test_no_more_than_the_beginning_is_read(server: WebServer) -> None:
    answer = await peek(server.url("endless", "me:p%40ss%2Fword"))
    assert (answer.status, answer.headers["content-type"]) == (200, "video/mp2t")
    assert answer.body == ENDLESS[:1000]


async def test_a_login_is_sent_only_when_it_is_asked_for(server: WebServer) -> None:
    server.asked.clear()
    assert (await peek(server.url("endless", "me:wrong"))).status == 401
    first, second = (headers for _, headers in server.asked)
    assert "Authorization" not in first
    assert "Authorization" in second


async def test_a_redirect_is_not_followed(server: WebServer) -> None:
    server.asked.clear()
    answer = await peek(server.url("moved", "me:p%40ss%2Fword"))
    assert (answer.status, answer.headers["location"]) == (302, "/endless")
    assert {path for path, _ in server.asked} == {"/moved"}


async def test_a_digest_is_answered() -> None:
    challenge = 'Digest realm="camera", nonce="abc", qop="auth", algorithm=MD5'
    replies = {"live": Reply(401, headers={"WWW-Authenticate": challenge})}
    with web_server(replies) as server:
        await peek(server.url("live", "me:p%40ss"))
    sent = server.asked[1][1]["Authorization"]
    told = dict(re.findall(r'(\w+)="?([^",]+)', sent))
    ha1 = hashlib.md5(b"me:camera:p@ss").hexdigest()
    ha2 = hashlib.md5(b"GET:/live").hexdigest()
    proof = f"{ha1}:abc:{told['nc']}:{told['cnonce']}:auth:{ha2}"
    assert told["response"] == hashlib.md5(proof.encode()).hexdigest()


async def test_a_server_that_is_not_there_is_an_error_of_ours_without_its_password() -> None:
    with pytest.raises(ServiceUnreachable) as caught:
        await peek("http://me:Hidden7@127.0.0.1:9/live")
    assert "Hidden" not in str(caught.value)


async def test_a_server_that_stops_sending_ends_the_look_in_time() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nframe")
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with HttpClient() as client, asyncio.timeout(10):
            answer_seen = await client.peek(f"http://127.0.0.1:{port}/", most=1000, seconds=0.2)
    assert answer_seen.body == b"frame"
