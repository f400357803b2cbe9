"""Looks at the first bytes behind an http(s) URL that FFmpeg could make nothing of.

FFmpeg's own HTTP fetches them, with the same options, user and password. That matters for three
kinds of answer that browsers show and FFmpeg does not open: a single picture without
Content-Length, whose end FFmpeg takes for a broken connection; a multipart stream whose first
boundary is missing; and one whose parts are called image/jpg.
"""

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Final, SupportsFloat

import av.error

from relayd.errors import SourceError
from relayd.media.fetch import open_raw
from relayd.media.hls_playlist import is_playlist
from relayd.media.jpeg import JPEG_END, JPEG_START, lacks_end

_ENOUGH: Final = 64 * 1024
"""Bytes that hold the first JPEG picture's beginning, after any headers of a multipart stream."""
_LARGEST_PICTURE: Final = 32 * 1024 * 1024
"""Bytes of a single picture that are fetched."""
_NEXT_JPEG: Final = JPEG_END + JPEG_START
"""The end of one picture and the beginning of the next."""
_PICTURES: Final = (JPEG_START, b"\x89PNG\r\n", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
"""How the files of single pictures begin."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP server sends."""

    content: bytes
    """From the beginning: all of a single picture, of anything else a part."""
    is_whole: bool
    """Whether there is no more."""

    @property
    def is_picture(self) -> bool:
        """Whether it is one picture, and complete."""
        is_picture = self.content.startswith(_PICTURES)
        return self.is_whole and is_picture and not lacks_end(self.content)

    @property
    def is_playlist(self) -> bool:
        """Whether it is an HLS playlist."""
        return is_playlist(self.content.decode("utf-8", "replace"))

    @property
    def has_jpeg(self) -> bool:
        """Whether a JPEG picture begins in it, maybe after some headers."""
        return JPEG_START in self.content


class PictureBytes(BytesIO):
    """A single picture in memory, for FFmpeg to read."""

    def __init__(self, content: bytes, name: str) -> None:
        """`name` is a safe name for errors."""
        super().__init__(content)
        self.name = name
        self.fault: SourceError | None = None
        """Never: memory does not fail."""


def was_answered(fault: SourceError) -> bool:
    """Whether opening failed because FFmpeg could make nothing of what the server sent."""
    return isinstance(fault.__context__, _UNREADABLE) or type(fault.__context__) in _UNNAMED


def found_nothing(fault: SourceError) -> bool:
    """Whether opening went well, and yet there was no video."""
    return not isinstance(fault.__context__, av.error.FFmpegError | OSError | ValueError)


_UNREADABLE: Final = (av.error.InvalidDataError, av.error.EOFError, av.error.HTTPBadRequestError)
_UNNAMED: Final = {OSError, av.error.OSError, av.error.FFmpegError}
"""EIO, as which FFmpeg reports the end of an answer without a length, and EPROTONOSUPPORT have no
class of their own; refused connections and the like have."""


def look_inside(
    url: str, options: Mapping[str, str], *, timeout: tuple[SupportsFloat, SupportsFloat]
) -> Answer | None:
    """Fetch the beginning of what is behind a URL; None if nothing comes.

    A single picture is fetched whole. `timeout` is in seconds, to open and to read.
    """
    content = bytearray()
    is_cut = False
    with (
        suppress(av.error.FFmpegError, OSError),
        closing(open_raw(url, options, timeout)) as container,
    ):
        for packet in container.demux():
            content += bytes(packet)
            is_cut = _is_enough(content, packet.size)
            if is_cut:
                break
    return Answer(bytes(content), not is_cut) if content else None


def _is_enough(content: bytearray, added: int) -> bool:
    """Whether more of an answer would say no more about it; the last `added` bytes are new."""
    if content.startswith(_PICTURES):
        # Looked for in the new part alone: all of it each time would take seconds.
        begin = max(0, len(content) - added - len(_NEXT_JPEG))
        return len(content) >= _LARGEST_PICTURE or content.find(_NEXT_JPEG, begin) >= 0
    return len(content) >= _ENOUGH or JPEG_START in content
