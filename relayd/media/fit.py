"""Fits decoded pictures to the relay's size: upright, whole, in BT.601 and over black.

The filters are kept, and rebuilt when the stream changes its size, pixel format, colours, aspect
or orientation.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, cast

import av.error
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from relayd.errors import SourceUnusable
from relayd.logs import redact
from relayd.media.colour import UNSPECIFIED, ColourTags, read_tags
from relayd.media.cube import write_cube
from relayd.media.deinterlace import Deinterlacer, FieldOrder
from relayd.media.frames import I420, FitMode, Geometry
from relayd.media.graph import FilterChain, Layout
from relayd.media.matrix import OrientationReader
from relayd.media.orientation import UPRIGHT, Orientation
from relayd.media.plan import Shape, plan_filters

_CUBE: Final = "colours.cube"
_LASTING_CODECS: Final = frozenset({"h264", "hevc"})
"""Codecs whose orientation lasts until another one is stated."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a stream states about a picture that the picture itself does not."""

    sample_aspect: float = 0.0
    """A pixel's width over its height; 0: unknown."""
    primaries: int = UNSPECIFIED
    curve: int = UNSPECIFIED
    """As in ITU-T H.273."""
    made_here: bool = False
    """As in ColourTags."""


class Fitter:
    """Fits the pictures of one stream to one geometry; used only in the stream's thread."""

    def __init__(
        self,
        name: str,
        geometry: Geometry,
        mode: FitMode,
        *,
        codec: str,
        turn: Orientation = UPRIGHT,
        field_order: FieldOrder = "",
    ) -> None:
        """Prepare for pictures of the source `name`, as it is called in errors.

        `codec` is FFmpeg's name of the decoder. `turn` is applied to the upright picture.
        `field_order` says that all are interlaced.
        """
        self._name, self._geometry, self._mode, self._turn = name, geometry, mode, turn
        self._orientation = OrientationReader(lasts=codec in _LASTING_CODECS)
        self._deinterlacer = Deinterlacer(field_order)
        self._shape: Shape | None = None
        self._chain: FilterChain | None = None

    def fit(self, frame: VideoFrame, facts: StreamFacts) -> I420:
        """Return the picture at the target's size; the array is new and belongs to the caller.

        Raises SourceUnusable when no filter can convert it.
        """
        try:
            orientation = self._orientation.read(frame).then(self._turn)
            whole = self._deinterlacer.whole(frame)  # perhaps in another pixel format
            shape = _shape_of(frame, Layout.of(whole), facts, orientation)
            if self._chain is None or shape != self._shape:
                self._chain, self._shape = self._build_chain(shape), shape
            fitted = self._chain.run(whole)
        except (av.error.FFmpegError, ValueError, OSError, MemoryError) as error:
            self.close()
            raise SourceUnusable(
                f"{self._name}: a {frame.width}x{frame.height} {frame.format.name} picture"
                f" cannot be converted: {describe(error)}"
            ) from None
        return cast("I420", fitted.to_ndarray())

    def close(self) -> None:
        """Release the filters; a later picture would rebuild them."""
        self._chain = None
        self._orientation.close()
        self._deinterlacer.close()

    def _build_chain(self, shape: Shape) -> FilterChain:
        colours = shape.colours
        if not colours.needs_table:
            return FilterChain(shape.layout, plan_filters(shape, self._geometry, self._mode))
        with TemporaryDirectory(prefix="relayd-") as folder:  # FFmpeg reads the table at once
            table = Path(folder, _CUBE)
            write_cube(table, colours.curve, colours.gamut)
            filters = plan_filters(shape, self._geometry, self._mode, str(table))
            return FilterChain(shape.layout, filters)


def _shape_of(
    frame: VideoFrame, layout: Layout, facts: StreamFacts, orientation: Orientation
) -> Shape:
    """Return all about a picture as it was decoded, with the `layout` that it has now."""
    pixels = _pixels_of(layout.pixel_format)
    tags = ColourTags(
        int(frame.colorspace),
        facts.primaries,
        facts.curve,
        is_rgb=pixels.is_rgb,
        made_here=facts.made_here,
    )
    return Shape(
        layout,
        has_alpha=pixels.has_alpha,
        colours=read_tags(tags, layout.width, layout.height),
        full_range=layout.pixel_format.startswith("yuvj") or frame.color_range == ColorRange.JPEG,
        sample_aspect=facts.sample_aspect,
        orientation=orientation,
    )


class _Pixels(NamedTuple):
    is_rgb: bool
    has_alpha: bool


@cache
def _pixels_of(pixel_format: str) -> _Pixels:
    """Return what a pixel format holds; the entries of a palette are RGB with alpha."""
    found = VideoFormat(pixel_format)
    return _Pixels(
        found.is_rgb or found.has_palette,
        found.has_palette or any(part.is_alpha for part in found.components),
    )


def describe(error: BaseException) -> str:
    """Return FFmpeg's error as text, without any URL."""
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    if isinstance(error, av.error.FFmpegError | OSError) and error.strerror:
        return redact(str(error.strerror))
    return redact(str(error)) or type(error).__name__
