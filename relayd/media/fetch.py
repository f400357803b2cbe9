"""Reads files for a demuxer that names them one by one (HLS), with limits on each step.

They come through FFmpeg's own protocols, so that a user's options mean there what they mean
everywhere, and cancelling ends a read. FFmpeg does not tell where a redirection has led, though,
and the addresses in a playlist are relative to that: one request by `urllib` finds it out.
"""

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

import av
import av.error

from relayd.errors import SourceUnusable
from relayd.media import compat
from relayd.media.origins import WEB, options_for, plain_url, scheme_of

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

LARGEST_PLAYLIST: Final = 4 * 1024 * 1024
"""Bytes: a playlist of a day of 2 s segments has about 2 MB."""
PLACE_LIMIT: Final = 2.0
"""s for each step of asking for a redirection, which cannot be cancelled."""
_PIECE: Final = 64 * 1024
"""Bytes that FFmpeg hands over at a time."""
_USER_AGENT: Final = "Lavf/{}.{}.{}".format(*av.library_versions["libavformat"])
"""What FFmpeg says, so that a server sees one program."""


class ByteSource(Protocol):
    """What PyAV reads from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""

    def close(self) -> None:
        """Close it."""


class Nothing:
    """A file without content: what is left of one that cannot be fetched."""

    def read(self, size: int, /) -> bytes:  # noqa: ARG002  # there is nothing of any size
        """Return the end of the file."""
        return b""

    def close(self) -> None:
        """Do nothing."""


class FetchedFile:
    """A file behind any URL that FFmpeg can open, as bytes."""

    def __init__(self, url: str, options: Mapping[str, str], timeout: float) -> None:
        """Open it, with `timeout` s for that and for each piece. Raises what PyAV raises."""
        self._container = compat.open_input(
            url,
            format="data",  # FFmpeg's demuxer that hands over the bytes as they are
            options={"raw_packet_size": str(_PIECE)} | dict(options),
            timeout=(timeout, timeout),
        )
        self._packets = cast("Generator[Packet[Stream], None, None]", self._container.demux())
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end, also where reading fails."""
        if not self._rest:
            try:
                packet = next(self._packets, None)
            except (av.error.FFmpegError, OSError):
                packet = None
            if packet is None or not packet.size:
                return b""
            self._rest = memoryview(bytes(packet))
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)

    def close(self) -> None:
        """Close the connection."""
        self._packets.close()
        self._container.close()


def open_file(url: str, options: Mapping[str, str], timeout: float) -> ByteSource:
    """Open a file of this machine or behind a URL. Raises OSError or av.error.FFmpegError."""
    path = local_path(url)
    if path is not None:
        return cast("IO[bytes]", path.open("rb"))  # seekable, as ranges of a file need
    return FetchedFile(url, options, timeout)


def local_path(url: str) -> Path | None:
    """Return the path of a file of this machine, None for a URL of any other kind."""
    if url.startswith("file:"):
        return Path(url.removeprefix("file://" if url.startswith("file://") else "file:"))
    return None if "://" in url or scheme_of(url) or plain_url(url) != url else Path(url)


def fetch_text(url: str, name: str, options: Mapping[str, str], timeout: float) -> str:
    """Fetch a playlist; `timeout` limits each step, s. `name` replaces the URL in errors.

    Raises OSError or av.error.FFmpegError; SourceUnusable for one that is too large: without its
    end a recording would look like a live stream.
    """
    source = open_file(url, options, timeout)
    content = bytearray()
    try:
        while len(content) <= LARGEST_PLAYLIST and (piece := source.read(_PIECE)):
            content += piece
    finally:
        source.close()
    if len(content) > LARGEST_PLAYLIST:
        limit = f"{LARGEST_PLAYLIST >> 20} MiB"
        raise SourceUnusable(f"{name}: its playlist is larger than {limit}", hint="see [source]")
    return content.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a playlist was found."""

    url: str
    """After all redirections."""
    cookies: str = ""
    """What the server asks to send along, one a line, as FFmpeg's option `cookies` has it."""


def find_place(url: str, options: Mapping[str, str]) -> Place:
    """Ask an HTTP server where a playlist really is; the same place where that cannot be found."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in WEB:
        return Place(url)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(address, headers=_headers(options))  # noqa: S310 - http(s) only
    try:
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=_tls(options)),
            _Redirects(options),
            *_proxy(options),
        )
        try:
            response = opener.open(request, timeout=PLACE_LIMIT)
        except urllib.error.HTTPError as error:
            response = error  # such as 401: the place is known all the same
        with response:
            cookies = response.headers.get_all("Set-Cookie") or []
            return Place(_with_login(response.geturl(), url), "\n".join(cookies))
    except (OSError, ValueError, http.client.HTTPException):
        return Place(url)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web servers alone, and tells another one no credentials."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = dict(options)

    def redirect_request(  # noqa: PLR0917  # urllib's own arguments
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        is_followed = super().redirect_request(req, fp, code, msg, headers, newurl) is not None
        if not is_followed or scheme_of(newurl) not in WEB:
            return None
        self._options = options_for(newurl, self._options, req.full_url)
        return urllib.request.Request(newurl, headers=_headers(self._options))  # noqa: S310 - http(s) only


def _proxy(options: Mapping[str, str]) -> list[urllib.request.ProxyHandler]:
    """Return what leads through the proxy of the user's options; else the environment's counts."""
    proxy = options.get("http_proxy")
    return [urllib.request.ProxyHandler(dict.fromkeys(WEB, proxy))] if proxy else []


def _with_login(found_at: str, url: str) -> str:
    """Put the login of `url` into an address of the same server, for the files beside it."""
    login, at, host = urlsplit(url).netloc.rpartition("@")
    parts = urlsplit(found_at)
    if not at or parts.netloc != host:
        return found_at
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ca_file", options.get("cafile")))
    if not compat.verifies_tls(options):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _headers(options: Mapping[str, str]) -> dict[str, str]:
    headers = {"User-Agent": options.get("user_agent", _USER_AGENT), "Accept": "*/*"}
    if referer := options.get("referer"):
        headers["Referer"] = referer
    for line in options.get("headers", "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    if cookies := options.get("cookies"):
        headers["Cookie"] = "; ".join(line.partition(";")[0] for line in cookies.splitlines())
    return headers
