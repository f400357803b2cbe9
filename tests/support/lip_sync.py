"""Lip sync of a file: the demo's meter sees and hears it as its times say."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from relayd.commands.lip_sync import LipSyncMeter
from relayd.media.frames import I420, Geometry, StandbyFrame, SwappedFrame
from relayd.sound.blocks import BLOCK, RATE, AudibleSound, Samples

GEOMETRY = Geometry(640, 480)
"""Pictures are cropped to this, as a relay does."""


@dataclass(frozen=True)
class Recording:
    """The pictures and blocks of a file, each with its time in seconds."""

    pictures: list[tuple[float, I420]]
    sound: list[tuple[float, Samples]]


def decoded(path: Path) -> Recording:
    """Decode a whole file of a few minutes at most."""
    recording = Recording([], [])
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE, frame_size=BLOCK)
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0], container.streams.audio[0]):
            if isinstance(frame, av.VideoFrame):
                recording.pictures.append((_time_of(frame), _cropped(frame)))
            elif isinstance(frame, av.AudioFrame):
                recording.sound.extend(
                    (_time_of(block), block.to_ndarray()[0].astype(np.int16))
                    for block in resampler.resample(frame)
                )
    return recording


def measured(
    recording: Recording, *, sound_late: float = 0.0, ahead: float = 0.0, standby: bool = False
) -> LipSyncMeter:
    """Let a meter see and hear a recording, its sound so many seconds later than it is.

    Blocks are handed over `ahead` seconds before they are heard.
    """
    moment = [0.0]
    meter = LipSyncMeter(GEOMETRY, now=lambda: moment[0])
    pictures = [(at, picture, None) for at, picture in recording.pictures]
    blocks = [(at + sound_late - ahead, None, samples) for at, samples in recording.sound]
    for at, picture, samples in sorted([*pictures, *blocks], key=lambda event: event[0]):
        moment[0] = at
        if picture is not None:
            meter.show(StandbyFrame(picture, "") if standby else SwappedFrame(picture, at))
        elif samples is not None:
            meter.play(AudibleSound(samples, at + ahead))
    return meter


def _cropped(frame: av.VideoFrame) -> I420:
    width = round(frame.width * GEOMETRY.height / frame.height / 2) * 2
    whole = frame.reformat(width, GEOMETRY.height, "yuv420p").to_ndarray().astype(np.uint8)
    if width == GEOMETRY.width:
        return whole
    left = (width - GEOMETRY.width) // 2
    grey = np.full((GEOMETRY.height * 3 // 2, GEOMETRY.width), 128, np.uint8)
    grey[: GEOMETRY.height] = whole[: GEOMETRY.height, left : left + GEOMETRY.width]
    return grey


def _time_of(frame: av.VideoFrame | av.AudioFrame) -> float:
    assert frame.time is not None
    return float(frame.time)
