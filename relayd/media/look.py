"""What an open container shows of itself, as far as its kind depends on it."""

from dataclasses import dataclass
from typing import Final

import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from relayd.media import compat

_MICROSECONDS: Final = 1e6
"""FFmpeg's unit for the duration of a container."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found behind a URL."""

    demuxers: frozenset[str]
    """FFmpeg's names of the container format, such as {"mpjpeg"}."""
    codec: str
    """FFmpeg's name of the video codec."""
    duration: float = 0.0
    """s; 0.0 when unknown."""
    size: int = 0
    """Bytes; 0 when unknown, as for an HTTP answer without Content-Length."""
    pictures: int = 0
    """Pictures that the container announces in its video stream; 0 when unknown."""


def look_at(container: InputContainer, stream: VideoStream) -> Look:
    """Return what an open container shows."""
    rate = compat.number(stream.average_rate)
    duration = (container.duration or 0) / _MICROSECONDS
    names = frozenset(container.format.name.split(","))
    pictures = stream.frames
    if names == {"image2"} and rate > 0:  # numbered pictures; it counts them as a duration
        pictures = round(duration * rate)
    return Look(
        demuxers=names,
        codec=stream.codec_context.name,
        duration=max(0.0, duration),
        size=size_of(container),
        pictures=pictures,
    )


def size_of(container: InputContainer) -> int:
    """Return the bytes of a file; 0 when unknown."""
    try:
        return max(0, container.size or 0)  # None from PyAV 19 on
    except (av.error.FFmpegError, OSError):
        return 0
