"""Reads files for a demuxer that names them one by one (HLS), with limits on each step.

They come through FFmpeg's own protocols, so that a user's options mean there what they mean
everywhere, and cancelling ends a read.
"""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol, SupportsFloat, cast

import av.error
from av.container import InputContainer

from relayd.errors import SourceUnusable
from relayd.media import compat
from relayd.media.origins import plain_url, scheme_of

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

LARGEST_PLAYLIST: Final = 4 * 1024 * 1024
"""Bytes: a playlist of a day of 2 s segments has about 2 MB."""
_PIECE: Final = 64 * 1024
"""Bytes that FFmpeg hands over at a time."""


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
        self._container = open_raw(url, options, (timeout, timeout))
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


def open_raw(
    url: str, options: Mapping[str, str], timeout: tuple[SupportsFloat, SupportsFloat]
) -> InputContainer:
    """Open any URL so that its packets are its bytes as they are. Raises what `av.open` raises."""
    pieces = {"raw_packet_size": str(_PIECE)}
    return compat.open_input(url, format="data", options=pieces | dict(options), timeout=timeout)


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
