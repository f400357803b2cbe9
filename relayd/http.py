"""HTTP as relayd needs it: one small client over httpx, its failures mapped into our tree.

Only this module imports httpx.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from relayd.errors import ServerFault, ServiceUnreachable
from relayd.logs import redact

LARGEST_ANSWER = 4 * 1024 * 1024
"""Bytes. The largest honest answer is a face list of some kB."""

_NEVER_SENT = (
    httpx.ConnectError,  # refused, no route, DNS, TLS handshake
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,  # a header that HTTP cannot carry
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    UnicodeError,
)
"""Failures before the first byte of the request left this machine."""


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
            excerpt = redact(self.text[:80])
            raise ServerFault(f"HTTP {self.status} answered no JSON: {excerpt!r}") from fault


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
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(read_timeout, connect=connect_timeout),
            follow_redirects=False,
            transport=transport,
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
        """Close all connections."""
        await self._client.aclose()

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
    ) -> Answer:
        """Send one request and read the whole answer, of any status.

        Raises ServiceUnreachable when no answer came (refused, timed out, cut off, TLS, a URL
        that names nothing), ServerFault when the answer is larger than `largest` bytes.
        """
        try:
            async with self._client.stream(
                method,
                url,
                headers=dict(headers or {}),
                json=json_body,
                content=content,
                timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > largest:
                        raise ServerFault(
                            f"{method} {redact(url)} answered more than {largest} bytes"
                        )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as fault:
            why = str(fault) or type(fault).__name__
            raise ServiceUnreachable(
                f"{method} {redact(url)}: {redact(why)}",
                sent=not isinstance(fault, _NEVER_SENT),
            ) from fault
        headers_seen = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers_seen, bytes(body))
