"""A small HTTP client over httpx, whose failures are mapped to relayd's errors.

Only this module imports httpx.
"""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from relayd.errors import ConfigError, RelaydError, ServerFault, ServiceUnreachable, causes
from relayd.http.proxies import Proxy, proxy_for
from relayd.http.trust import UNTRUSTED_HINT, client_context
from relayd.logs import LogEvent, excerpt, get, redact
from relayd.urls.safe import MediaUrl

LARGEST_ANSWER = 4 * 1024 * 1024
"""Bytes. The largest normal answer is a face list of a few kB."""
_LONGEST_EXCERPT = 80
"""Characters of an answer that a message repeats."""

_NEVER_SENT = (
    httpx.ProxyError,  # the proxy refused to connect
    httpx.ConnectError,  # refused, no route, DNS, TLS handshake
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,  # a header that is not valid in HTTP
    httpx.UnsupportedProtocol,
    UnicodeError,  # a host name that IDNA cannot encode
    OverflowError,  # a port number out of range
)
"""Failures before the first byte of the request was sent."""

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
        """The body as JSON; ServerFault if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as fault:
            start = excerpt(self.text, _LONGEST_EXCERPT)
            raise ServerFault(f"HTTP {self.status} answered no JSON: {start!r}") from fault


class HttpClient:
    """One connection pool; used from one event loop."""

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 15.0,
        unix_socket: Path | None = None,
        trust: Callable[[], ssl.SSLContext] = client_context,
    ) -> None:
        """Open nothing yet; with `unix_socket` every request goes there, whatever its host.

        `trust` returns the TLS context of servers, and may raise ConfigError.
        """
        self._has_proxies = unix_socket is None
        self._timeout = httpx.Timeout(read_timeout, connect=connect_timeout)
        self._trust = trust
        self._client = _client(
            self._timeout,
            _Routes(trust) if unix_socket is None else _unix_transport(unix_socket),
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
        """Close all connections; one that cannot be closed stays until the process ends."""
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

        With `fresh` it is sent over its own new TCP connection: a kept one may be dead without
        notice, mainly after a sleep of the machine, and the request would be lost.
        `shown` replaces the URL in errors, by default its safe form.
        `into` gets the body in chunks; it then has no size limit and is not stored.

        Raises ServiceUnreachable when no answer came (refused, timed out, cut off, TLS, an
        invalid URL, a proxy that fails or cannot be used), ServerFault when the answer is
        larger than `largest` bytes.
        """
        call = f"{method} {shown or MediaUrl(url)}"

        async def read(response: httpx.Response) -> bytes:
            return await _read(response, call, largest, into)

        asked = {
            "headers": dict(headers or {}),
            "json": json_body,
            "content": content,
            "timeout": httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
        }
        return await self._send(call, method, url, asked, read, fresh=fresh)

    async def peek(
        self, url: str, *, most: int, seconds: float, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """GET a URL, and return the answer with at most the first `most` bytes of its body.

        Reading ends after `seconds`, too: a live stream has no end. User and password in the URL
        are sent as the server asks for them, Basic or Digest. Redirects are not followed.
        Raises ServiceUnreachable as `request` does.
        """

        async def read(response: httpx.Response) -> bytes:
            return await _read_start(response, most, seconds)

        asked = {"headers": dict(headers or {})}
        return await self._send(f"GET {MediaUrl(url)}", "GET", url, asked, read, asks_first=True)

    async def _send(
        self,
        call: str,
        method: str,
        url: str,
        asked: Mapping[str, Any],
        read: Callable[[httpx.Response], Awaitable[bytes]],
        *,
        fresh: bool = False,
        asks_first: bool = False,
    ) -> Answer:
        try:
            proxy = proxy_for(url) if self._has_proxies else None
            request = self._client.build_request(method, url, **asked)
        except ConfigError as fault:
            raise ServiceUnreachable(f"{call}: {fault}", sent=False) from fault
        except (httpx.InvalidURL, ValueError) as fault:
            raise _unreachable(call, fault, None, sent=False) from fault
        # Otherwise httpx sends user and password of the URL at once, as Basic.
        login = _Login(request.url) if asks_first else httpx.USE_CLIENT_DEFAULT
        try:
            async with self._client_for(fresh=fresh) as client:
                response = await client.send(request, stream=True, auth=login)
                try:
                    body = await read(response)
                finally:
                    await response.aclose()
        except ConfigError as fault:
            raise ServiceUnreachable(f"{call}: {fault}", sent=False) from fault
        except RelaydError:
            raise
        except Exception as fault:
            # Besides its own errors httpx raises those of its transports, such as a RuntimeError
            # of a connection that closed (encode/httpx#3544).
            raise _unreachable(call, fault, proxy, sent=not _never_left(fault)) from fault
        if proxy and response.status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            refusal = httpx.ProxyError(f"{response.status_code} {response.reason_phrase}")
            raise _unreachable(call, refusal, proxy, sent=False)
        headers_seen = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers_seen, body)

    @asynccontextmanager
    async def _client_for(self, *, fresh: bool) -> AsyncIterator[httpx.AsyncClient]:
        if not fresh:
            yield self._client
            return
        client = _client(self._timeout, _Routes(self._trust))
        try:
            yield client
        finally:
            await _close(client)


def _client(timeout: httpx.Timeout, transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,  # its own proxy and certificate code raises other errors
        transport=transport,
    )


async def _close(client: httpx.AsyncClient) -> None:
    try:
        await client.aclose()
    except Exception as fault:  # noqa: BLE001 - its transports raise anything
        _log.debug(LogEvent.HTTP_NOT_CLOSED, reason=str(fault))


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


async def _read_start(response: httpx.Response, most: int, seconds: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) >= most:
                    break
    except (TimeoutError, httpx.StreamError, httpx.TransportError, httpx.DecodingError):
        pass  # what came until then is worth a look
    return bytes(body[:most])


class _Login(httpx.Auth):
    """The user and password of a URL, sent as the server asks for them."""

    def __init__(self, url: httpx.URL) -> None:
        self._user, self._password = url.username, url.password

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield request
        asked = response.headers.get("www-authenticate", "").lower()
        if response.status_code != HTTPStatus.UNAUTHORIZED:
            return
        if "digest" in asked:
            digest = httpx.DigestAuth(self._user, self._password).auth_flow(request)
            next(digest)
            yield digest.send(response)
        elif "basic" in asked:
            yield next(httpx.BasicAuth(self._user, self._password).auth_flow(request))


def require_reachable(url: str) -> None:
    """Raise ConfigError for a proxy variable or CA file that prevents reaching `url`.

    Nothing is sent.
    """
    proxy_for(url)
    if url.lower().startswith("https:"):
        client_context()


class _Routes(httpx.AsyncBaseTransport):
    """Sends each request directly, or through the proxy that the environment names for it."""

    def __init__(self, trust: Callable[[], ssl.SSLContext]) -> None:
        self._trust = trust
        self._transports: dict[tuple[Proxy | None, bool], httpx.AsyncHTTPTransport] = {}
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = proxy_for(str(request.url))
        is_secure = request.url.scheme == "https"
        route = proxy, is_secure
        if route not in self._transports:
            try:
                self._transports[route] = self._make_transport(proxy, is_secure=is_secure)
            except ConfigError:
                raise
            except Exception as fault:
                raise httpx.ConnectError(f"no connection can be prepared: {fault}") from fault
        return await self._transports[route].handle_async_request(request)

    async def aclose(self) -> None:
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            await transport.aclose()

    def _make_transport(self, proxy: Proxy | None, *, is_secure: bool) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(
            # Plain HTTP verifies nothing; reading the CA store takes 20 ms and more.
            verify=self._context() if is_secure else False,
            trust_env=False,
            proxy=self._proxy(proxy) if proxy else None,
        )

    def _proxy(self, proxy: Proxy) -> httpx.Proxy:
        is_secure = proxy.url.lower().startswith("https:")
        return httpx.Proxy(proxy.url, ssl_context=self._context() if is_secure else None)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._trust()
        return self._tls


def _unix_transport(unix_socket: Path) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(uds=str(unix_socket), verify=False, trust_env=False)


def _never_left(fault: BaseException) -> bool:
    """Whether a request that failed like this was not sent, or only reached a proxy."""
    if isinstance(fault, BaseExceptionGroup):  # of parallel attempts to connect
        return all(map(_never_left, fault.exceptions))
    return isinstance(fault, _NEVER_SENT)


def _unreachable(
    call: str, fault: Exception, proxy: Proxy | None, *, sent: bool
) -> ServiceUnreachable:
    why, hint = redact(_reason(fault)), ""
    if "CERTIFICATE_VERIFY_FAILED" in why:
        hint = UNTRUSTED_HINT
    if proxy:
        why = f"through the proxy {proxy.description}: {why}"
        hint = hint or f"check {proxy.variable}, or name the host in NO_PROXY"
    return ServiceUnreachable(f"{call}: {why}", hint=hint, sent=sent)


def _reason(fault: BaseException) -> str:
    """Return what went wrong; the operating system's message, if there is one."""
    for error in causes(fault):
        if isinstance(error, socket.gaierror):
            return str(error.strerror)
        if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
            return os.strerror(error.errno)
    text = "; ".join(str(error) for error in _flattened(fault))
    return text or type(fault).__name__


def _flattened(fault: BaseException) -> list[BaseException]:
    if isinstance(fault, BaseExceptionGroup):
        return [leaf for error in fault.exceptions for leaf in _flattened(error)]
    return [fault]
