"""Video output through FFmpeg: H.264 to files and push URLs, JPEG for previews.

PyAV before 19 opens an output's connection and writes its trailer while it holds the
interpreter lock, without a time limit (av/container/output.py, `start_encoding` and
`close_output`; only muxing a packet releases the lock). A peer that does not answer would thus
block every thread of the process. So pushing to a network is done in a process that can be
killed: see relayd.output.pusher.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import av
import av.error
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from relayd.errors import OutputError
from relayd.logs import redact
from relayd.media.encode_sound import AudioCodec, SoundTrack
from relayd.media.frames import I420, Geometry
from relayd.media.srt import SrtPipe
from relayd.sound.blocks import Samples
from relayd.urls.safe import MediaUrl
from relayd.urls.targets import format_of, scheme_of

_MUXER_OPTIONS: Final = {
    # Fragmented while it grows, so that a killed process leaves a file that plays up to the last
    # fragment; close() turns it into a regular MP4 (FFmpeg 7.1, movenc "hybrid_fragmented").
    "mp4": {"movflags": "+hybrid_fragmented+frag_keyframe", "flush_packets": "1"},
    "mov": {"movflags": "+hybrid_fragmented+frag_keyframe", "flush_packets": "1"},
    # At most one packet of latency, and a receiver that joins late soon gets the tables.
    "mpegts": {"flush_packets": "1", "pat_period": "0.5", "muxdelay": "0"},
    "matroska": {"cluster_time_limit": "2000", "flush_packets": "1"},
    # A live stream has neither duration nor size to go back and fill in.
    "flv": {"flvflags": "no_duration_filesize", "flush_packets": "1"},
    # UDP is blocked in most networks, and TCP reports when the peer is gone. The delay (in µs) is
    # that of sound: without it more AAC is put into one packet, and servers that place streams
    # by their arrival have the sound that much late.
    "rtsp": {"rtsp_transport": "tcp", "max_delay": "40000"},
}
_SECONDS_PER_GOP = 2
"""A receiver that joins waits for a key frame; services ask for 2 s (YouTube, Twitch)."""
_BT601 = 6
"""SMPTE 170M in H.273's tables of primaries, transfer and matrix."""
_FULL_QUALITY = 100
_FINEST_Q, _COARSEST_Q = 2, 31
"""The quantiser range of FFmpeg's mjpeg encoder."""


class VideoWriter:
    """Encodes I420 pictures to H.264 and muxes them to a file or a push URL.

    One thread owns it. Nothing is opened before the first picture. An existing file is
    overwritten: the caller chooses an unused name. Each picture's time is its number divided
    by `fps` (with sound: its number of ms), so a dropped picture leaves a gap and does not speed up
    the video.
    """

    def __init__(
        self,
        target: str | MediaUrl,
        width: int,
        height: int,
        *,
        fps: float,
        bitrate_kbit: int,
        format: str = "",  # noqa: A002 - the setting's name
        options: Mapping[str, str] | None = None,
        audio: AudioCodec | None = None,
    ) -> None:
        """Prepare the output; `format` forces a muxer, `options` go to it.

        With `audio` there is a sound track as well, for `write_sound`. Raises OutputError when the
        container is unknown or cannot carry these codecs.
        """
        url = MediaUrl.of(target)
        self.name, target = str(url), url.reveal()
        self._geometry = Geometry(width, height)
        self._next = self._earliest = 0
        self._closed = False
        muxer = format or format_of(target)
        rate = Fraction(fps).limit_denominator(1001)
        # Beside sound a picture has the time at which it was shown: on an even grid it would be
        # up to half a picture early or late, and after a tick that was left out ahead for good.
        self._time_base = Fraction(1, 1000) if audio else 1 / rate
        self._step = round(1 / rate / self._time_base)
        self._srt = SrtPipe(target, self.name) if scheme_of(target) == "srt" else None
        try:
            self._container = av.open(
                self._srt or _with_packet_size(target),
                "w",
                format=muxer,
                container_options=dict(_MUXER_OPTIONS.get(muxer, {})) | dict(options or {}),
            )
            self._stream = self._add_stream(rate, bitrate_kbit)
            self._sound = SoundTrack(self._container, audio) if audio else None
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            if self._srt:
                self._srt.close()
            raise OutputError(f"{self.name}: {_reason(fault)}") from fault

    def _add_stream(self, rate: Fraction, bitrate_kbit: int) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=rate)
        assert isinstance(stream, VideoStream)
        codec = stream.codec_context
        codec.width, codec.height = self._geometry.width, self._geometry.height
        codec.pix_fmt = "yuv420p"
        codec.time_base = self._time_base
        codec.bit_rate = bitrate_kbit * 1000
        codec.gop_size = max(1, round(rate * _SECONDS_PER_GOP))
        # More threads only cut a small picture into more slices.
        codec.thread_count = 1
        codec.color_range = ColorRange.MPEG
        codec.color_primaries = codec.color_trc = codec.colorspace = _BT601
        codec.options = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "profile": "main",
            "maxrate": f"{bitrate_kbit}k",
            "bufsize": f"{max(1, bitrate_kbit // 2)}k",
            "sc_threshold": "0",
        }
        return stream

    def write(self, i420: I420, number: int | None = None) -> None:
        """Encode and mux one picture; `number` is its place in time, by default the next one.

        It counts pictures; with sound it counts ms.

        The first picture opens the target. Raises OutputError; only close() may follow that.
        """
        if i420.shape != self._geometry.shape:
            raise OutputError(f"{self.name}: expected a {self._geometry} picture")
        place = self._next if number is None else max(number, self._earliest)
        self._earliest, self._next = place + 1, place + self._step
        frame = VideoFrame.from_ndarray(i420, format="yuv420p")
        frame.pts = place
        frame.time_base = self._time_base
        try:
            self._container.mux(self._stream.encode(frame))
            if self._sound:
                self._container.mux(self._sound.fill_until(float(place * self._time_base)))
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            raise OutputError(f"{self.name}: {_reason(fault)}") from fault

    def write_sound(self, samples: Samples, at: float) -> None:
        """Encode and mux samples, shape (n,), that belong `at` s after the first picture.

        Does nothing before that picture, which opens the target. Raises as `write`.
        """
        if not self._sound or not self._next:
            return
        try:
            self._container.mux(self._sound.write(samples, at))
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            raise OutputError(f"{self.name}: {_reason(fault)}") from fault

    @property
    def connected(self) -> bool:
        """Whether pictures get through: the target is open and, for SRT, the peer was reached."""
        return self._next > 0 and (self._srt is None or self._srt.connected)

    def close(self) -> None:
        """Encode what is left, write the trailer and close; a second call does nothing.

        Raises OutputError when the end could not be written (peer gone, disk full); everything
        is closed in that case as well.
        """
        if self._closed:
            return
        self._closed = True
        try:
            try:
                if self._next:
                    self._container.mux(self._stream.encode(None))
                    if self._sound:
                        self._container.mux(self._sound.end(float(self._next * self._time_base)))
            finally:
                self._end()
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            raise OutputError(f"{self.name}: {_reason(fault)}") from fault

    def _end(self) -> None:
        try:
            self._container.close()
        finally:
            if self._srt:
                self._srt.close()


class JpegEncoder:
    """Makes JPEGs of I420 pictures; one thread owns it, its codec context is kept."""

    def __init__(self, width: int, height: int, quality: int = 80) -> None:
        """Make JPEGs of `width` x `height` pixels, `quality` 1 (coarse) to 100 (fine)."""
        self._geometry = Geometry(width, height)
        coarseness = 1 - min(max(quality, 1), _FULL_QUALITY) / _FULL_QUALITY
        quantiser = round(_FINEST_Q + coarseness * (_COARSEST_Q - _FINEST_Q))
        codec = CodecContext.create("mjpeg", "w")
        assert isinstance(codec, VideoCodecContext)
        codec.width, codec.height = width, height
        codec.pix_fmt = "yuvj420p"
        codec.time_base = Fraction(1, 1000)
        # A range of one value: FFmpeg's fixed quantiser would have to be set on each frame,
        # which PyAV does not support.
        codec.options = {"qmin": str(quantiser), "qmax": str(quantiser)}
        codec.thread_count = 1
        self._codec = codec
        self._reformatter = VideoReformatter()
        self._number = 0

    def encode(self, i420: I420) -> bytes:
        """Return the picture as JPEG (JFIF: BT.601, full range, 4:2:0).

        Raises OutputError when the picture has another size.
        """
        if i420.shape != self._geometry.shape:
            raise OutputError(f"preview: expected a {self._geometry} picture")
        limited = VideoFrame.from_ndarray(i420, format="yuv420p")
        # JFIF has full-range luma: without stretching 16..235, black would be grey.
        full = self._reformatter.reformat(
            limited,
            format="yuvj420p",
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        )
        full.pts, full.time_base = self._number, Fraction(1, 1000)
        self._number += 1
        return b"".join(bytes(packet) for packet in self._codec.encode(full))


def _with_packet_size(target: str) -> str:
    """Make UDP packets hold seven whole MPEG-TS packets of 188 bytes and fit an Ethernet frame."""
    if scheme_of(target) != "udp" or "pkt_size=" in target:
        return target
    return f"{target}{'&' if '?' in target else '?'}pkt_size=1316"


def _reason(fault: Exception) -> str:
    """Return what failed, without the target's URL, which FFmpeg's own text repeats."""
    if isinstance(fault, av.error.EOFError):
        return "the peer closed the connection"
    text = getattr(fault, "strerror", None)
    return str(text) if text else redact(str(fault)) or type(fault).__name__
