"""Looks at a server that FFmpeg could not read from, to find out why.

Only the source's own server is asked: one GET, or one RTSP OPTIONS without user and password. Each
look is bounded in bytes and in time.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from relayd.errors import ConfigError, RelaydError, ServiceUnreachable, causes
from relayd.http.client import Answer, HttpClient
from relayd.http.proxies import proxy_for
from relayd.http.trust import client_context, unverified_context
from relayd.media.causes import Contact, Facts
from relayd.media.compat import verifies_tls
from relayd.media.contents import START, Boxes, boxes_of
from relayd.media.http_options import REDIRECTIONS, ca_file, request_headers
from relayd.media.symptoms import Asked

HTTP_LIMIT: Final = 5.0
"""s to connect, and again to read: a GET can be cancelled."""
LIMIT: Final = 2.0
"""s for each other step, to connect and to read: a stop waits no longer for it."""
PORTS: Final = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
"""The default port of each scheme whose servers can be looked at."""
_POLL: Final = 0.1
"""s between checks whether the answer is still wanted."""
_MOST_REDIRECTS: Final = 3
_TYPE: Final = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,40}", re.ASCII)
"""A content type without parameters, which may hold anything."""
_USER_AGENT: Final = "Lavf"
_PART: Final = 206
"""The status of an answer to a range request that has only this range."""


def look_at_server(asked: Asked, cancelled: Event) -> Facts:
    """Return what can be found out about the server of a URL that could not be read."""
    try:
        parts = urlsplit(asked.url)
        host, port = parts.hostname or "", parts.port or PORTS[asked.scheme]
    except ValueError:  # brackets that are no address, or a port that is no number
        return Facts()
    is_http = asked.scheme in ("http", "https")
    if not (is_http and _has_proxy(asked.url)) and not _has_address(host):
        return Facts(contact=Contact.NO_SUCH_HOST)
    if is_http:
        return _look_over_http(asked, host, port, cancelled)
    return Facts() if cancelled.is_set() else _greet(asked, host, port)


def _has_proxy(url: str) -> bool:
    try:
        return proxy_for(url) is not None
    except ConfigError:  # asking the server will report it
        return True


def _has_address(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return True


def _look_over_http(asked: Asked, host: str, port: int, cancelled: Event) -> Facts:
    try:
        answer = asyncio.run(_get(asked, cancelled))
    except ServiceUnreachable as fault:
        return _why_not(fault, asked, host, port)
    except (RelaydError, OSError, RuntimeError):
        return Facts()
    return Facts() if answer is None else _facts_of(answer, asked)


def _facts_of(answer: Answer, asked: Asked) -> Facts:
    if _is_redirect(answer):
        leads_back = _origin(_target(answer, asked.url)) == _origin(asked.url)
        return Facts(contact=Contact.CIRCLE if leads_back else Contact.ELSEWHERE)
    return Facts(
        status=answer.status,
        content_type=_type_of(answer),
        start=answer.body,
        boxes=_boxes_of(answer),
        has_ranges=answer.status == _PART or "bytes" in answer.headers.get("accept-ranges", ""),
    )


def _type_of(answer: Answer) -> str:
    found = _TYPE.match(answer.headers.get("content-type", ""))
    return found[0] if found else ""


async def _get(asked: Asked, cancelled: Event) -> Answer | None:
    """Fetch the beginning of a URL; None when `cancelled` meanwhile."""
    task = asyncio.create_task(_fetch(asked))
    while not task.done():
        await asyncio.wait({task}, timeout=_POLL)
        if cancelled.is_set() and task.cancel():
            await asyncio.wait({task})
            return None
    return task.result()


async def _fetch(asked: Asked) -> Answer:
    """Follow redirects on the same server alone: another one must not get user and password."""
    url = asked.url
    headers = request_headers(asked.options, user_agent=_USER_AGENT)
    headers["Range"] = f"bytes=0-{START - 1}"
    trust = partial(_context, asked.options)
    async with HttpClient(
        connect_timeout=HTTP_LIMIT, read_timeout=HTTP_LIMIT, trust=trust
    ) as client:
        for _ in range(_MOST_REDIRECTS):
            answer = await client.peek(url, most=START, seconds=HTTP_LIMIT, headers=headers)
            following = _target(answer, url)
            if not _is_redirect(answer) or _origin(following) != _origin(url):
                break
            url = _with_login(following, asked.url)
    return answer


def _is_redirect(answer: Answer) -> bool:
    return answer.status in REDIRECTIONS and "location" in answer.headers


def _target(answer: Answer, url: str) -> str:
    """Return where an answer leads; an address that is none leads back."""
    try:
        target = urljoin(url, answer.headers.get("location", ""))
        _origin(target)
    except ValueError:  # a port that is no number, brackets that are no address
        return url
    return target


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)


def _with_login(url: str, original: str) -> str:
    parts, login = urlsplit(url), urlsplit(original).netloc.rpartition("@")[0]
    place = parts.netloc.rpartition("@")[2]
    return SplitResult(
        parts.scheme, f"{login}@{place}" if login else place, parts.path, parts.query, ""
    ).geturl()


def _boxes_of(answer: Answer) -> Boxes:
    def read(offset: int, count: int) -> bytes:
        return answer.body[offset : offset + count]

    whole = answer.headers.get("content-range", "").rpartition("/")[2]
    size = whole if answer.status == _PART else answer.headers.get("content-length", "")
    return boxes_of(read, int(size) if size.isdecimal() else None)


def _why_not(fault: ServiceUnreachable, asked: Asked, host: str, port: int) -> Facts:
    """Tell from a failed request what is wrong with the connection."""
    for error in causes(fault):
        if isinstance(error, ssl.SSLCertVerificationError):
            return Facts(contact=Contact.UNTRUSTED, reason=error.verify_message)
        if isinstance(error, ssl.SSLError):
            return Facts(contact=Contact.NO_TLS)
        if isinstance(error, socket.gaierror):
            return Facts(contact=Contact.NO_SUCH_HOST)
    if (
        asked.scheme == "http"
        and not fault.message.endswith("timed out")
        and _speaks_tls(host, port)
    ):
        return Facts(contact=Contact.TLS)
    return Facts()


def _greet(asked: Asked, host: str, port: int) -> Facts:
    """Connect to a server that speaks no HTTP, and see what answers."""
    if asked.scheme in ("rtsps", "rtmps"):
        return _shake_hands(asked, host, port)
    if asked.scheme != "rtsp":
        is_tls = _speaks_tls(host, port)
        return Facts(contact=Contact.TLS if is_tls else Contact.UNKNOWN)
    place = _in_ascii(host)
    request = (
        f"OPTIONS rtsp://{place}:{port}/ RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: {_USER_AGENT}\r\n\r\n"
    )
    try:
        with socket.create_connection((host, port), LIMIT) as link:
            link.sendall(request.encode())
            answer = link.recv(64)
    except TimeoutError:
        return Facts(contact=Contact.SILENT)
    except OSError:
        answer = b""
    if answer.startswith((b"HTTP/", b"<")):
        return Facts(contact=Contact.WEB_SERVER)
    if not answer.startswith(b"RTSP/") and _speaks_tls(host, port):
        return Facts(contact=Contact.TLS)
    return Facts()


def _in_ascii(host: str) -> str:
    """Return a host as it stands in a URL, in the letters that protocols know."""
    with suppress(UnicodeError):  # no such host; then it would not have been found
        host = host.encode("idna").decode()
    return f"[{host}]" if ":" in host else host


def _context(options: Mapping[str, str]) -> ssl.SSLContext:
    """Return the TLS context that verifies a server as FFmpeg's options ask for."""
    if not verifies_tls(options):
        return unverified_context()
    store = ca_file(options)
    return client_context({"SSL_CERT_FILE": store} if store else None)


def _shake_hands(asked: Asked, host: str, port: int) -> Facts:
    try:
        context = _context(asked.options)
        with (
            socket.create_connection((host, port), LIMIT) as link,
            context.wrap_socket(link, server_hostname=host),
        ):
            return Facts()
    except ssl.SSLCertVerificationError as error:
        return Facts(contact=Contact.UNTRUSTED, reason=error.verify_message)
    except ssl.SSLError:
        return Facts(contact=Contact.NO_TLS)
    except (OSError, ValueError, ConfigError):
        return Facts()


def _speaks_tls(host: str, port: int) -> bool:
    try:
        with (
            socket.create_connection((host, port), LIMIT) as link,
            unverified_context().wrap_socket(link, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False
