"""Decodes the sound beside the pictures of a container, to 48 kHz mono.

It never holds up a picture: what cannot be decoded is left out and counted, and nothing raises.
"""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from relayd.media import compat
from relayd.sound.blocks import RATE

if TYPE_CHECKING:
    from av.packet import Packet

MOST_KEPT: Final = 500
"""Pieces that are kept until somebody hears them: about 10 s, more than comes with a first
picture."""

PcmSamples = NDArray[np.int16]
"""int16, shape (n,): 48 kHz mono, of any length."""


@dataclass(frozen=True, slots=True)
class SoundPiece:
    """Decoded sound of one packet."""

    samples: PcmSamples
    pts: float | None
    """Time of its first sample in seconds, on the clock of the container's pictures; None if the
    stream does not tell."""


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """What a container states about its sound."""

    codec: str
    """FFmpeg's name, such as `aac`."""
    rate: int
    """Samples a second; 0 while unknown."""
    channels: int
    """0 while unknown."""


class Hearing(Protocol):
    """Where decoded sound goes; called by the thread that reads the container."""

    @property
    def is_full(self) -> bool:
        """Whether further sound would be dropped, so that it need not be decoded."""

    def put(self, piece: SoundPiece) -> None:
        """Take one piece, in the order of the container. Never blocks."""


def select_sound(container: InputContainer, video: VideoStream) -> AudioStream | None:
    """Return the sound that belongs to `video`; None if there is none that can be decoded."""
    best = container.streams.best("audio", related=video)
    # FFmpeg's choice leaves out streams of which nothing was seen yet, so the first one may do.
    candidates = [cast("AudioStream | None", best), *container.streams.audio]
    return next((one for one in candidates if one is not None and is_decodable(one)), None)


def is_decodable(stream: AudioStream) -> bool:
    """Whether there is a decoder for it."""
    # A stream without a decoder has no codec context, despite PyAV's types.
    return getattr(stream, "codec_context", None) is not None


class SoundReader:
    """Decodes the packets of one stream and hands the sound on; used by one thread."""

    def __init__(self, stream: AudioStream) -> None:
        """To be made before the first packet is read."""
        self.stream, self.index = stream, stream.index
        self._resampler: AudioResampler | None = None
        self._kept: deque[SoundPiece] = deque(maxlen=MOST_KEPT)
        self._hearing: Hearing | None = None
        self._next: float | None = None
        """Stamp of what follows the last piece. MPEG-TS packs up to a third of a second of quiet
        sound under one stamp, and FFmpeg may give the rest of it none."""
        self.newest: float | None = None
        """Until when sound was read, s on the container's clock; None before the first."""
        self.corrupt = 0
        """Packets that could not be decoded so far."""

    @property
    def format(self) -> SoundFormat:
        """What is known of the stream by now."""
        context = self.stream.codec_context
        return SoundFormat(context.name, context.rate or 0, _channels(self.stream))

    def hear(self, hearing: Hearing) -> None:
        """Hand on to `hearing` what is kept, and everything that comes until `keep`."""
        self._hearing = hearing
        while self._kept:
            hearing.put(self._kept.popleft())

    def keep(self) -> None:
        """Begin again, after a seek: keep what comes until somebody hears it."""
        self._hearing = self._resampler = self._next = self.newest = None
        self._kept.clear()

    def read(self, packet: "Packet[AudioStream]") -> None:
        """Decode one packet; the one without content makes the decoder hand out its rest."""
        if packet.size:
            self._note(packet)
        if self._hearing is not None and self._hearing.is_full:
            return
        try:
            pieces = [piece for frame in packet.decode() for piece in self._pieces(frame)]
        except (av.error.FFmpegError, ValueError, OSError, MemoryError):
            self.corrupt += 1
            self._resampler = None
            return
        for piece in pieces:
            if self._hearing is None:
                self._kept.append(piece)
            else:
                self._hearing.put(piece)

    def close(self) -> None:
        """Drop decoder and sound."""
        self._kept.clear()
        self._resampler = self._hearing = None
        del self.stream

    def _note(self, packet: "Packet[AudioStream]") -> None:
        base = compat.number(packet.time_base)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and base > 0:
            self.newest = (stamp + (packet.duration or 0)) * base

    def _pieces(self, frame: AudioFrame) -> list[SoundPiece]:
        base = compat.number(frame.time_base)
        pts = frame.pts * base if frame.pts is not None and base > 0 else None
        converted = [one.to_ndarray().reshape(-1) for one in self._resampled(frame)]
        samples = np.concatenate(converted).astype(np.int16, copy=False) if converted else None
        if samples is None or not len(samples):
            return []
        pts = self._next if pts is None else pts
        self._next = None if pts is None else pts + len(samples) / RATE
        return [SoundPiece(samples, pts)]

    def _resampled(self, frame: AudioFrame) -> list[AudioFrame]:
        """Convert a frame; some samples stay in the filter for the next one, 0.3 ms at most."""
        frame.pts = None  # or the filter would follow every error of the stamps
        if self._resampler is None:
            self._resampler = _resampler()
        try:
            return self._resampler.resample(frame)
        except ValueError:  # the stream changed its rate or channels
            self._resampler = _resampler()
            return self._resampler.resample(frame)


def _resampler() -> AudioResampler:
    return AudioResampler(format="s16", layout="mono", rate=RATE)


def _channels(stream: AudioStream) -> int:
    try:
        return int(stream.codec_context.channels or 0)
    except (AttributeError, ValueError):  # a layout that has no name
        return 0
