"""Clips with a flash and a beep at the same moment of each second, and what was seen of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from relayd.media.frames import SourceFrame, luma
from relayd.sound.blocks import RATE, OwnSound

PERIOD = 0.48
"""s from one flash to the next: twelve pictures."""
LASTS = 0.12
"""s that a flash and a beep last: three pictures of 25."""
FIRST = 0.2
"""s from the start to the first flash."""
LOUD = 3000
"""Amplitude that only a beep reaches."""


@dataclass(frozen=True)
class Sounding:
    """What a clip is like, where not as usual. All times in s."""

    seconds: float = 2.5
    rate: int = 48000
    layout: str = "mono"
    codec: str = "aac"
    sound_from: float = 0.0
    """When the sound begins."""
    sound_to: float = 1e9
    hole: tuple[float, float] = (0.0, 0.0)
    """From when to when there is no sound, nor a stamp for it."""
    jump_at: float = 1e9
    """When the stamps of both jump ..."""
    jump: float = 0.0
    """... by so much."""
    options: tuple[tuple[str, str], ...] = ()
    """For the container."""
    with_sound: bool = True


def is_on(t: float) -> bool:
    """Whether there is a flash, and a beep."""
    return t >= FIRST - 1e-6 and (t - FIRST + 1e-6) % PERIOD < LASTS


def write_twice(path: Path, clip: Sounding) -> Path:
    """Write a clip, and behind it the same again, with the same stamps (MPEG-TS)."""
    content = write(path, clip).read_bytes()
    path.write_bytes(content + content)
    return path


def damage(path: Path) -> Path:
    """Turn each packet of sound into rubbish, in a container that keeps them in one piece."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if packet.pos is not None and packet.size:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    return path


def write(path: Path, clip: Sounding) -> Path:
    """Write a clip of 160x120 at 25 pictures a second."""
    with av.open(str(path), "w", options=dict(clip.options)) as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "25"})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        sound = _sound_stream(container, clip) if clip.with_sound else None
        step = 0.04
        for number in range(round(clip.seconds / step)):
            t = number * step
            grey = np.full((120, 160), 235 if is_on(t) else 16, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in video.encode(frame):
                _mux(container, packet, clip)
            if sound is not None:
                _sound(container, sound, clip, number)
        for packet in [*video.encode(None), *(sound.encode(None) if sound else [])]:
            _mux(container, packet, clip)
    return path


def _sound_stream(container: OutputContainer, clip: Sounding) -> AudioStream:
    stream = container.add_stream(clip.codec, rate=clip.rate)
    assert isinstance(stream, AudioStream)
    stream.layout = clip.layout
    return stream


def _sound(container: OutputContainer, stream: AudioStream, clip: Sounding, number: int) -> None:
    """Write the sound beside a picture."""
    size = clip.rate // 25
    t = number / 25 + np.arange(size) / clip.rate
    on = (t >= FIRST) & ((t - FIRST) % PERIOD < LASTS)
    wave = (12000 * np.sin(2 * np.pi * 1000 * t) * on).astype(np.int16)
    channels = av.AudioLayout(clip.layout).nb_channels
    frame = av.AudioFrame.from_ndarray(
        np.repeat(wave, channels).reshape(1, -1), format="s16", layout=clip.layout
    )
    frame.sample_rate, frame.pts, frame.time_base = clip.rate, number * size, Fraction(1, clip.rate)
    for packet in stream.encode(frame):
        _mux(container, packet, clip)


def _mux(container: OutputContainer, packet: "Packet[Any]", clip: Sounding) -> None:
    if packet.pts is None or packet.dts is None:
        return
    at = float(packet.pts * packet.time_base)
    if packet.stream.type == "audio":
        starts, ends = clip.hole
        if not clip.sound_from <= at < clip.sound_to or starts <= at < ends:
            return
    if at >= clip.jump_at:
        ticks = round(clip.jump / packet.time_base)
        packet.pts = (packet.pts or 0) + ticks
        packet.dts = (packet.dts or 0) + ticks
    container.mux(packet)


def flashes(frames: Sequence[SourceFrame]) -> list[float]:
    """When each flash began; one that was on at once does not count."""
    lit = [bool(luma(frame.i420).mean() > 120) for frame in frames]
    return [
        frames[number].captured_at
        for number in range(1, len(frames))
        if lit[number] and not lit[number - 1]
    ]


def beeps(blocks: Sequence[OwnSound]) -> list[float]:
    """When each beep began, after at least 50 ms of quiet."""
    found: list[float] = []
    loud_at = float("-inf")
    for block in blocks:
        loud = np.flatnonzero(np.abs(block.samples.astype(np.int32)) > LOUD)
        if len(loud):
            if block.at - loud_at > 0.05:
                found.append(block.at + loud[0] / RATE)
            loud_at = block.at
    return found


def offsets(seen: Sequence[float], heard: Sequence[float]) -> list[float]:
    """By how much the beep nearest to each flash came after it; nothing for one without a beep."""
    nearest = [(min(heard, key=lambda at: abs(at - flash)) - flash) for flash in seen if heard]
    return [off for off in nearest if abs(off) < PERIOD / 2]
