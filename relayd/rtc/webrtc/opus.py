"""Sound over WebRTC: Opus in 48 kHz mono packets of 20 ms, both ways, over aiortc.

aiortc's encoder is fixed to stereo at 96 kbit/s, and its buffer for received sound loses 280 ms
with one packet. So a track here carries packets that are encoded already, and received packets
go, as they arrive, to `relayd.rtc.webrtc.playout`.
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from math import inf
from typing import TypeAlias

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCRtpSender, rtcrtpreceiver
from aiortc.codecs.base import Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from relayd.rtc.webrtc.engine import SOUND_BITRATE
from relayd.rtc.webrtc.playout import Playout, Wave
from relayd.sound.blocks import BLOCK, RATE, Samples

PACKET = 2 * BLOCK
"""Samples of a packet that is sent: 20 ms, what every receiver expects."""
LONGEST_WAIT = 5
"""Packets that may wait to be sent: 100 ms. After a stall the oldest are dropped."""
LONGEST_STEP = BLOCK
"""Samples by which a block may be off its place before its time is believed instead."""

EncodedSound: TypeAlias = "av.Packet[av.AudioStream]"

_MIME = "audio/opus"
_SSRC = slice(8, 12)
"""Where the synchronization source stands in an RTP packet (RFC 3550 §5.1)."""
_find_decoder = rtcrtpreceiver.get_decoder  # type: ignore[attr-defined]  # not exported


class SoundPacket(JitterFrame):
    """A received RTP packet of sound, neither reordered nor decoded."""

    def __init__(self, packet: RtpPacket) -> None:
        super().__init__(packet._data, packet.timestamp)  # type: ignore[attr-defined]  # noqa: SLF001 - set by aiortc
        self.sequence = packet.sequence_number
        self.arrived_at = time.monotonic()


class ArrivalBuffer:
    """Stands in for aiortc's jitter buffer for sound: passes each packet on as it arrives."""

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Return that no key frame is needed, and the packet."""
        return False, SoundPacket(packet)


class _NoDecoder(Decoder):
    """Passes Opus packets on to the track."""

    def decode(self, encoded_frame: JitterFrame) -> list[JitterFrame]:  # type: ignore[override]  # not decoded
        return [encoded_frame]


def _decoder_of(codec: RTCRtpCodecParameters) -> Decoder:
    decoder: Decoder = _NoDecoder() if codec.mimeType.lower() == _MIME else _find_decoder(codec)
    return decoder


rtcrtpreceiver.get_decoder = _decoder_of  # type: ignore[attr-defined]  # not exported


def opus_alone() -> list[RTCRtpCodecCapability]:
    """Return the codecs to offer for sound."""
    return [one for one in RTCRtpSender.getCapabilities("audio").codecs if one.mimeType == _MIME]


class VoiceTrack(MediaStreamTrack):
    """The track that a sender reads: packets of pushed blocks, in order."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()  # pyee below takes the names _lock, _loop and _waiting
        self._owner_loop = asyncio.get_running_loop()
        self._available = asyncio.Event()
        self._guard = threading.Lock()
        self._encoder = _encoder()
        self._packets: deque[EncodedSound] = deque(maxlen=LONGEST_WAIT)
        self._half: Samples | None = None
        self._origin = 0.0
        self._position = -1
        """Samples since the origin, of the next block; negative before the first."""

    def push(self, samples: Samples, at: float) -> None:
        """Encode the block that was captured at `at`, monotonic s; from one thread, any."""
        with self._guard:
            if self.readyState != "live":
                return
            self._place(at)
            self._position += BLOCK
            if self._half is None:
                self._half = samples.copy()
                return
            whole, self._half = np.concatenate((self._half, samples)), None
            for packet in self._encoded(whole, self._position - PACKET):
                self._packets.append(packet)
            self._owner_loop.call_soon_threadsafe(self._available.set)

    async def recv(self) -> EncodedSound:
        """Wait for a packet (called by aiortc). Whoever pushes sets the pace."""
        while self.readyState == "live":
            with self._guard:
                if self._packets:
                    return self._packets.popleft()
                self._available.clear()
            await self._available.wait()
        raise MediaStreamError

    def stop(self) -> None:
        """End the track; later pushes are ignored."""
        with self._guard:
            super().stop()
            self._packets.clear()
            self._half = None
        self._available.set()

    def _place(self, at: float) -> None:
        """Go on where the last block ended, or after a hole at the place of `at`."""
        if self._position < 0:
            self._origin, self._position = at, 0
        place = round((at - self._origin) * RATE)
        if place - self._position > LONGEST_STEP:
            self._position, self._half = place, None
        elif self._position - place > LONGEST_STEP:  # the clock went back; RTP time does not
            self._origin = at - self._position / RATE

    def _encoded(self, samples: Wave, position: int) -> list[EncodedSound]:
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = RATE
        packets = self._encoder.encode(frame)
        for packet in packets:
            packet.pts, packet.time_base = position, Fraction(1, RATE)
        return packets


class Listener:
    """Reads one track of received packets, and hands on its sound block by block, evenly."""

    def __init__(self, track: MediaStreamTrack, on_sound: Callable[[Samples, float], None]) -> None:
        """`on_sound(samples, at)` is called in the loop's thread, at the time `at`."""
        self._track, self._on_sound = track, on_sound
        self._loop = asyncio.get_running_loop()
        self._decoder = _decoder()
        self._timer: asyncio.TimerHandle | None = None
        self.playout = Playout(self._decode)

    async def run(self) -> None:
        """Read until the track ends."""
        try:
            while True:
                packet = await self._track.recv()
                if isinstance(packet, SoundPacket):
                    self.playout.put(packet.sequence, packet.data, packet.arrived_at)
                    self._set_timer()
        except MediaStreamError:
            pass
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is None and self.playout.due < inf:
            self._timer = self._loop.call_at(self.playout.due, self._play)

    def _play(self) -> None:
        self._timer = None
        for samples, at in self.playout.take(time.monotonic()):
            self._on_sound(samples, at)
        self._set_timer()

    def _decode(self, payload: bytes) -> Wave:
        if not payload:  # to FFmpeg the end of the stream
            return np.zeros(0, np.int16)
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.FFmpegError:  # not Opus
            return np.zeros(0, np.int16)
        return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def lose_packets(sender: RTCRtpSender, share: Callable[[], float]) -> None:
    """From now on, lose that share (0 to 1) of what `sender` sends, as a bad network would."""
    transport, source = sender.transport, sender._ssrc.to_bytes(4, "big")  # noqa: SLF001 - no other way
    send = transport._send_rtp  # noqa: SLF001 - no other way

    async def lossy(data: bytes) -> None:
        if data[_SSRC] != source or random.random() >= share():
            await send(data)

    transport._send_rtp = lossy  # type: ignore[method-assign]  # noqa: SLF001 - no other way


def _encoder() -> av.AudioCodecContext:
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.bit_rate = SOUND_BITRATE
    encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", RATE
    encoder.options = {"application": "voip"}
    return encoder


def _decoder() -> av.AudioCodecContext:
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.format, decoder.layout, decoder.sample_rate = "s16", "mono", RATE
    return decoder
