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
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from relayd.errors import SourceError, SourceLost
from relayd.media import compat, hls
from relayd.media.deinterlace import field_order
from relayd.media.fit import Fitter
from relayd.media.frames import I420, FitMode, Geometry
from relayd.media.heif import Grid
from relayd.media.hls import HlsFiles
from relayd.media.jpeg import lacks_end
from relayd.media.look import Look, look_at, size_of
from relayd.media.orientation import UPRIGHT, Orientation
from relayd.media.refusals import no_picture, not_joined, read_failure, refusal, undecodable
from relayd.media.selection import StreamFactsReader, select_stream, shows_tiles
from relayd.media.skipping import PacketSkipper, SkipLevel
from relayd.media.srt import SrtReader, is_srt
from relayd.media.stamps import StampChooser
from relayd.media.streams import StreamWish
from relayd.media.symptoms import Asked
from relayd.media.tiles import find_grid, join_tiles
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
MOST_THREADS: Final = 4
"""Decoding threads for large pictures, where there are as many processors."""
LARGE_PICTURE: Final = 2048 * 1152
"""Pixels from which on more threads are worth their memory. A live source has one for smaller
ones; the slices of a large one, if it has several, are decoded at the same time, without delay."""
_NO_TIMESTAMPS: Final = 0x80
"""FFmpeg's flag of a format without time stamps, such as raw H.264 (AVFMT_NOTIMESTAMPS)."""
_JPEG_STREAMS: Final = {"mjpeg", "mpjpeg", "jpeg_pipe", "image2pipe"}
"""Demuxers that hand over what they have of a JPEG picture when reading breaks off in it."""
_MAY_JUMP: Final = 0x200
"""FFmpeg's flag of a format whose time stamps may jump (AVFMT_TS_DISCONT)."""


def thread_count(pixels: int, processors: int, *, live: bool) -> int:
    """Return the number of threads to decode pictures of so many pixels."""
    if pixels < LARGE_PICTURE:
        return 1 if live else FILE_THREADS
    return max(1 if live else FILE_THREADS, min(MOST_THREADS, processors))


HIGHEST_RATE: Final = 1000.0
"""fps: an APNG without delays states 100000."""


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
        turn: Orientation,
        stream: StreamWish,
        grid: Grid | None,
        live: bool,
        options: Mapping[str, str],
    ) -> None:
        """`grid` says how the streams are the tiles of one picture."""
        self._container, self._feed, self._files = container, feed, files
        self._name = name
        self._stream = select_stream(container, stream, name)
        self._facts = StreamFactsReader(container, self._stream)
        context = self._stream.codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        self.is_raw = bool(container.format.flags & _NO_TIMESTAMPS)
        """Whether the format has no time stamps at all, such as raw H.264."""
        self._rate_is_set = "framerate" in options
        self.decode_for(live=live)
        order = field_order(context.name, compat.stated_field_order(context))
        turn = grid.orientation.then(turn) if grid else turn
        self._fitter = Fitter(name, geometry, fit, codec=context.name, turn=turn, field_order=order)
        self._grid = grid
        self._joined: VideoFrame | None = None
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
        """s: the longest stretch between two key frames so far, both by their arrival and by their
        time stamps: one is longer after a pause, the other where the stamps jump."""
        self._last_key: tuple[float, float | None] | None = None
        self._corrupt_run = self._decoded = 0

    @classmethod
    def open(
        cls,
        url: str,
        *,
        geometry: Geometry,
        fit: FitMode = "crop",
        turn: Orientation = UPRIGHT,
        stream: StreamWish = "best",
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
        """Open `url` and find its video stream: the best, or the one of a number.

        `turn` rotates and mirrors the upright picture.
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
            options = dict(options or {})
            limited = {"max_pixels": str(MAX_PIXELS)} | options
            timeout = open_timeout, read_timeout
            grid = None
            try:
                if files is not None and not files.fetch():
                    files = None
                container = compat.open_input(
                    feed or url,
                    format=hls.DEMUXER if files else format or None,
                    options=(hls.OPTIONS if files else {}) | limited,
                    timeout=(open_timeout, _UNLIMITED if files else read_timeout),
                    io_open=files,
                )
                undo.callback(container.close)
                tiled = shows_tiles(container, stream)
                if tiled and feed is None:  # a pipe cannot be read twice
                    grid = find_grid(url, limited, timeout, MAX_PIXELS)
            except (av.error.FFmpegError, ValueError, OSError) as error:
                fault = feed.fault if feed else None
                asked = Asked(url, name, options, live=low_delay)
                raise fault or refusal(error, asked) from None
            if tiled and not grid:
                raise not_joined(name)
            source = cls(
                container,
                name,
                feed,
                files,
                geometry=geometry,
                fit=fit,
                turn=turn,
                stream=stream,
                grid=grid,
                live=low_delay,
                options=options,
            )
            undo.pop_all()
            return source

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
        if self._grid:
            return self._grid.width
        return self._stream.codec_context.width

    @property
    def height(self) -> int:
        """Coded height in pixels; 0 while unknown."""
        if self._grid:
            return self._grid.height
        return self._stream.codec_context.height

    @property
    def codec(self) -> str:
        """The codec's name in FFmpeg, such as `h264`."""
        return self._stream.codec_context.name

    @property
    def rate(self) -> float:
        """Frames per second as announced; 0.0 when unknown, or no rate that a video can have.

        A raw stream announces it in the codec's headers, if at all: FFmpeg puts 25 in the place
        of the container's, unless the user says otherwise.
        """
        average, guessed = self._stream.average_rate, self._stream.guessed_rate
        is_guess_better = self.is_raw and not self._rate_is_set
        rate = compat.number(guessed or average if is_guess_better else average or guessed)
        return rate if rate <= HIGHEST_RATE else 0.0

    @property
    def length(self) -> float:
        """Seconds from the start to the end, as the container tells; 0.0 when unknown."""
        return max(0.0, (self._container.duration or 0) / av.time_base)

    @property
    def may_jump(self) -> bool:
        """Whether the container's format allows jumps in the time stamps."""
        return bool(self._container.format.flags & _MAY_JUMP)

    @property
    def burst(self) -> float:
        """Seconds of pictures that arrive at once, as far as the source tells; 0.0 if unknown."""
        return self._files.burst if self._files else 0.0

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
        if self._grid:
            yield self._lend(self._join(self._grid))
            return
        self._decoded = 0
        for coded in self.coded():
            # The empty packet at the end makes the decoder hand out the rest.
            is_skipped = coded.size > 0 and not self._skipper.wants(is_key=coded.is_key)
            frames = [] if is_skipped else self._frames_of(coded)
            del coded  # like the frames: not to outlive the device, see close()
            if is_skipped:
                on_skipped()
            while frames:
                yield self._lend(frames.pop(0))
        if not self._decoded and not self._live:
            raise no_picture(self._name)

    def coded(self) -> Generator[CodedPicture, None, None]:
        """Read from here to the end, packet by packet; may run in another thread than `decode`.

        The last one has no content. Raises SourceLost when reading fails.
        """
        packets = cast(
            "Generator[Packet[VideoStream], None, None]", self._container.demux(self._stream)
        )
        # Not to outlive the device here, see close().
        coded: list[CodedPicture] = []
        try:
            while (packet := self._next_packet(packets)) is not None:
                self._note_packet(packet)
                self._require_whole(packet)
                coded.append(CodedPicture(packet))
                may_be_cut = self._may_be_cut(packet)
                del packet
                while len(coded) > may_be_cut:
                    yield coded.pop(0)
        finally:
            coded.clear()
            packets.close()  # frees FFmpeg's packet now, not at garbage collection
        if self._feed and self._feed.fault:
            raise self._feed.fault

    def _require_whole(self, packet: "Packet[VideoStream]") -> None:
        """Raise SourceLost where reading a picture file broke off: its demuxer does not tell."""
        if self._container.format.name == "image2" and 0 < packet.size < size_of(self._container):
            raise SourceLost(f"{self._name}: reading broke off within the picture")

    def _may_be_cut(self, packet: "Packet[VideoStream]") -> bool:
        """Whether only the next packet shows that reading did not break off in this one.

        A device delivers its pictures whole, and some devices leave out their ends.
        """
        is_read = self.codec == "mjpeg" and self._container.format.name in _JPEG_STREAMS
        return is_read and packet.size > 0 and lacks_end(memoryview(packet))

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
                del coded.packet  # which the error's traceback would keep, see close()
                raise undecodable(self._name, self._corrupt_run) from None
            return []
        if frames:
            self._corrupt_run = 0
        self._decoded += len(frames)
        return frames

    def _join(self, grid: Grid) -> VideoFrame:
        """Return the picture that the tiles are; they are decoded once."""
        try:
            self._joined = self._joined or join_tiles(self._container, grid)
        except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
            raise read_failure(error, self._name) from None
        if not self._joined:
            raise no_picture(self._name)
        return self._joined

    def _lend(self, frame: VideoFrame) -> Picture:
        picture = Picture(self, frame)
        self._lent.add(picture)
        return picture

    def _note_packet(self, packet: "Packet[VideoStream]") -> None:
        self.packets += packet.size > 0
        if not packet.is_keyframe:
            return
        now = time.monotonic()
        stamp = None if packet.pts is None else packet.pts * compat.number(packet.time_base)
        if self._last_key is not None:
            arrived, before = self._last_key
            interval = now - arrived
            if stamp is not None and before is not None:
                interval = min(interval, stamp - before)
            self.key_interval = max(self.key_interval, interval)
        self._last_key = now, stamp

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
        self._joined = None
        del self._stream, self._facts  # the codec's threads end with the last reference to it

    def _fit_frame(self, frame: VideoFrame) -> I420:
        return self._fitter.fit(frame, self._facts.read(frame))


def _waited() -> float:
    """Return the seconds in which this thread did not work; only differences mean anything."""
    return time.monotonic() - time.thread_time()
