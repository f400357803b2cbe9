"""Video input through FFmpeg: any URL it can open, fitted to the relay's size.

One `VideoInput` is one open container with its one video stream, and belongs to one thread:
FFmpeg 8.1 crashes when two threads use one codec context.
"""

from collections.abc import Generator, Mapping
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING, Final, Protocol, SupportsFloat, cast
from weakref import WeakSet

import av.error
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.media import compat, hls
from relayd.media.fit import Fitter, describe
from relayd.media.frames import I420, FitMode, Geometry
from relayd.media.hls import HlsFiles
from relayd.media.look import Look, look_at
from relayd.media.srt import SrtReader, is_srt
from relayd.urls.safe import MediaUrl

if TYPE_CHECKING:
    from av.packet import Packet

# PyAV's Python logging hook is known to deadlock with threads (PyAV #751, #2276).
av.logging.set_level(None)

MAX_PIXELS: Final = 8192 * 8192
"""Pixels of a coded picture: a malicious header may claim far more than fits in memory."""
CORRUPT_LIMIT: Final = 250
"""Packets in a row that cannot be decoded, about 10 s of video, until a stream is abandoned."""
_UNLIMITED: Final = 7 * 24 * 3600.0
"""s: where another part has limits of its own."""
FILE_THREADS: Final = 2
"""Decoding threads for files, where a frame or two of delay do not matter."""


class ByteFeed(Protocol):
    """A file-like object that FFmpeg reads in place of a URL."""

    name: str
    """Its safe name."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes as soon as there are some; none at the end or a failure."""

    @property
    def fault(self) -> SourceError | None:
        """Why there are no more bytes; None at a plain end."""

    def close(self) -> None:
        """Release what it reads from; a second call does nothing."""


class Picture:
    """A decoded picture; fitted only on request, so that a dropped one costs nothing more."""

    __slots__ = ("__weakref__", "_frame", "_input", "pts")

    def __init__(self, source: "VideoInput", frame: VideoFrame) -> None:
        self._input = source
        self._frame: VideoFrame | None = frame
        base = compat.number(frame.time_base)
        self.pts = frame.pts * base if frame.pts is not None and base > 0 else None
        """Presentation time in seconds on the stream's own clock; None where it has none."""

    def i420(self) -> I420:
        """Fit the picture to the relay's size; the array is new and belongs to the caller.

        Raises SourceUnusable when no filter can convert it, SourceLost when its input is closed.
        """
        if self._frame is None:
            raise SourceLost("the source was closed")
        return self._input._fit_frame(self._frame)  # noqa: SLF001  # class of the same module

    def drop(self) -> None:
        """Give its memory back, which may be that of a device."""
        self._frame = None


class CodedPicture:
    """A packet of the video stream, still coded: some kilobytes, where a picture has 460."""

    __slots__ = ("_base", "packet")

    def __init__(self, packet: "Packet[VideoStream]") -> None:
        self.packet = packet
        self._base = compat.number(packet.time_base)

    @property
    def size(self) -> int:
        """Bytes; 0 for the one that ends the stream and makes the decoder hand out its rest."""
        return self.packet.size

    @property
    def is_key(self) -> bool:
        """Whether decoding can start here."""
        return self.packet.is_keyframe

    @property
    def stamp(self) -> float | None:
        """Seconds on the stream's clock: when to decode it, else when to show it, if known."""
        ticks = self.packet.dts if self.packet.dts is not None else self.packet.pts
        return ticks * self._base if ticks is not None and self._base > 0 else None

    def restamp(self, media: float) -> None:
        """Make `media` its stamp, and keep the time from decoding to showing."""
        if self._base <= 0:
            return
        dts = round(media / self._base)
        before = self.packet.dts if self.packet.dts is not None else self.packet.pts
        shown_after = (
            self.packet.pts - before if self.packet.pts is not None and before is not None else 0
        )
        self.packet.dts, self.packet.pts = dts, dts + shown_after


class VideoInput:
    """An open container and its video stream, read by one thread."""

    def __init__(
        self,
        container: InputContainer,
        name: str,
        feed: ByteFeed | None,
        files: HlsFiles | None,
        *,
        geometry: Geometry,
        fit: FitMode,
        live: bool,
    ) -> None:
        self._container, self._feed, self._files = container, feed, files
        self._name = name
        self._stream = self._choose_stream()
        self.decode_for(live=live)
        self._fitter = Fitter(self._name, geometry, fit)
        self._lent: WeakSet[Picture] = WeakSet()
        """Pictures that somebody still has."""
        self.corrupt = 0
        """Packets that could not be decoded so far."""
        self.packets = 0
        """Packets of the video read so far, decodable or not."""
        self.key_interval = 0.0
        """s: the longest stretch between two key frames so far, by their time stamps."""
        self._last_key: float | None = None
        self._corrupt_run = self._decoded = 0

    @classmethod
    def open(
        cls,
        url: str,
        *,
        geometry: Geometry,
        fit: FitMode = "crop",
        name: str = "",
        format: str = "",  # noqa: A002  # FFmpeg's own name
        options: Mapping[str, str] | None = None,
        low_delay: bool = False,
        open_timeout: SupportsFloat = 5.0,
        read_timeout: SupportsFloat = 5.0,
        cancelled: Event | None = None,
        feed: ByteFeed | None = None,
        files: HlsFiles | None = None,
    ) -> "VideoInput":
        """Open `url` and find its video stream.

        `low_delay` is for live sources: no frame is held back for threads, and data that cannot
        be read yet counts as unreachable, not as unusable. `options` go to FFmpeg unchanged.
        `name` replaces the URL in errors, by default with its safe form.
        The time limits are FFmpeg's: a hung read may take twice as long, so do not rely on them
        alone. `open_timeout` applies to opening and again to finding the streams; each limit is
        asked again when a call begins. Only SRT uses `cancelled`, and ends soon after it is set.
        `feed` is read in place of the URL, and closed with the input.
        `files` hands over what a playlist names, with its own limits on reading.
        Raises SourceUnreachable or SourceLost when a later attempt may succeed, SourceUnusable
        otherwise.
        """
        name = name or str(MediaUrl(url))
        with ExitStack() as undo:
            if is_srt(url):
                feed = SrtReader(
                    url,
                    name,
                    open_timeout=float(open_timeout),
                    read_timeout=read_timeout,
                    cancelled=cancelled or Event(),
                )
            if feed is not None:
                undo.callback(feed.close)
            try:
                if files is not None and not files.fetch():
                    files = None
                container = compat.open_input(
                    feed or url,
                    format=hls.DEMUXER if files else format or None,
                    options={"max_pixels": str(MAX_PIXELS)}
                    | (hls.OPTIONS if files else {})
                    | dict(options or {}),
                    timeout=(open_timeout, _UNLIMITED if files else read_timeout),
                    io_open=files,
                )
            except (av.error.FFmpegError, ValueError, OSError) as error:
                fault = feed.fault if feed else None
                raise fault or _refusal(error, name, live=low_delay) from None
            undo.callback(container.close)
            source = cls(container, name, feed, files, geometry=geometry, fit=fit, live=low_delay)
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
        stream = max(streams, key=lambda stream: bool(stream.disposition & Disposition.default))
        # A stream without a decoder has no codec context, despite PyAV's types.
        if getattr(stream, "codec_context", None) is None:
            raise SourceUnusable(f"no decoder is available for the video of {self._name}")
        context = stream.codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        return stream

    def decode_for(self, *, live: bool) -> None:
        """Choose between no frame held back and several threads; before the first picture."""
        self._live = live
        context = self._stream.codec_context
        context.thread_type = "SLICE" if live else "FRAME"
        context.thread_count = 1 if live else FILE_THREADS

    @property
    def width(self) -> int:
        """Coded width in pixels; 0 while unknown."""
        return self._stream.codec_context.width

    @property
    def height(self) -> int:
        """Coded height in pixels; 0 while unknown."""
        return self._stream.codec_context.height

    @property
    def codec(self) -> str:
        """The codec's name in FFmpeg, such as `h264`."""
        return self._stream.codec_context.name

    @property
    def rate(self) -> float:
        """Frames per second as announced; 0.0 when unknown."""
        return compat.number(self._stream.average_rate or self._stream.guessed_rate)

    @property
    def burst(self) -> float:
        """Seconds of pictures that arrive at once, as far as the source tells; 0.0 if unknown."""
        return self._files.burst if self._files else 0.0

    def look(self) -> Look:
        """Return what the container shows of itself."""
        return look_at(self._container, self._stream)

    def pictures(self) -> Generator[Picture, None, None]:
        """Decode from here to the end, picture by picture.

        Packets that cannot be decoded are skipped and counted in `corrupt`.
        Raises SourceLost when reading fails, SourceUnusable when CORRUPT_LIMIT packets in a row
        could not be decoded, or the end came before the first picture.
        """
        self._decoded = 0
        for coded in self.coded():
            frames = self._frames_of(coded)
            del coded  # like the frames: not to outlive the device, see close()
            while frames:
                yield self._lend(frames.pop(0))
        if not self._decoded and not self._live:
            raise SourceUnusable(f"{self._name} contains no picture that can be decoded")

    def coded(self) -> Generator[CodedPicture, None, None]:
        """Read from here to the end, packet by packet; may run in another thread than `decode`.

        The last one has no content. Raises SourceLost when reading fails.
        """
        packets = cast(
            "Generator[Packet[VideoStream], None, None]", self._container.demux(self._stream)
        )
        try:
            while (packet := self._next_packet(packets)) is not None:
                self._note_packet(packet)
                # Neither may outlive the device here, see close().
                coded = [CodedPicture(packet)]
                del packet
                yield coded.pop()
        finally:
            packets.close()  # frees FFmpeg's packet now, not at garbage collection
        if self._feed and self._feed.fault:
            raise self._feed.fault

    def decode(self, coded: CodedPicture) -> list[Picture]:
        """Decode one packet; none, one or more pictures come of it.

        One that cannot be decoded is skipped and counted in `corrupt`. Raises SourceUnusable when
        CORRUPT_LIMIT packets in a row could not be decoded.
        """
        return [self._lend(frame) for frame in self._frames_of(coded)]

    def _frames_of(self, coded: CodedPicture) -> list[VideoFrame]:
        try:
            frames = coded.packet.decode()
        except (av.error.FFmpegError, MemoryError):
            if self._live and self._last_key is None:
                return []  # joined between two key frames: not corrupt, only useless
            self.corrupt += 1
            self._corrupt_run += 1
            if self._corrupt_run >= CORRUPT_LIMIT:
                raise SourceUnusable(
                    f"{self._name}: {self._corrupt_run} packets in a row could not be decoded"
                ) from None
            return []
        if frames:
            self._corrupt_run = 0
        self._decoded += len(frames)
        return frames

    def _lend(self, frame: VideoFrame) -> Picture:
        picture = Picture(self, frame)
        self._lent.add(picture)
        return picture

    def _note_packet(self, packet: "Packet[VideoStream]") -> None:
        self.packets += packet.size > 0
        if not packet.is_keyframe:
            return
        at = (packet.pts or 0) * compat.number(packet.time_base)
        if self._last_key is not None:
            self.key_interval = max(self.key_interval, at - self._last_key)
        self._last_key = at

    def _next_packet(
        self, packets: "Generator[Packet[VideoStream], None, None]"
    ) -> "Packet[VideoStream] | None":
        try:
            return next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceLost(f"{self._name}: {describe(error)}") from None

    def rewind(self) -> bool:
        """Seek to the start for another run of `pictures`; False if it cannot seek."""
        try:
            self._container.seek(self._container.start_time or 0)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def close(self) -> None:
        """Close the file, socket or device, the codec and the filters.

        Pictures that somebody still has lose their content. Raw pictures of a camera are the
        device's own memory: FFmpeg gives it back to the device even when that is closed, and
        crashes. An error's traceback holds the last picture like this.
        """
        for picture in list(self._lent):
            picture.drop()
        self._fitter.close()
        self._container.close()
        if self._feed:
            self._feed.close()
        del self._stream  # the codec's threads end with the last reference to it

    def _fit_frame(self, frame: VideoFrame) -> I420:
        context = self._stream.codec_context
        aspect = compat.number(context.sample_aspect_ratio or self._stream.sample_aspect_ratio)
        return self._fitter.fit(frame, aspect)


_Refusals = tuple[tuple[tuple[type[Exception], ...], type[SourceError], str], ...]

_FILE_REFUSALS: Final[_Refusals] = (
    ((av.error.FileNotFoundError,), SourceUnusable, "there is no file {name}"),
    ((av.error.InvalidDataError,), SourceUnusable, "{name} is not a video that can be read"),
)
_REFUSALS: Final[_Refusals] = (
    (
        (av.error.HTTPUnauthorizedError,),
        SourceUnusable,
        "{name} rejects the user name or password (401)",
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
            compat.INVALID_ARGUMENT,
        ),
        SourceUnusable,
        "{name} cannot be opened: {reason}",
    ),
    ((av.error.FFmpegError, OSError), SourceUnreachable, "{name}: {reason}"),
    # Raised by PyAV for a format that it does not know.
    ((ValueError,), SourceUnusable, "{name} cannot be opened: {reason}"),
)


def _refusal(error: Exception, name: str, *, live: bool) -> SourceError:
    """Return the error to raise for a failed opening."""
    for kinds, raised, text in _REFUSALS if live else _FILE_REFUSALS + _REFUSALS:
        if isinstance(error, kinds):
            message = text.format(name=name, reason=describe(error))
            return raised(message, hint="see [source]" if raised is SourceUnusable else "")
    raise error
