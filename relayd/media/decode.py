"""Video input through FFmpeg: any URL it can open, fitted to the relay's size.

One `VideoInput` is one open container with its one video stream, and belongs to one thread:
FFmpeg 8.1 crashes when two threads use one codec context.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from threading import Event
from typing import Final, SupportsFloat
from weakref import WeakSet

import av.error
import av.logging
from av.video.frame import VideoFrame

from relayd.media import compat
from relayd.media.container import MAX_PIXELS, OpenContainer, open_container
from relayd.media.decoder import Decoder
from relayd.media.deinterlace import field_order
from relayd.media.feed import ByteFeed
from relayd.media.fit import Fitter
from relayd.media.frames import I420, FitMode, Geometry
from relayd.media.heif import Grid
from relayd.media.hls import HlsFiles
from relayd.media.hls_sound import HlsSound
from relayd.media.look import Look, look_at
from relayd.media.orientation import UPRIGHT, Orientation
from relayd.media.packets import PacketReader
from relayd.media.picture import CodedPicture, Picture
from relayd.media.reading_ahead import read_ahead
from relayd.media.refusals import no_picture, read_failure
from relayd.media.selection import StreamFactsReader, discard_others, select_stream
from relayd.media.skipping import SkipLevel
from relayd.media.sound import Hearing, SoundFormat, SoundReader, select_sound
from relayd.media.stamps import StampChooser
from relayd.media.streams import StreamWish
from relayd.media.symptoms import Asked
from relayd.media.tiles import join_tiles
from relayd.urls.safe import MediaUrl

# PyAV's Python logging hook is known to deadlock with threads (PyAV #751, #2276).
av.logging.set_level(None)

_NO_TIMESTAMPS: Final = 0x80
"""FFmpeg's flag of a format without time stamps, such as raw H.264 (AVFMT_NOTIMESTAMPS)."""
_MAY_JUMP: Final = 0x200
"""FFmpeg's flag of a format whose time stamps may jump (AVFMT_TS_DISCONT)."""


HIGHEST_RATE: Final = 1000.0
"""fps: an APNG without delays states 100000."""


class VideoInput:
    """An open container and its video stream, read by one thread."""

    def __init__(
        self,
        opened: OpenContainer,
        name: str,
        *,
        geometry: Geometry,
        fit: FitMode,
        turn: Orientation,
        stream: StreamWish,
        live: bool,
        options: Mapping[str, str],
        with_sound: bool,
    ) -> None:
        self._container, self._feed = opened.container, opened.feed
        self._files, self._grid = opened.files, opened.grid
        container, grid = opened.container, opened.grid
        self._name = name
        self._stream = select_stream(container, stream, name)
        sound = select_sound(container, self._stream) if with_sound and not grid else None
        self._sound = SoundReader(sound) if sound else None
        self._sound_beside = _sound_beside(opened.files, options) if with_sound else None
        if not grid:
            discard_others(container, {one.index for one in (self._stream, sound) if one})
        self._facts = StreamFactsReader(container, self._stream)
        context = self._stream.codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        self.is_raw = bool(container.format.flags & _NO_TIMESTAMPS)
        """Whether the format has no time stamps at all, such as raw H.264."""
        self._rate_is_set = "framerate" in options
        self._reader = PacketReader(container, self._stream, name, sound=self._sound)
        self._decoder = Decoder(self._stream, name)
        self.decode_for(live=live)
        order = field_order(context.name, compat.stated_field_order(context))
        turn = grid.orientation.then(turn) if grid else turn
        self._fitter = Fitter(name, geometry, fit, codec=context.name, turn=turn, field_order=order)
        self._joined: VideoFrame | None = None
        self._lent: WeakSet[Picture] = WeakSet()
        """Pictures that somebody still has."""
        self._stamps = StampChooser()

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
        with_sound: bool = False,
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
        `with_sound` has the sound read as well, if there is some: see `hear`.
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
            opened = open_container(
                Asked(url, name, options or {}, live=low_delay),
                demuxer=format,
                stream=stream,
                open_timeout=open_timeout,
                read_timeout=read_timeout,
                cancelled=cancelled or Event(),
                feed=feed,
                files=files,
                undo=undo,
            )
            source = cls(
                opened,
                name,
                geometry=geometry,
                fit=fit,
                turn=turn,
                stream=stream,
                live=low_delay,
                options=options or {},
                with_sound=with_sound,
            )
            undo.pop_all()
            return source

    def decode_for(self, *, live: bool) -> None:
        """Choose between no frame held back and several threads; before the first picture."""
        self._live = live
        self._decoder.prepare(live=live)

    @property
    def waited(self) -> float:
        """Seconds spent so far in waiting for data, not in decoding it."""
        return self._reader.waited

    @property
    def packets(self) -> int:
        """Packets of the video read so far, decodable or not."""
        return self._reader.count

    @property
    def key_interval(self) -> float:
        """The longest stretch between two key frames so far in s, by their time stamps."""
        return self._reader.key_interval

    @property
    def corrupt(self) -> int:
        """Packets that could not be decoded so far."""
        return self._decoder.corrupt

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

    @property
    def sound(self) -> SoundFormat | None:
        """What is known of the sound; None if there is none, or it is not read."""
        sound = self._sound or self._sound_beside
        return sound.format if sound else None

    def hear(self, hearing: Hearing) -> None:
        """Hand sound on while pictures are read, until `rewind`; first what came so far."""
        if sound := self._sound or self._sound_beside:
            sound.hear(hearing)

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
        before = self._decoder.decoded
        for coded in self._read_for_showing():
            is_skipped = self._decoder.skips(coded)
            frames = [] if is_skipped else self._frames_of(coded)
            del coded  # like the frames: not to outlive the device, see close()
            if is_skipped:
                on_skipped()
            while frames:
                yield self._lend(frames.pop(0))
        if self._decoder.decoded == before and not self._live:
            raise no_picture(self._name)

    def coded(self) -> Generator[CodedPicture, None, None]:
        """Read from here to the end, packet by packet; may run in another thread than `decode`.

        The last one has no content. Raises SourceLost when reading fails.
        """
        yield from self._reader.packets()
        if self._feed and self._feed.fault:
            raise self._feed.fault

    def _read_for_showing(self) -> Generator[CodedPicture, None, None]:
        if self._sound is None or self._live:
            return self.coded()
        return read_ahead(self.coded(), self._sound, lambda: self.waited)

    def decode(self, coded: CodedPicture) -> list[Picture]:
        """Decode one packet; none, one or more pictures come of it.

        One that cannot be decoded is skipped and counted in `corrupt`. Raises SourceUnusable when
        CORRUPT_LIMIT packets in a row could not be decoded.
        """
        return [self._lend(frame) for frame in self._frames_of(coded)]

    def _frames_of(self, coded: CodedPicture) -> list[VideoFrame]:
        return self._decoder.decode(coded, before_key=self._live and not self._reader.has_key)

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
        if sound := self._sound or self._sound_beside:
            sound.keep()
        self._fitter.close()  # a filter may remember the pictures before
        return True

    def skip(self, level: SkipLevel) -> None:
        """Leave more or fewer pictures undecoded from the next packet on."""
        self._decoder.skip(level)

    def choose_stamp(self, frame: VideoFrame) -> int | None:
        """Return the stamp of the frame that was decoded last, in its own time base."""
        return self._stamps.choose(frame.pts, frame.dts)

    def close(self) -> None:
        """Close the file, socket or device, the codec and the filters.

        Pictures that somebody still has lose their content. Raw pictures of a camera are the
        device's own memory: FFmpeg gives it back to the device even when that is closed, and
        crashes. An error's traceback holds the last picture like this.
        """
        if self._sound_beside:
            self._sound_beside.close()
        for picture in list(self._lent):
            picture.drop()
        self._fitter.close()
        self._container.close()
        if self._feed:
            self._feed.close()
        self._joined = None
        # The codec's threads end with the last reference to it.
        self._reader.close()
        self._decoder.close()
        if self._sound:
            self._sound.close()
        del self._stream, self._facts

    def fit_frame(self, frame: VideoFrame) -> I420:
        """Return a frame fitted to the relay's size."""
        return self._fitter.fit(frame, self._facts.read(frame))


def _sound_beside(files: HlsFiles | None, options: Mapping[str, str]) -> HlsSound | None:
    """Return the sound of an HLS stream that is not among its pictures."""
    closed = Event()
    beside = files.beside(closed) if files else None
    return HlsSound(beside, options, closed) if beside else None
