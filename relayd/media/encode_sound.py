"""The sound track of an encoded output: blocks in, AAC or Opus packets out, without a hole."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal, cast

import numpy as np
from av import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer

from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples

if TYPE_CHECKING:
    from av.packet import Packet

AudioCodec = Literal["aac", "opus"]

_ENCODERS: Final[dict[AudioCodec, str]] = {"aac": "aac", "opus": "libopus"}
_BITRATE: Final = 64_000
"""bit/s: transparent for one voice."""
_TOLERANCE: Final = RATE // 50
"""Samples by which a block may come early or late and is still appended: its time is that of the
thread that played it, not of the sound."""
_SAME_TIME: Final = 0.001
"""s by which a block's time may differ from the end of the one before it, by rounding."""
_LONGEST_WAIT: Final = RATE // 2
"""Samples that the sound may lag behind the pictures before silence is put in: the muxer waits for
both."""
_LONGEST_FILLED: Final = 5 * RATE
"""Samples of silence put in at most: after a longer time without pictures the track has a gap. An
hour of silence, after the process was stopped, would take the encoder longer than it may."""


def joined(blocks: Iterable[tuple[Samples, float]]) -> Iterator[tuple[Samples, float]]:
    """Join blocks that follow each other, each with its time in s after the first picture.

    A call of the encoder costs as much as encoding a block. What comes before the first picture is
    left out.
    """
    run: list[Samples] = []
    begins = ends = 0.0
    for samples, at in blocks:
        if at <= -BLOCK_SECONDS:
            continue
        if run and abs(at - ends) > _SAME_TIME:
            yield np.concatenate(run), begins
            run = []
        begins = begins if run else at
        run.append(samples)
        ends = at + len(samples) / RATE
    if run:
        yield np.concatenate(run), begins


class SoundTrack:
    """The sound stream of one container. Time 0 is the first picture's."""

    def __init__(self, container: OutputContainer, codec: AudioCodec) -> None:
        """Add the stream; raises what PyAV raises if the container cannot carry it."""
        stream = container.add_stream(_ENCODERS[codec], rate=RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.codec_context.bit_rate = _BITRATE
        self._stream = stream
        self._next = 0
        self.filled = 0
        """Samples of silence put into holes."""

    def write(self, samples: Samples, at: float) -> "list[Packet[AudioStream]]":
        """Encode samples that belong `at` s after the first picture; returns finished packets.

        What comes before the first picture, or a second time, is left out; holes become silence.
        """
        place = round(at * RATE)
        if place <= -BLOCK:
            return []
        if place < self._next - _TOLERANCE:
            samples = samples[self._next - place :]
            place = self._next
        if not len(samples):
            return []
        packets = self._fill(place) if place > self._next + _TOLERANCE else []
        return packets + self._encode(samples)

    def fill_until(self, at: float) -> "list[Packet[AudioStream]]":
        """Put in silence if the sound lags far behind the picture at `at` s."""
        place = round(at * RATE)
        return self._fill(place) if place > self._next + _LONGEST_WAIT else []

    def end(self, at: float) -> "list[Packet[AudioStream]]":
        """Return the last packets, with silence up to the end of the pictures at `at` s."""
        packets = self._fill(round(at * RATE))
        return packets + (self._stream.encode(None) if self._next else [])

    def _fill(self, place: int) -> "list[Packet[AudioStream]]":
        packets: list[Packet[AudioStream]] = []
        self._next = max(self._next, place - _LONGEST_FILLED)
        while self._next < place:
            length = min(RATE, place - self._next)
            self.filled += length
            packets += self._encode(np.zeros(length, np.int16))
        return packets

    def _encode(self, samples: Samples) -> "list[Packet[AudioStream]]":
        # Opus takes 16 bit as it is, FFmpeg's AAC encoder only planar floats: PyAV converts.
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts, frame.time_base = self._next, Fraction(1, RATE)
        self._next += len(samples)
        return cast("list[Packet[AudioStream]]", self._stream.encode(frame))


class SharedTime:
    """The time that pictures and sound of one output have in common: it begins with a picture."""

    def __init__(self) -> None:
        self._first: float | None = None

    def begin(self, shown_at: float) -> float:
        """Return the s from the first picture to one shown at `shown_at`, monotonic s."""
        if self._first is None:
            self._first = shown_at
        return shown_at - self._first

    def since_first(self, at: float) -> float | None:
        """Return the s from the first picture to `at`; None before there was one."""
        return None if self._first is None else at - self._first
