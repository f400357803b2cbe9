"""Any failure of a call is one of relayd's errors."""

import asyncio
import ssl
from typing import Any

import httpx
import pytest

from relayd.errors import ServerFault, ServiceUnreachable
from relayd.http.client import HttpClient


class Transport(httpx.AsyncBaseTransport):
    """Raises an error instead of answering, at the call or within the body."""

    def __init__(self, fault: BaseException, *, in_body: bool = False) -> None:
        self._fault, self._in_body = fault, in_body

    async def handle_async_request(self, _request: httpx.Request) -> httpx.Response:
        if not self._in_body:
            raise self._fault
        return httpx.Response(200, stream=Body(self._fault))

    async def aclose(self) -> None:
        raise RuntimeError("the handler is closed")


class Body(httpx.AsyncByteStream):
    def __init__(self, fault: BaseException) -> None:
        self._fault = fault

    async def __aiter__(self) -> Any:
        yield b"{"
        raise self._fault


async def call(transport: Transport, url: str = "http://service/", **options: Any) -> None:
    client = HttpClient()
    await client.close()
    client._client = httpx.AsyncClient(transport=transport)
    async with client:
        await client.request("POST", url, **options)


@pytest.mark.parametrize("in_body", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("unable to perform operation on <TCPTransport closed=True>"),
        ssl.SSLError(1, "bad record mac"),
        ValueError("nonsense"),
        OSError(24, "Too many open files"),
        httpx.ReadTimeout(""),
        httpx.StreamClosed(),
        httpx.CookieConflict("two of one name"),
        AttributeError("'NoneType' object has no attribute 'write'"),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_whatever_a_transport_raises_is_no_answer(fault: Exception, *, in_body: bool) -> None:
    with pytest.raises(ServiceUnreachable) as caught:
        await call(Transport(fault, in_body=in_body))
    assert caught.value.sent, "it may have been acted upon"
    assert str(caught.value).startswith("POST http://service/: ")


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://service:port/", None),
        ("http://\ud800/", None),
        ("http://service/", httpx.ConnectTimeout("")),
        ("http://service/", UnicodeError("label too long")),
        ("http://service/", OverflowError("getsockaddrarg: port must be 0-65535.")),
    ],
)
async def test_a_request_that_was_not_sent_is_reported_as_such(
    url: str, fault: Exception | None
) -> None:
    with pytest.raises(ServiceUnreachable) as caught:
        await call(Transport(fault or AssertionError("was sent")), url)
    assert not caught.value.sent


async def test_an_answer_that_is_too_large_is_a_server_fault() -> None:
    with pytest.raises(ServerFault, match="more than 0 bytes"):
        await call(Transport(RuntimeError("unread"), in_body=True), largest=0)


async def test_a_cancelled_call_is_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError):
        await call(Transport(asyncio.CancelledError()))


async def test_an_error_of_the_operating_system_is_reported_with_its_text(
    unused_tcp_port: int,
) -> None:
    async with HttpClient() as client:
        with pytest.raises(ServiceUnreachable, match=r"/: Connection refused$") as caught:
            await client.request("GET", f"http://127.0.0.1:{unused_tcp_port}/")
    assert not caught.value.sent


async def test_a_port_out_of_range_is_no_answer_and_was_never_sent() -> None:
    async with HttpClient() as client:
        with pytest.raises(ServiceUnreachable, match="port must be 0-65535") as caught:
            await client.request("GET", "http://127.0.0.1:99999/")
    assert not caught.value.sent


async def test_a_kept_connection_that_died_unnoticed_loses_no_fresh_request() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read()  # what comes later is never answered
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, HttpClient() as client:
        await client.request("GET", url)
        with pytest.raises(ServiceUnreachable):
            await client.request("GET", url, timeout=0.3)
        await client.request("GET", url)
        assert (await client.request("GET", url, timeout=5.0, fresh=True)).status == 200
    assert connections == 3


async def test_a_request_that_cannot_be_prepared_was_never_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with HttpClient() as client:
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
        with pytest.raises(ServiceUnreachable) as caught:
            await client.request("POST", "https://127.0.0.1:9/", fresh=True)
    assert not caught.value.sent
