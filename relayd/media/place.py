"""Finds out where a playlist really is, as the addresses in it are relative to that.

FFmpeg follows redirections, and does not tell where they have led: a request by `urllib` does.
Of the answers only the headers are read, and those of all of them together have one time limit.
"""

import http.client
import io
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import av

from relayd.media import compat
from relayd.media.http_options import REDIRECTIONS, ca_file, request_headers
from relayd.media.origins import WEB, may_share, options_for, scheme_of

PLACE_LIMIT: Final = 2.0
"""s to connect, and to receive one answer's headers. It cannot be cancelled, so it is short."""
_MOST_ASKED: Final = 5
"""Servers of a chain of redirections that are asked."""
_MOST_COOKIES: Final = 16 * 1024
"""Characters of cookies that are sent back."""
_USER_AGENT: Final = "Lavf/{}.{}.{}".format(*av.library_versions["libavformat"])
"""What FFmpeg says, so that a server sees one program."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a playlist was found."""

    url: str
    """After all redirections."""
    cookies: str = ""
    """What the server asks to send along, one a line, as FFmpeg's option `cookies` has it."""


def find_place(url: str, options: Mapping[str, str]) -> Place:
    """Ask an HTTP server where a playlist really is; the same place where that cannot be found."""
    if scheme_of(url) not in WEB:
        return Place(url)
    try:
        return _follow(url, dict(options))
    except (OSError, ValueError, http.client.HTTPException):
        return Place(url)


def _follow(url: str, options: dict[str, str]) -> Place:
    parts = urlsplit(url)
    here = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    for _ in range(_MOST_ASKED):
        headers = _ask(here, options)
        target = urljoin(here, headers.get("Location", ""))
        if target == here or scheme_of(target) not in WEB:
            break
        options = options_for(target, options, here)
        here = target
    cookies = "\n".join(headers.get_all("Set-Cookie") or [])
    return Place(_with_login(here, url), cookies if len(cookies) <= _MOST_COOKIES else "")


def _ask(url: str, options: Mapping[str, str]) -> http.client.HTTPMessage:
    """Return the headers of an answer; with a Location if it is a redirection."""
    opener = urllib.request.build_opener(
        _Http(), _Https(context=_tls(options)), _NoRedirects(), *_proxy(options)
    )
    headers = request_headers(options, user_agent=_USER_AGENT) | {"Accept": "*/*"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http(s) only
    try:
        with opener.open(request, timeout=PLACE_LIMIT) as response:
            found: http.client.HTTPMessage = response.headers
            del found["Location"]  # of no redirection
            return found
    except urllib.error.HTTPError as error:  # such as 401: the place is known all the same
        with error:
            if error.code not in REDIRECTIONS:
                del error.headers["Location"]
            return cast("http.client.HTTPMessage", error.headers)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Reports a redirection as an error: `urllib` would read its body, however long."""

    def redirect_request(self, *_: object) -> None:
        """Leave it."""


class _TimedSocket(io.RawIOBase):
    """Reads from a socket up to a limit for all of it: each byte may come just in time."""

    def __init__(self, link: socket.socket) -> None:
        super().__init__()
        self._link, self._deadline = link, time.monotonic() + PLACE_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._link.settimeout(left)
        return self._link.recv_into(buffer)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedSocket(sock))


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._trust = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req, context=self._trust)


def _proxy(options: Mapping[str, str]) -> list[urllib.request.ProxyHandler]:
    """Return what leads through the proxy of the user's options; else the environment's counts."""
    proxy = options.get("http_proxy")
    return [urllib.request.ProxyHandler(dict.fromkeys(WEB, proxy))] if proxy else []


def _with_login(found_at: str, url: str) -> str:
    """Put the login of `url` into an address of the same server, for the files beside it."""
    login, at, host = urlsplit(url).netloc.rpartition("@")
    parts = urlsplit(found_at)
    if not at or parts.netloc != host or not may_share(url, found_at):
        return found_at
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file(options))
    if not compat.verifies_tls(options):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
