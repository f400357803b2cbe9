"""A chain of FFmpeg's filters that takes pictures of one layout, in the caller's thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from av.video.frame import VideoFrame

from relayd.media import compat

if TYPE_CHECKING:
    from av.filter.context import FilterContext

Filter = tuple[str, str | Mapping[str, str]]
"""A filter's name and arguments: as FFmpeg's text, or by name, where nothing needs escaping."""

_NO_TAGS: Final[Filter] = (
    "setparams",
    "color_primaries=unknown:color_trc=unknown:colorspace=unknown",
)
"""FFmpeg refuses pictures with tags of rare colours. Each filter here is told what it must know."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The size in pixels and the pixel format of a picture."""

    width: int
    height: int
    pixel_format: str

    @classmethod
    def of(cls, frame: VideoFrame) -> "Layout":
        """Return the layout of a picture."""
        return cls(frame.width, frame.height, frame.format.name)


class FilterChain:
    """Filters that are fed and emptied picture by picture; used in one thread only.

    What comes out states no colours, other than its range.
    """

    def __init__(self, layout: Layout, filters: Sequence[Filter]) -> None:
        """Raises av.error.FFmpegError, ValueError or OSError if FFmpeg refuses the filters."""
        graph = compat.one_thread_graph()
        source = (
            f"video_size={layout.width}x{layout.height}:pix_fmt={layout.pixel_format}"
            ":time_base=1/90000"
        )
        nodes: list[FilterContext] = [graph.add("buffer", source)]
        for name, arguments in (_NO_TAGS, *filters):
            if isinstance(arguments, str):
                nodes.append(graph.add(name, arguments or None))
            else:
                nodes.append(graph.add(name, None, **arguments))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        self._graph = graph  # the nodes do not keep it alive
        self._source, self._sink = nodes[0], nodes[-1]
        self.layout = layout

    def push(self, frame: VideoFrame) -> None:
        """Feed a picture. Raises av.error.FFmpegError."""
        self._source.push(frame)

    def pull(self) -> VideoFrame:
        """Return the next picture. Raises av.error.FFmpegError; BlockingIOError: there is none."""
        frame = self._sink.pull()
        assert isinstance(frame, VideoFrame)
        return frame

    def run(self, frame: VideoFrame) -> VideoFrame:
        """Return what the filters make of a picture. Raises as `push` and `pull`."""
        self.push(frame)
        return self.pull()
