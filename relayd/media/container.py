"""Opens the container of a source, and says why it cannot."""

from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import Final, SupportsFloat

import av.error
from av.container import InputContainer

from relayd.media import compat, hls
from relayd.media.feed import ByteFeed
from relayd.media.heif import Grid
from relayd.media.hls import HlsFiles
from relayd.media.interrupt import UNLIMITED
from relayd.media.refusals import not_joined, refusal
from relayd.media.selection import shows_tiles
from relayd.media.srt import SrtReader, is_srt
from relayd.media.streams import StreamWish
from relayd.media.symptoms import Asked
from relayd.media.tiles import find_grid

MAX_PIXELS: Final = 8192 * 8192
"""Pixels of a coded picture: a malicious header may claim far more than fits in memory."""


@dataclass(frozen=True, slots=True)
class OpenContainer:
    """An open container, and what it is read from."""

    container: InputContainer
    feed: ByteFeed | None
    """What is read in place of the URL."""
    files: HlsFiles | None
    """What hands over the files of a playlist."""
    grid: Grid | None
    """How its streams are the tiles of one picture."""


def open_container(
    asked: Asked,
    *,
    demuxer: str,
    stream: StreamWish,
    open_timeout: SupportsFloat,
    read_timeout: SupportsFloat,
    cancelled: Event,
    feed: ByteFeed | None,
    files: HlsFiles | None,
    undo: ExitStack,
) -> OpenContainer:
    """Open what is asked for; see VideoInput.open. `undo` gets what closes it.

    Raises SourceError.
    """
    if is_srt(asked.url):
        feed = SrtReader(
            asked.url,
            asked.name,
            open_timeout=float(open_timeout),
            read_timeout=read_timeout,
            cancelled=cancelled,
        )
    if feed is not None:
        undo.callback(feed.close)
    limited = {"max_pixels": str(MAX_PIXELS)} | dict(asked.options)
    timeout = open_timeout, read_timeout
    grid = None
    try:
        if files is not None and not files.fetch():
            files = None
        container = compat.open_input(
            feed or asked.url,
            format=hls.DEMUXER if files else demuxer or None,
            options=(hls.OPTIONS if files else {}) | limited,
            timeout=(open_timeout, UNLIMITED if files else read_timeout),
            io_open=files,
        )
        undo.callback(container.close)
        tiled = shows_tiles(container, stream)
        if tiled and feed is None:  # a pipe cannot be read twice
            grid = find_grid(asked.url, limited, timeout, MAX_PIXELS)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        fault = feed.fault if feed else None
        raise fault or refusal(error, asked) from None
    if tiled and not grid:
        raise not_joined(asked.name)
    return OpenContainer(container, feed, files, grid)
