"""Fetches files over verified TLS, within size limits."""

import asyncio
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

from relayd.errors import LibraryUnavailable, RelaydError
from relayd.http.client import HttpClient
from relayd.logs import redact

FETCH_TIMEOUT: Final = 30.0
"""s without a byte from a host."""
MOST_REDIRECTS: Final = 5
"""Redirects to a file; a package index behind a mirror takes two."""
_READ_AT_ONCE: Final = 64 * 1024
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def fetch(url: str, into: BinaryIO, *, largest: int, accept: str = "*/*") -> str:
    """Write what is at an https: or file: URL to `into`; returns the URL it was found at.

    Raises LibraryUnavailable, also for more than `largest` bytes.
    """
    if urlsplit(url).scheme == "file":
        _copy(url, into, largest)
        return url
    return asyncio.run(_fetch(url, into, largest, accept))


def _copy(url: str, into: BinaryIO, largest: int) -> None:
    path = Path(url2pathname(urlsplit(url).path))
    try:
        if not path.is_file():
            raise LibraryUnavailable(f"{path} is no file")
        with path.open("rb") as stream:
            _Bounded(url, into, largest).copy(stream)
    except OSError as fault:
        raise LibraryUnavailable(f"{path} cannot be read: {fault.strerror}") from fault


async def _fetch(url: str, into: BinaryIO, largest: int, accept: str) -> str:
    # Files are compared with a hash: without transport compression.
    headers = {"accept": accept, "accept-encoding": "identity"}
    async with HttpClient(read_timeout=FETCH_TIMEOUT) as client:
        for _ in range(MOST_REDIRECTS):
            _require_https(url)
            bounded = _Bounded(url, into, largest)
            try:
                answer = await client.request("GET", url, headers=headers, into=bounded.write)
            except LibraryUnavailable:
                raise
            except RelaydError as fault:
                raise LibraryUnavailable(f"cannot be fetched: {fault.message}") from fault
            if answer.status == _OK:
                return url
            bounded.undo()
            if answer.status not in _REDIRECTS:
                raise LibraryUnavailable(f"{redact(url)} cannot be fetched: HTTP {answer.status}")
            url = urljoin(url, answer.headers.get("location", ""))
    raise LibraryUnavailable(f"{redact(url)}: more than {MOST_REDIRECTS} redirects")


def _require_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise LibraryUnavailable(f"{redact(url)} is not fetched: only https is, which is verified")


class _Bounded:
    """Writes to a file, up to a number of bytes."""

    def __init__(self, url: str, into: BinaryIO, largest: int) -> None:
        self._url, self._into, self._left = url, into, largest
        self._largest = largest
        self._start = into.tell()

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise LibraryUnavailable(f"{redact(self._url)} has more than {self._largest} bytes")
        try:
            self._into.write(data)
        except OSError as fault:
            raise LibraryUnavailable(f"what is fetched cannot be stored: {fault}") from fault

    def copy(self, stream: BinaryIO) -> None:
        while data := stream.read(_READ_AT_ONCE):
            self.write(data)

    def undo(self) -> None:
        self._into.seek(self._start)
        self._into.truncate()
