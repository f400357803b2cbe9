"""Joins the tiles of a HEIF picture, which FFmpeg gives as streams of their own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, SupportsFloat, cast

import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from relayd.media import compat
from relayd.media.fetch import open_raw
from relayd.media.heif import Grid, read_grid

if TYPE_CHECKING:
    from av.filter.context import FilterContext

LARGEST_FILE: Final = 64 * 1024 * 1024
"""Bytes read to find the grid: photos of phones have 2 to 10 MB."""
MOST_TILES: Final = 1000
"""As many streams as FFmpeg opens; photos of phones have 50 to 200. A damaged file may repeat one
tile 65025 times, which takes FFmpeg minutes."""


def find_grid(
    url: str, options: Mapping[str, str], timeout: tuple[SupportsFloat, SupportsFloat], largest: int
) -> Grid | None:
    """Read the grid of the picture at `url`, of at most `largest` pixels; None if it has none.

    Raises what `av.open` raises.
    """
    content = bytearray()
    with open_raw(url, options, timeout) as container:
        for packet in container.demux():
            content += bytes(packet)
            if len(content) > LARGEST_FILE:
                break
    grid = read_grid(bytes(content))
    if not grid or grid.width * grid.height > largest or len(grid.tiles) > MOST_TILES:
        return None
    return grid


def join_tiles(container: InputContainer, grid: Grid) -> VideoFrame | None:
    """Decode all tiles and return the whole picture; None if it cannot be made of them.

    Raises av.error.FFmpegError, OSError or ValueError.
    """
    streams = {stream.id: stream for stream in container.streams.video}
    if not set(grid.tiles) <= streams.keys():
        return None
    decoded = _decode(container, [streams[item] for item in grid.tiles])
    if any(item not in decoded for item in grid.tiles):
        return None
    tiles = [decoded[item] for item in grid.tiles]
    return _lay_out(tiles, grid) if _are_needed(tiles[0], grid) else None


def _decode(container: InputContainer, streams: Sequence[VideoStream]) -> dict[int, VideoFrame]:
    """Return the first picture of each stream, by the stream's id."""
    decoded: dict[int, VideoFrame] = {}
    for packet in container.demux(*streams):
        stream = cast("VideoStream", packet.stream)
        try:
            frames = cast("list[VideoFrame]", packet.decode())
        except av.error.FFmpegError:
            continue
        for frame in frames:
            decoded.setdefault(stream.id, frame)
    return decoded


def _are_needed(tile: VideoFrame, grid: Grid) -> bool:
    """Whether tiles of this size all show a part of the picture, so that they fit in memory."""
    return (grid.columns - 1) * tile.width < grid.width and (
        grid.rows - 1
    ) * tile.height < grid.height


def _lay_out(tiles: Sequence[VideoFrame], grid: Grid) -> VideoFrame:
    first = tiles[0]
    graph = compat.one_thread_graph()
    sources = [
        graph.add(
            "buffer",
            f"video_size={tile.width}x{tile.height}:pix_fmt={tile.format.name}:time_base=1/90000",
        )
        for tile in tiles
    ]
    places = "|".join(
        f"{column * first.width}_{row * first.height}"
        for row in range(grid.rows)
        for column in range(grid.columns)
    )
    stack: FilterContext
    if len(tiles) > 1:
        stack = graph.add("xstack", f"inputs={len(tiles)}:layout={places}")
    else:
        stack = graph.add("null")
    for number, source in enumerate(sources):
        source.link_to(stack, 0, number)
    whole = graph.add("crop", f"{grid.width}:{grid.height}:0:0:exact=1")
    sink = graph.add("buffersink")
    stack.link_to(whole)
    whole.link_to(sink)
    graph.configure()
    for source, tile in zip(sources, tiles, strict=True):
        tile.pts = 0
        source.push(tile)
        source.push(None)
    picture = sink.pull()
    assert isinstance(picture, VideoFrame)
    compat.copy_colours(first, picture)  # xstack forgets them
    return picture
