"""Pictures into relayd through FFmpeg: any URL it can open, fitted to the relay's size.

One `VideoInput` is one open container with its one video stream, and belongs to one thread:
FFmpeg 8.1 crashes when two threads use one codec context. Pictures are fitted by a kept
filter graph (libavfilter), which is built anew when the stream changes size, pixel format,
colours, aspect or orientation on the way.
"""

from collections.abc import Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Final, cast

import av
import av.error
import av.logging
from av.container import InputContainer
from av.filter import Graph
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.frames import I420, FitMode, Geometry, plan_fit
from relayd.logs import redact
from relayd.media.srt import SrtReader, is_srt

if TYPE_CHECKING:
    from av.filter.context import FilterContext
    from av.packet import Packet

# PyAV's Python logging hook is known to deadlock with threads (PyAV #751, #2276).
av.logging.set_level(None)

MAX_PIXELS: Final = 8192 * 8192
"""Pixels of a coded picture: a hostile header may claim far more than memory holds."""
CORRUPT_LIMIT: Final = 250
"""Packets in a row that cannot be decoded, about 10 s of video, before a stream is given up."""
FILE_THREADS: Final = 2
"""Decoding threads for files, where a frame or two of delay do not matter."""

_MATRIX_OF: Final = {
    1: ("bt709", "bt709"),
    7: ("smpte240m", "smpte240m"),
    9: ("bt2020", "bt2020ncl"),
}
"""What the filters `scale` and `colorspace` call the matrices that are not BT.601.

The keys are those of ITU-T H.273, table 4, which FFmpeg uses.
"""
_TO_BT601: Final = (
    "space=smpte170m:irange=tv:range=tv:format=yuv420p"
    ":iprimaries=bt709:primaries=bt709:itrc=bt709:trc=bt709"
)
"""Another matrix only: naming the same primaries and curve twice leaves both as they are."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """All that a filter graph is built for."""

    width: int
    height: int
    pixel_format: str
    colorspace: int
    full_range: bool
    sample_aspect: float
    quarter_turns: int
    """To the right, 0 to 3."""


_TURNS: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (),
    (("transpose", "clock"),),
    (("hflip", ""), ("vflip", "")),
    (("transpose", "cclock"),),
)
"""The filters that turn a picture right by so many quarters."""


class Picture:
    """A decoded picture; fitted only when asked, so that a late one costs no more."""

    __slots__ = ("_frame", "_input", "pts")

    def __init__(self, source: "VideoInput", frame: VideoFrame) -> None:
        self._input, self._frame = source, frame
        # PyAV before 19 says None where there is no time base, 19 a zero rational.
        base = float(frame.time_base or 0)
        self.pts = frame.pts * base if frame.pts is not None and base > 0 else None
        """Presentation time in seconds on the stream's own clock; None where it has none."""

    def i420(self) -> I420:
        """Fit the picture to the relay's size; the array is new and the caller's to keep.

        Raises SourceUnusable when no filter can convert it.
        """
        return self._input._fit_frame(self._frame)  # noqa: SLF001  # same module, one pair


class VideoInput:
    """An open container and its video stream, read by one thread."""

    def __init__(
        self,
        container: InputContainer,
        url: str,
        srt: SrtReader | None,
        *,
        geometry: Geometry,
        fit: FitMode,
        live: bool,
    ) -> None:
        self._container, self._srt = container, srt
        self._name = redact(url)
        self._geometry, self._fit_mode, self._live = geometry, fit, live
        self._stream = self._choose_stream()
        self._shape: _Shape | None = None
        self._graph: Graph | None = None
        self._ends: tuple[FilterContext, FilterContext] | None = None
        self.corrupt = 0
        """Packets that could not be decoded, so far."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        geometry: Geometry,
        fit: FitMode = "crop",
        format: str = "",  # noqa: A002  # FFmpeg's own word
        options: Mapping[str, str] | None = None,
        low_delay: bool = False,
        open_timeout: float = 5.0,
        read_timeout: float = 5.0,
        given_up: Event | None = None,
    ) -> "VideoInput":
        """Open `url` and find its video stream.

        `low_delay` is for live sources: no frame is held back for threads, and data that make
        no sense yet count as unreachable, not as unusable. `options` go to FFmpeg as they are.
        The time limits are FFmpeg's: a hung read may take twice as long, so nobody should
        rely on them alone. SRT alone heeds `given_up`, and ends soon after it is set.
        Raises SourceUnreachable or SourceLost when a later try may succeed, SourceUnusable
        otherwise.
        """
        with ExitStack() as undo:
            srt = None
            if is_srt(url):
                limit = 2 * open_timeout  # one for opening, one for finding the streams
                srt = SrtReader(
                    url, open_timeout=limit, read_timeout=read_timeout, given_up=given_up or Event()
                )
                undo.callback(srt.close)
            try:
                container = av.open(
                    srt or url,
                    "r",
                    format=format or None,
                    options={"max_pixels": str(MAX_PIXELS)} | dict(options or {}),
                    metadata_errors="replace",  # titles in Latin-1 must not stop a film
                    timeout=(open_timeout, read_timeout),
                )
            except (av.error.FFmpegError, ValueError, OSError) as error:
                fault = srt.fault if srt else None
                raise fault or _refusal(error, redact(url), live=low_delay) from None
            undo.callback(container.close)
            source = cls(container, url, srt, geometry=geometry, fit=fit, live=low_delay)
            undo.pop_all()
            return source

    def _choose_stream(self) -> VideoStream:
        streams = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise SourceUnusable(f"{self._name} has no video")
        stream = max(streams, key=lambda stream: stream.disposition & Disposition.default)
        # A stream without decoder has no codec context, whatever PyAV's types say.
        if getattr(stream, "codec_context", None) is None:
            raise SourceUnusable(f"nothing here can decode the video of {self._name}")
        context = stream.codec_context
        context.thread_type = "SLICE" if self._live else "FRAME"
        context.thread_count = 1 if self._live else FILE_THREADS
        context.options = {"max_pixels": str(MAX_PIXELS)}
        return stream

    @property
    def width(self) -> int:
        """Coded width in pixels; 0 while it is not known."""
        return self._stream.codec_context.width

    @property
    def height(self) -> int:
        """Coded height in pixels; 0 while it is not known."""
        return self._stream.codec_context.height

    @property
    def codec(self) -> str:
        """The codec's name in FFmpeg, such as `h264`."""
        return self._stream.codec_context.name

    @property
    def rate(self) -> float:
        """Frames per second as announced; 0.0 when unknown."""
        return float(self._stream.average_rate or self._stream.guessed_rate or 0)

    @property
    def finite(self) -> bool:
        """Whether the container knows its end: a recording, not a broadcast."""
        return (self._container.duration or 0) > 0

    def pictures(self) -> Generator[Picture, None, None]:
        """Decode from here to the end, picture by picture.

        Packets that cannot be decoded are skipped and counted in `corrupt`.
        Raises SourceLost when reading fails, SourceUnusable when CORRUPT_LIMIT packets in a
        row were in vain, or the end came without one picture.
        """
        packets = cast(
            "Generator[Packet[VideoStream], None, None]", self._container.demux(self._stream)
        )
        corrupt_run, decoded = 0, 0
        try:
            while (packet := self._next_packet(packets)) is not None:
                try:
                    frames = packet.decode()
                except (av.error.FFmpegError, MemoryError):
                    self.corrupt += 1
                    corrupt_run += 1
                    if corrupt_run >= CORRUPT_LIMIT:
                        raise SourceUnusable(
                            f"{self._name}: {corrupt_run} packets in a row could not be decoded"
                        ) from None
                    continue
                for frame in frames:
                    corrupt_run = 0
                    decoded += 1
                    yield Picture(self, frame)
        finally:
            packets.close()  # FFmpeg's packet is freed here, not at a later collection
        if self._srt and self._srt.fault:
            raise self._srt.fault
        if not decoded and not self._live:
            raise SourceUnusable(f"{self._name} holds no picture that can be decoded")

    def _next_packet(
        self, packets: "Generator[Packet[VideoStream], None, None]"
    ) -> "Packet[VideoStream] | None":
        try:
            return next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceLost(f"{self._name}: {_words(error)}") from None

    def rewind(self) -> bool:
        """Go back to the start for another round of `pictures`; False if it cannot seek."""
        try:
            self._container.seek(self._container.start_time or 0)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def close(self) -> None:
        """Let go of file, socket or device, codec and filters."""
        self._ends = self._graph = None
        self._container.close()
        if self._srt:
            self._srt.close()
        del self._stream  # the codec's threads end with the last reference to it

    def _fit_frame(self, frame: VideoFrame) -> I420:
        shape = self._shape_of(frame)
        try:
            if self._ends is None or shape != self._shape:
                self._ends = self._build_graph(shape)
            entry, leave = self._ends
            entry.push(frame)
            fitted = leave.pull()
        except (av.error.FFmpegError, ValueError, OSError, MemoryError) as error:
            self._ends = None
            raise SourceUnusable(
                f"{self._name}: a {shape.width}x{shape.height} {shape.pixel_format} picture"
                f" cannot be converted: {_words(error)}"
            ) from None
        return fitted.to_ndarray()  # type: ignore[attr-defined,no-any-return]  # it is a VideoFrame

    def _shape_of(self, frame: VideoFrame) -> _Shape:
        aspect = float(self._stream.codec_context.sample_aspect_ratio or 0) or float(
            self._stream.sample_aspect_ratio or 0
        )
        name = frame.format.name
        return _Shape(
            frame.width,
            frame.height,
            name,
            int(frame.colorspace),
            name.startswith("yuvj") or frame.color_range == ColorRange.JPEG,
            aspect,
            _quarter_turns(frame),
        )

    def _build_graph(self, shape: _Shape) -> "tuple[FilterContext, FilterContext]":
        graph = Graph()
        graph.threads = 1
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
        self._graph, self._shape = graph, shape  # the nodes alone do not keep the graph
        return nodes[0], nodes[-1]

    def _filters(self, shape: _Shape) -> list[tuple[str, str]]:
        """Name the filters, in order.

        The picture is turned last, when it is small: so the fit is planned for it as it lies.
        """
        target = self._geometry
        if shape.quarter_turns % 2:
            target = Geometry(target.height, target.width)
        plan = plan_fit(shape.width, shape.height, shape.sample_aspect, target, self._fit_mode)
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
            # A small picture is taken for BT.601 by all that show it. This filter costs 0.12 ms
            # at 640x480, where swscale takes 1.5 ms.
            filters.append(("colorspace", f"ispace={declared}:{_TO_BT601}"))
        if plan.scaled != (target.width, target.height):
            x, y = plan.offset
            filters.append(("pad", f"{target.width}:{target.height}:{x}:{y}:color=black"))
        return [*filters, *_TURNS[shape.quarter_turns]]


def _quarter_turns(frame: VideoFrame) -> int:
    """Count the quarter turns to the right that set a picture upright.

    From the rotation in its display matrix (ISO/IEC 14496-12, 8.3.2; EXIF for JPEG), odd
    angles rounded. The matrix itself, which may mirror as well, is not looked at: PyAV 18
    frees a side data's metadata twice, so that touching `frame.side_data` of a picture with
    a colour profile ends the process.
    """
    return -round(frame.rotation / 90) % 4


def _words(error: BaseException) -> str:
    """Say in plain words what FFmpeg complains of, without any URL."""
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    if isinstance(error, av.error.FFmpegError | OSError) and error.strerror:
        return redact(str(error.strerror))
    return redact(str(error)) or type(error).__name__


_Refusals = tuple[tuple[tuple[type[Exception], ...], type[SourceError], str], ...]

_FILE_REFUSALS: Final[_Refusals] = (
    ((av.error.FileNotFoundError,), SourceUnusable, "there is no file {name}"),
    ((av.error.InvalidDataError,), SourceUnusable, "{name} is no video that can be read"),
)
_REFUSALS: Final[_Refusals] = (
    (
        (av.error.HTTPUnauthorizedError,),
        SourceUnusable,
        "{name} wants another user name or password (401)",
    ),
    ((av.error.HTTPForbiddenError,), SourceUnusable, "{name} refuses access (403)"),
    (
        (av.error.HTTPNotFoundError,),
        SourceUnreachable,
        "{name}: the server has nothing at this path (404)",
    ),
    (
        (av.error.ProtocolNotFoundError,),
        SourceUnusable,
        "{name}: FFmpeg as installed does not know this protocol",
    ),
    ((av.error.PermissionError,), SourceUnusable, "{name} may not be read by this user"),
    (
        (
            av.error.DemuxerNotFoundError,
            av.error.DecoderNotFoundError,
            av.error.OptionNotFoundError,
            av.error.IsADirectoryError,
            av.error.ArgumentError,
        ),
        SourceUnusable,
        "{name} cannot be opened: {words}",
    ),
    ((av.error.FFmpegError, OSError), SourceUnreachable, "{name}: {words}"),
    # PyAV's own, for a format it does not know.
    ((ValueError,), SourceUnusable, "{name} cannot be opened: {words}"),
)


def _refusal(error: Exception, name: str, *, live: bool) -> SourceError:
    """Give the error to raise when opening failed."""
    for kinds, raised, text in _REFUSALS if live else _FILE_REFUSALS + _REFUSALS:
        if isinstance(error, kinds):
            message = text.format(name=name, words=_words(error))
            return raised(message, mend="see [source]" if raised is SourceUnusable else "")
    raise error
