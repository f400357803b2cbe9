"""Fits decoded pictures to the relay's size, upright and in BT.601, with libavfilter.

The filter graph is kept, and rebuilt when the stream changes its size, pixel format, colours,
aspect or orientation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import av.error
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from relayd.errors import SourceUnusable
from relayd.logs import redact
from relayd.media import compat
from relayd.media.frames import I420, FitMode, Geometry, plan_fit

if TYPE_CHECKING:
    from av.filter import Graph
    from av.filter.context import FilterContext

_MATRIX_OF: Final = {
    1: ("bt709", "bt709"),
    7: ("smpte240m", "smpte240m"),
    9: ("bt2020", "bt2020ncl"),
}
"""The names of the matrices other than BT.601 in the filters `scale` and `colorspace`.

The keys are those of ITU-T H.273, table 4, which FFmpeg uses.
"""
_TO_BT601: Final = (
    "space=smpte170m:irange=tv:range=tv:format=yuv420p"
    ":iprimaries=bt709:primaries=bt709:itrc=bt709:trc=bt709"
)
"""Changes only the matrix: with equal primaries and curve on both sides they stay unchanged."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Everything that a filter graph depends on."""

    width: int
    height: int
    pixel_format: str
    colorspace: int
    full_range: bool
    sample_aspect: float
    quarter_turns: int
    """Clockwise, 0 to 3."""


_TURNS: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (),
    (("transpose", "clock"),),
    (("hflip", ""), ("vflip", "")),
    (("transpose", "cclock"),),
)
"""The filters that rotate a picture clockwise by 0 to 3 quarter turns."""


class Fitter:
    """Fits the pictures of one stream to one geometry; used only in the stream's thread."""

    def __init__(self, name: str, geometry: Geometry, mode: FitMode) -> None:
        """Prepare for pictures of the source `name`, as it is called in errors."""
        self._name, self._geometry, self._mode = name, geometry, mode
        self._shape: _Shape | None = None
        self._graph: Graph | None = None
        self._ends: tuple[FilterContext, FilterContext] | None = None

    def fit(self, frame: VideoFrame, sample_aspect: float) -> I420:
        """Return the picture at the target's size; the array is new and belongs to the caller.

        `sample_aspect` is a pixel's width over its height (0: unknown). Raises SourceUnusable
        when no filter can convert it.
        """
        shape = _shape_of(frame, sample_aspect)
        try:
            if self._ends is None or shape != self._shape:
                self._ends = self._build_graph(shape)
            source, sink = self._ends
            source.push(frame)
            fitted = sink.pull()
        except (av.error.FFmpegError, ValueError, OSError, MemoryError) as error:
            self._ends = None
            raise SourceUnusable(
                f"{self._name}: a {shape.width}x{shape.height} {shape.pixel_format} picture"
                f" cannot be converted: {describe(error)}"
            ) from None
        return fitted.to_ndarray()  # type: ignore[attr-defined,no-any-return]  # it is a VideoFrame

    def close(self) -> None:
        """Release the filters; a later picture would rebuild them."""
        self._ends = self._graph = None

    def _build_graph(self, shape: _Shape) -> "tuple[FilterContext, FilterContext]":
        graph = compat.one_thread_graph()
        nodes = [
            graph.add(
                "buffer",
                f"video_size={shape.width}x{shape.height}:pix_fmt={shape.pixel_format}"
                ":time_base=1/90000",
            )
        ]
        nodes += [graph.add(name, args or None) for name, args in self._filters(shape)]
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        self._graph, self._shape = graph, shape  # the nodes do not keep the graph alive
        return nodes[0], nodes[-1]

    def _filters(self, shape: _Shape) -> list[tuple[str, str]]:
        """Return the names and arguments of the filters, in order.

        The picture is rotated last, when it is small: so the fit is planned before the rotation.
        """
        target = self._geometry
        if shape.quarter_turns % 2:
            target = Geometry(target.height, target.width)
        plan = plan_fit(shape.width, shape.height, shape.sample_aspect, target, self._mode)
        left, top, width, height = plan.crop
        filters: list[tuple[str, str]] = []
        if (width, height) != (shape.width, shape.height):
            filters.append(("crop", f"{width}:{height}:{left}:{top}:exact=1"))
        size = f"{plan.scaled[0]}:{plan.scaled[1]}"
        matrix, declared = _MATRIX_OF.get(shape.colorspace, ("bt601", ""))
        colours = f"out_range=tv:in_color_matrix={matrix}:out_color_matrix={matrix}"
        filters.append(("scale", f"{size}:flags=bilinear:{colours}"))
        filters.append(("format", "yuv420p"))
        if declared:
            # Every viewer assumes BT.601 for a small picture. This filter costs 0.12 ms at
            # 640x480, where swscale takes 1.5 ms.
            filters.append(("colorspace", f"ispace={declared}:{_TO_BT601}"))
        if plan.scaled != (target.width, target.height):
            x, y = plan.offset
            filters.append(("pad", f"{target.width}:{target.height}:{x}:{y}:color=black"))
        return [*filters, *_TURNS[shape.quarter_turns]]


def _shape_of(frame: VideoFrame, sample_aspect: float) -> _Shape:
    name = frame.format.name
    return _Shape(
        frame.width,
        frame.height,
        name,
        int(frame.colorspace),
        name.startswith("yuvj") or frame.color_range == ColorRange.JPEG,
        sample_aspect,
        _quarter_turns(frame),
    )


def _quarter_turns(frame: VideoFrame) -> int:
    """Return the clockwise quarter turns that set a picture upright.

    From the rotation in its display matrix (ISO/IEC 14496-12, 8.3.2; EXIF for JPEG), other
    angles are rounded. The matrix itself, which may also mirror, is not read: PyAV 18 frees a
    side data's metadata twice, so that accessing `frame.side_data` of a picture with a colour
    profile crashes the process.
    """
    return -round(frame.rotation / 90) % 4


def describe(error: BaseException) -> str:
    """Return FFmpeg's error as text, without any URL."""
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    if isinstance(error, av.error.FFmpegError | OSError) and error.strerror:
        return redact(str(error.strerror))
    return redact(str(error)) or type(error).__name__
