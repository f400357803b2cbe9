"""HTTP as relayd needs it: one small client over httpx, its failures mapped into our tree.

Only this module imports httpx.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from relayd.errors import RelaydError, ServerFault, ServiceUnreachable
from relayd.logs import excerpt, get, redact
from relayd.urls import MediaUrl

LARGEST_ANSWER = 4 * 1024 * 1024
"""Bytes. The largest honest answer is a face list of some kB."""
_LONGEST_EXCERPT = 80
"""Characters of an answer that a message repeats."""

_NEVER_SENT = (
    httpx.ConnectError,  # refused, no route, DNS, TLS handshake
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,  # a header that HTTP cannot carry
    httpx.UnsupportedProtocol,
    UnicodeError,  # a host name that IDNA cannot carry
    OverflowError,  # a port that no machine has
)
"""Failures of sending before the first byte of the request left this machine."""

_log = get("http")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, whatever its bytes."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; ServerFault when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as fault:
            said = excerpt(self.text, _LONGEST_EXCERPT)
            raise ServerFault(f"HTTP {self.status} answered no JSON: {said!r}") from fault


class HttpClient:
    """One connection pool; used from one event loop."""

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 15.0,
        unix_socket: Path | None = None,
    ) -> None:
        """Open nothing yet; with `unix_socket` every request goes there, whatever its host."""
        transport = httpx.AsyncHTTPTransport(uds=str(unix_socket)) if unix_socket else None
        self._timeout = httpx.Timeout(read_timeout, connect=connect_timeout)
        self._client = httpx.AsyncClient(
            timeout=self._timeout, follow_redirects=False, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; one that cannot be is left to the end of the process."""
        await _close(self._client)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json_body: object | None = None,
        content: bytes | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpx enforces it
        largest: int = LARGEST_ANSWER,
        fresh: bool = False,
        into: Callable[[bytes], object] | None = None,
        shown: str = "",
    ) -> Answer:
        """Send one request and read the whole answer, of any status.

        With `fresh` it is sent over TCP on a connection of its own: one that was kept may be dead
        without a sign, after a sleep of the machine above all, and its request lost.
        `shown` stands for the URL in errors, by default its safe form.
        `into` gets the body piece by piece, which then has no limit and is kept nowhere else.

        Raises ServiceUnreachable when no answer came (refused, timed out, cut off, TLS, a URL
        that names nothing), ServerFault when the answer is larger than `largest` bytes.
        """
        call = f"{method} {shown or MediaUrl(url)}"
        try:
            request = self._client.build_request(
                method,
                url,
                headers=dict(headers or {}),
                json=json_body,
                content=content,
                timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
            )
        except (httpx.InvalidURL, ValueError) as fault:
            raise _unreachable(call, fault, sent=False) from fault
        try:
            async with self._client_for(fresh=fresh) as client:
                response = await client.send(request, stream=True)
                try:
                    body = await _read(response, call, largest, into)
                finally:
                    await response.aclose()
        except RelaydError:
            raise
        except Exception as fault:
            # Besides its own errors httpx lets those of its transports through, such as a
            # RuntimeError of a connection that closed (encode/httpx#3544).
            raise _unreachable(call, fault, sent=not isinstance(fault, _NEVER_SENT)) from fault
        headers_seen = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers_seen, body)

    @asynccontextmanager
    async def _client_for(self, *, fresh: bool) -> AsyncIterator[httpx.AsyncClient]:
        if not fresh:
            yield self._client
            return
        try:
            client = httpx.AsyncClient(timeout=self._timeout, follow_redirects=False)
        except Exception as fault:
            why = f"no connection can be prepared: {fault}"
            raise ServiceUnreachable(why, sent=False) from fault
        try:
            yield client
        finally:
            await _close(client)


async def _close(client: httpx.AsyncClient) -> None:
    try:
        await client.aclose()
    except Exception as fault:  # noqa: BLE001 - its transports raise anything
        _log.debug("connections.not_closed", reason=str(fault))


async def _read(
    response: httpx.Response, call: str, largest: int, into: Callable[[bytes], object] | None
) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        if into is not None:
            into(chunk)
            continue
        body += chunk
        if len(body) > largest:
            raise ServerFault(f"{call} answered more than {largest} bytes")
    return bytes(body)


def _unreachable(call: str, fault: Exception, *, sent: bool) -> ServiceUnreachable:
    why = str(fault) or type(fault).__name__
    return ServiceUnreachable(f"{call}: {redact(why)}", sent=sent)
