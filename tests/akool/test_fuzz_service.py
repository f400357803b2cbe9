"""Any answer of the service gives a value or a ServiceError, and never a hang."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from relayd.akool.client import AkoolClient
from relayd.akool.credentials import ApiKey, ClientSecret
from relayd.errors import ServiceError
from relayd.http.client import HttpClient
from tests.support.fuzz import TIMEOUT, fuzz

KEYS = st.sampled_from(
    [
        "code",
        "msg",
        "data",
        "_id",
        "faceswap_status",
        "front_user_id",
        "algorithm_user_id",
        "error_code",
        "front_rtc_token",
        "channel_id",
        "app_id",
        "faces_obj",
        "landmarks_str",
        "credit",
        "token",
        "expire",
        "0",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.sampled_from([0, 1, 2, 3, 4, 1000, 1003, 1008, 1101, 1102, 1200, 401, "1000"]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["249,510:460,516:343,657:351,739", "x" * 3000, "\ud800", "684f8fb744b8795862e45c01"]
    ),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=7),
    max_leaves=20,
)
BODIES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(KEYS, JSON, max_size=8).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.sampled_from(
        [b"", b"null", b"[" * 50_000, b"\xef\xbb\xbf{}", b"9" * 5000, b"<html>", b'{"a":']
    ),
)
HEADERS = st.lists(
    st.sampled_from(
        [
            b"content-encoding: gzip",
            b"content-encoding: br",
            b"transfer-encoding: chunked",
            b"retry-after: 1e9",
            b"retry-after: x",
            b"retry-after: 0",
            b"location: http://127.0.0.1:1/",
            b"content-type: text/html; charset=x",
            b"x: " + b"y" * 70_000,
            b"bad header",
            b"set-cookie: a=b",
            b"date: never",
            b"content-length: 5",
            b"x-\xff: \xfe",
        ]
    ),
    max_size=3,
)
STATUSES = st.sampled_from(
    [200, 200, 200, 204, 301, 400, 401, 403, 404, 407, 429, 500, 502, 503, 0, 999]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Return what comes back on a connection: an HTTP answer, one that is cut, or noise."""
    body = draw(BODIES)
    lines = [f"HTTP/1.1 {draw(STATUSES)} X".encode(), b"connection: close", *draw(HEADERS)]
    if draw(st.booleans()):
        lines.append(b"content-length: %d" % len(body))
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return draw(
        st.one_of(
            st.just(whole),
            st.just(whole),
            st.integers(0, len(whole)).map(lambda end: whole[:end]),
            st.binary(max_size=40),
        )
    )


ID = "684f8fb744b8795862e45c01"
CALLS: dict[str, Callable[[AkoolClient], Awaitable[Any]]] = {
    "credentials": lambda client: client.check_credentials(),
    "credit": lambda client: client.credit(),
    "detect": lambda client: client.detect_faces("http://h/x.png"),
    "create": lambda client: client.create("http://h/x.png", "1,2:3,4:5,6:7,8"),
    "status": lambda client: client.status(ID),
    "token": lambda client: client.fresh_token(ID),
    "update": lambda client: client.update(ID, "http://h/x.png", "1,2:3,4:5,6:7,8"),
    "close": lambda client: client.close(ID, within=1.0),
}
LONGEST = 10.0
"""s for one call with all its attempts; each times out after one."""


@pytest.mark.timeout(TIMEOUT)
def test_no_answer_of_the_service_causes_an_unexpected_error_or_a_hang() -> None:
    now = [b""]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(now[0])
            await writer.drain()
        except (OSError, EOFError):  # the client gave up
            pass
        finally:
            writer.close()

    async def call(url: str, name: str, *, with_key: bool) -> None:
        account = ApiKey("kkkkkkkkkkk") if with_key else ClientSecret("me", "sssssssssss")
        async with HttpClient(read_timeout=1.0) as http, asyncio.timeout(LONGEST):
            client = AkoolClient(url, account, http, call_deadline=1.0)
            await CALLS[name](client)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        def hold(one: tuple[bytes, str, bool]) -> None:
            now[0], name, with_key = one
            message = ""
            try:
                loop.run_until_complete(call(url, name, with_key=with_key))
            except ServiceError as error:
                message = error.message
            assert "\n" not in message
            assert "unexpected " not in message
            assert len(message) < 1000

        fuzz(st.tuples(answers(), st.sampled_from(sorted(CALLS)), st.booleans()), hold)
        server.close()
        loop.run_until_complete(server.wait_closed())
