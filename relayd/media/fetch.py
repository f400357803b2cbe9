"""Reads files for a demuxer that names them one by one (HLS), with limits on each step.

Segments and keys come through FFmpeg's own protocols, so that a user's options mean there what
they mean everywhere. Playlists over HTTP come through `urllib`: only it tells where a redirection
has led, and the segments' addresses are relative to that.
"""

import base64
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import av
import av.error

from relayd.media import compat

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

LARGEST_PLAYLIST: Final = 4 * 1024 * 1024
"""Bytes: a playlist of a day of 2 s segments has about 2 MB."""
_PIECE: Final = 64 * 1024
"""Bytes that FFmpeg hands over at a time."""
_HTTP: Final = ("http", "https")
_USER_AGENT: Final = "Lavf/{}.{}.{}".format(*av.library_versions["libavformat"])
"""What FFmpeg says, so that a server sees one program."""
_HTTP_ERRORS: Final[dict[int, type[av.error.FFmpegError]]] = {
    400: av.error.HTTPBadRequestError,
    401: av.error.HTTPUnauthorizedError,
    403: av.error.HTTPForbiddenError,
    404: av.error.HTTPNotFoundError,
}
"""As FFmpeg's own HTTP would raise; other codes below 500 are HTTPOtherClientError."""


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
    return None if "://" in url or url.startswith(("crypto", "data:")) else Path(url)


@dataclass(frozen=True, slots=True)
class FetchedText:
    """A playlist, and where it was found."""

    text: str
    url: str
    """After all redirections: relative addresses in the text start here."""
    cookies: str
    """What the server asks to send along, one a line, as FFmpeg's option `cookies` has it."""


def fetch_text(url: str, options: Mapping[str, str], timeout: float) -> FetchedText:
    """Fetch a small text with the meaning that FFmpeg's HTTP gives to `options`.

    `timeout` limits each step. Raises OSError or av.error.FFmpegError.
    """
    if urlsplit(url).scheme.lower() in _HTTP:
        return _fetch_over_http(url, options, timeout)
    source = open_file(url, options, timeout)
    try:
        content = b""
        while len(content) < LARGEST_PLAYLIST and (piece := source.read(_PIECE)):
            content += piece
    finally:
        source.close()
    return FetchedText(content.decode("utf-8", "replace"), url, "")


def _fetch_over_http(url: str, options: Mapping[str, str], timeout: float) -> FetchedText:
    address, login = _without_login(url)
    request = urllib.request.Request(address, headers=_headers(options))  # noqa: S310 - http(s) only
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_tls(options)))
    try:
        with _ask(opener, request, login, timeout) as response:
            content: bytes = response.read(LARGEST_PLAYLIST)
            cookies = response.headers.get_all("Set-Cookie") or []
            found_at: str = response.geturl()
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else error from None
    except http.client.HTTPException as error:
        raise OSError(f"the server speaks no HTTP: {type(error).__name__}") from None
    return FetchedText(
        content.decode("utf-8", "replace"), _with_login(found_at, url), "\n".join(cookies)
    )


def _ask(
    opener: urllib.request.OpenerDirector,
    request: urllib.request.Request,
    login: tuple[str, str] | None,
    timeout: float,
) -> http.client.HTTPResponse:
    """Return the answer to a request, made again with the login when the server asks for it."""
    try:
        return cast("http.client.HTTPResponse", opener.open(request, timeout=timeout))
    except urllib.error.HTTPError as error:
        with error:
            is_repeated = request.has_header("Authorization")
            if error.code != HTTPStatus.UNAUTHORIZED or login is None or is_repeated:
                raise _as_ffmpeg(error.code) from None
            answer = _answer(error.headers.get("WWW-Authenticate", ""), request, login)
    request.add_unredirected_header("Authorization", answer)
    return _ask(opener, request, login, timeout)


def _answer(challenge: str, request: urllib.request.Request, login: tuple[str, str]) -> str:
    """Return the Authorization header that a server asks for."""
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() != "digest":
        return "Basic " + base64.b64encode(":".join(login).encode()).decode()
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, request.full_url, *login)
    asked = urllib.request.parse_keqv_list(
        [part for part in urllib.request.parse_http_list(rest) if part]
    )
    answer = urllib.request.HTTPDigestAuthHandler(passwords).get_authorization(request, asked)
    return f"Digest {answer}"


def _without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = login.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password))


def _with_login(found_at: str, url: str) -> str:
    """Put the login of `url` into an address of the same server, for the files beside it."""
    login, at, host = urlsplit(url).netloc.rpartition("@")
    parts = urlsplit(found_at)
    if not at or parts.netloc != host:
        return found_at
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ca_file", options.get("cafile")))
    if options.get("tls_verify", "0") in ("0", "false"):  # FFmpeg's default
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


def _as_ffmpeg(code: int) -> av.error.FFmpegError:
    if code in _HTTP_ERRORS:
        return _HTTP_ERRORS[code](0, f"Server returned {code}")
    if code < 500:  # noqa: PLR2004 - HTTP: the client's faults end here
        return av.error.HTTPOtherClientError(0, f"Server returned {code}")
    return av.error.HTTPServerError(0, f"Server returned {code}")
