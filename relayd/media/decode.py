"""Video input through FFmpeg: any URL it can open, fitted to the relay's size.

One `VideoInput` is one open container with its one video stream, and belongs to one thread:
FFmpeg 8.1 crashes when two threads use one codec context.
"""

import os
import time
import zlib
from collections.abc import Callable, Generator, Mapping
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

from relayd.errors import SourceError, SourceLost
from relayd.media import compat
from relayd.media.fit import Fitter
from relayd.media.frames import I420, FitMode, Geometry
from relayd.media.look import Look, look_at
from relayd.media.refusals import (
    no_decoder,
    no_picture,
    no_video,
    read_failure,
    refusal,
    undecodable,
)
from relayd.media.skipping import PacketSkipper, SkipLevel
from relayd.media.srt import SrtReader, is_srt
from relayd.media.stamps import StampChooser
from relayd.media.symptoms import Asked
from relayd.urls.safe import MediaUrl

if TYPE_CHECKING:
    from av.packet import Packet

# PyAV's Python logging hook is known to deadlock with threads (PyAV #751, #2276).
av.logging.set_level(None)

MAX_PIXELS: Final = 8192 * 8192
"""Pixels of a coded picture: a malicious header may claim far more than fits in memory."""
CORRUPT_LIMIT: Final = 250
"""Packets in a row that cannot be decoded, about 10 s of video, until a stream is abandoned."""
FILE_THREADS: Final = 2
"""Decoding threads for files, where a frame or two of delay do not matter."""
MOST_THREADS: Final = 4
"""Decoding threads for large pictures, where there are as many processors."""
LARGE_PICTURE: Final = 2048 * 1152
"""Pixels from which on more threads are worth their memory. A live source has one for smaller
ones; the slices of a large one, if it has several, are decoded at the same time, without delay."""
_NO_TIMESTAMPS: Final = 0x80
"""FFmpeg's flag of a format without time stamps, such as raw H.264 (AVFMT_NOTIMESTAMPS)."""
_MAY_JUMP: Final = 0x200
"""FFmpeg's flag of a format whose time stamps may jump (AVFMT_TS_DISCONT)."""


def thread_count(pixels: int, processors: int, *, live: bool) -> int:
    """Return the number of threads to decode pictures of so many pixels."""
    if pixels < LARGE_PICTURE:
        return 1 if live else FILE_THREADS
    return max(1 if live else FILE_THREADS, min(MOST_THREADS, processors))


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

    __slots__ = ("__weakref__", "_frame", "_input", "_stamp", "duration", "is_key", "pts")

    def __init__(self, source: "VideoInput", frame: VideoFrame) -> None:
        self._input = source
        self._frame: VideoFrame | None = frame
        self._stamp = frame.pts
        base = compat.number(frame.time_base)
        stamp = source.choose_stamp(frame)
        self.pts = stamp * base if stamp is not None and base > 0 else None
        """Presentation time in seconds on the stream's own clock; None where it has none."""
        duration = frame.duration if base > 0 and not source.is_raw else 0
        self.duration = duration * base if duration else None
        """Seconds for which it should be shown; None where that is not known."""
        self.is_key = bool(frame.key_frame)
        """Whether it can be decoded without any other."""

    def mark(self) -> tuple[int | None, int]:
        """Return what tells whether this picture, decoded again, is the same one; as `i420`."""
        picture = self.i420()
        return self._stamp, zlib.crc32(picture.data)

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


class VideoInput:
    """An open container and its video stream, read by one thread."""

    def __init__(
        self,
        container: InputContainer,
        name: str,
        feed: ByteFeed | None,
        *,
        geometry: Geometry,
        fit: FitMode,
        live: bool,
        options: Mapping[str, str],
    ) -> None:
        self._container, self._feed = container, feed
        self._name = name
        self._stream = self._choose_stream()
        self.is_raw = bool(container.format.flags & _NO_TIMESTAMPS)
        """Whether the format has no time stamps at all, such as raw H.264."""
        self._rate_is_set = "framerate" in options
        self.decode_for(live=live)
        self._fitter = Fitter(self._name, geometry, fit)
        self._lent: WeakSet[Picture] = WeakSet()
        """Pictures that somebody still has."""
        self._stamps, self._skipper = StampChooser(), PacketSkipper()
        self.corrupt = 0
        """Packets that could not be decoded so far."""
        self.waited = 0.0
        """Seconds spent so far in waiting for data, not in decoding it."""
        self.packets = 0
        """Packets of the video read so far, decodable or not."""
        self.key_interval = 0.0
        """s: the longest stretch between two key frames so far, by their time stamps."""
        self._last_key: float | None = None

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
    ) -> "VideoInput":
        """Open `url` and find its video stream.

        `low_delay` is for live sources: no frame is held back for threads, and data that cannot
        be read yet counts as unreachable, not as unusable. `options` go to FFmpeg unchanged.
        `name` replaces the URL in errors, by default with its safe form.
        The time limits are FFmpeg's: a hung read may take twice as long, so do not rely on them
        alone. `open_timeout` applies to opening and again to finding the streams; each limit is
        asked again when a call begins. Only SRT uses `cancelled`, and ends soon after it is set.
        `feed` is read in place of the URL, and closed with the input.
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
                container = compat.open_input(
                    feed or url,
                    format=format or None,
                    options={"max_pixels": str(MAX_PIXELS)} | dict(options or {}),
                    timeout=(open_timeout, read_timeout),
                )
            except (av.error.FFmpegError, ValueError, OSError) as error:
                fault = feed.fault if feed else None
                asked = Asked(url, name, dict(options or {}), live=low_delay)
                raise fault or refusal(error, asked) from None
            undo.callback(container.close)
            source = cls(
                container,
                name,
                feed,
                geometry=geometry,
                fit=fit,
                live=low_delay,
                options=options or {},
            )
            undo.pop_all()
            return source

    def _choose_stream(self) -> VideoStream:
        streams = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise no_video(self._name, {stream.type for stream in self._container.streams})
        stream = max(streams, key=lambda stream: bool(stream.disposition & Disposition.default))
        # A stream without a decoder has no codec context, despite PyAV's types.
        if getattr(stream, "codec_context", None) is None:
            still = self._container.format.name.removesuffix("_pipe")
            codec = still if still != self._container.format.name else ""
            raise no_decoder(self._name, codec)
        context = stream.codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        return stream

    def decode_for(self, *, live: bool) -> None:
        """Choose between no frame held back and several threads; before the first picture."""
        self._live = live
        context = self._stream.codec_context
        context.thread_type = "SLICE" if live else "FRAME"
        pixels = context.width * context.height
        context.thread_count = thread_count(pixels, os.cpu_count() or 1, live=live)

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
        """Frames per second as announced; 0.0 when unknown.

        A raw stream announces it in the codec's headers, if at all: FFmpeg puts 25 in the place
        of the container's, unless the user says otherwise.
        """
        average, guessed = self._stream.average_rate, self._stream.guessed_rate
        if self.is_raw and not self._rate_is_set:
            return compat.number(guessed or average)
        return compat.number(average or guessed)

    @property
    def length(self) -> float:
        """Seconds from the start to the end, as the container tells; 0.0 when unknown."""
        return max(0.0, (self._container.duration or 0) / av.time_base)

    @property
    def may_jump(self) -> bool:
        """Whether the container's format allows jumps in the time stamps."""
        return bool(self._container.format.flags & _MAY_JUMP)

    def look(self) -> Look:
        """Return what the container shows of itself."""
        return look_at(self._container, self._stream)

    def pictures(
        self, on_skipped: Callable[[], None] = lambda: None
    ) -> Generator[Picture, None, None]:
        """Decode from here to the end, picture by picture.

        Packets that cannot be decoded are skipped and counted in `corrupt`; `on_skipped` is called
        for each one that `skip` leaves out.
        Raises SourceLost when reading fails, SourceUnusable when CORRUPT_LIMIT packets in a row
        could not be decoded, or the end came before the first picture.
        """
        packets = cast(
            "Generator[Packet[VideoStream], None, None]", self._container.demux(self._stream)
        )
        corrupt_run, decoded = 0, 0
        try:
            while (packet := self._next_packet(packets)) is not None:
                self._note_packet(packet)
                # The empty packet at the end makes the decoder hand out the rest.
                if packet.size and not self._skipper.wants(is_key=packet.is_keyframe):
                    on_skipped()
                    del packet
                    continue
                try:
                    frames = packet.decode()
                except (av.error.FFmpegError, MemoryError):
                    if self._live and self._last_key is None:
                        continue  # joined between two key frames: not corrupt, only useless
                    self.corrupt += 1
                    corrupt_run += 1
                    if corrupt_run >= CORRUPT_LIMIT:
                        raise undecodable(self._name, corrupt_run) from None
                    continue
                finally:
                    del packet  # like the frames below: not to outlive the device, see close()
                while frames:
                    corrupt_run = 0
                    decoded += 1
                    yield self._lend(frames.pop(0))
        finally:
            packets.close()  # frees FFmpeg's packet now, not at garbage collection
        if self._feed and self._feed.fault:
            raise self._feed.fault
        if not decoded and not self._live:
            raise no_picture(self._name)

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
        waited_before = _waited()
        try:
            return next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            raise read_failure(error, self._name) from None
        finally:
            self.waited += _waited() - waited_before

    def rewind(self, margin: float = 0.0) -> bool:
        """Seek to `margin` seconds before the start, for another run of `pictures`.

        False if that is not possible here. Where it is, the first picture may still be another
        one than before: some formats need a margin to land on it, others refuse any.
        """
        start = (self._container.start_time or 0) - round(margin * av.time_base)
        try:
            self._container.seek(start, backward=True)
        except (av.error.FFmpegError, OSError):
            return False
        self._stamps.restart()
        self._fitter.close()  # a filter may remember the pictures before
        return True

    def skip(self, level: SkipLevel) -> None:
        """Leave more or fewer pictures undecoded from the next packet on."""
        if level is not self._skipper.level:
            self._skipper.level = level
            # Pictures between keys do not reach the decoder at all.
            self._stream.codec_context.skip_frame = "NONREF" if level else "DEFAULT"

    def choose_stamp(self, frame: VideoFrame) -> int | None:
        """Return the stamp of the frame that was decoded last, in its own time base."""
        return self._stamps.choose(frame.pts, frame.dts)

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


def _waited() -> float:
    """Return the seconds in which this thread did not work; only differences mean anything."""
    return time.monotonic() - time.thread_time()
