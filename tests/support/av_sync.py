"""A clip with a lamp and a beep that begin together, and how far apart a program finds them.

The person is in it, as the emulator swaps nothing else. From one beep to the next it takes so long
that sound which is early or late by the whole delay of the picture is seen as that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np

from relayd.media.frames import Geometry
from relayd.sound.blocks import RATE
from tests.support.clip_file import write_clip_file

GEOMETRY: Final = Geometry(160, 120)
"""What an emulated processor decodes in time."""
FPS: Final = 10
EVERY: Final = 3.0
"""s from one beep to the next: offsets up to half of it can be told."""
LASTS: Final = 0.5
"""s that lamp and beep last: the emulated relay may show few pictures a second."""
LAMP: Final = (8, 8, 48)
"""Left, top and side of the lamp, in pixels."""
HERTZ, PEAK = 1000, 0.5
"""Of the beep; the peak is of full scale."""


def write_clip(path: Path, person: Path, seconds: float = 60.0) -> None:
    """Write the person with a lamp and beeps; a multiple of EVERY, so that it can be repeated."""
    pictures = _cropped(person)

    def shown(number: int) -> tuple[av.VideoFrame, np.ndarray]:
        picture = pictures[number % len(pictures)].copy()
        is_on = number % round(EVERY * FPS) < LASTS * FPS
        left, top, side = LAMP
        picture[top : top + side, left : left + side] = 255 if is_on else 20
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        return frame, _beep() if is_on else np.zeros(RATE // FPS, np.int16)

    write_clip_file(path, GEOMETRY, FPS, map(shown, range(round(seconds * FPS))), tune="fastdecode")


def _cropped(person: Path) -> list[np.ndarray]:
    """Return each second picture of the person, as a relay of GEOMETRY would crop it."""
    with av.open(str(person)) as container:
        frames = [frame for index, frame in enumerate(container.decode(video=0)) if index % 2]
    width = round(frames[0].width * GEOMETRY.height / frames[0].height / 2) * 2
    left = (width - GEOMETRY.width) // 2
    whole = [frame.reformat(width, GEOMETRY.height, "rgb24").to_ndarray() for frame in frames]
    return [picture[:, left : left + GEOMETRY.width] for picture in whole]


def _beep() -> np.ndarray:
    """Return the beep beside one picture: it goes on without a step beside the next."""
    t = np.arange(RATE // FPS) / RATE
    return (np.cos(2 * np.pi * HERTZ * t) * PEAK * 32767).astype(np.int16)


@dataclass(frozen=True, slots=True)
class Offsets:
    """By how many seconds the beep is later than the lamp."""

    all: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median."""
        return float(np.median(self.all))

    @property
    def p95(self) -> float:
        """What 95 of 100 are below, by size."""
        return float(np.percentile(np.abs(self.all), 95))

    def __str__(self) -> str:
        """For a report."""
        p5, p50, p95 = np.percentile(self.all, (5, 50, 95)) * 1e3
        return f"p5 {p5:+.0f} p50 {p50:+.0f} p95 {p95:+.0f} ms, {len(self.all)} beeps"


def offsets(lights: Sequence[float], beeps: Sequence[float]) -> Offsets:
    """Compare each lamp with the beep that is nearest to it."""
    nearest = [min(beeps, key=lambda at: abs(at - light)) - light for light in lights if beeps]
    return Offsets(tuple(each for each in nearest if abs(each) < EVERY / 2))
