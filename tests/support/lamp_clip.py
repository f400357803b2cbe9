"""A clip with a person, a lamp that lights each 1.04 s, and a beep that begins with each light."""

from pathlib import Path

import av
import numpy as np

from relayd.commands.demo import MEDIA
from relayd.commands.lip_sync import CLIP, LAMP, LAMP_RADIUS
from relayd.media.frames import Geometry
from relayd.sound.blocks import RATE
from tests.support.clip_file import write_clip_file

FPS = 25
EVERY, LIT = 26, 3
"""Pictures from light to light, and that it lasts. 26 leaves each remainder of five in turn: an
output at 20 fps leaves out each fifth picture."""
SIZE = Geometry(640, 360)
BEEP_SECONDS, BEEP_HZ, BEEP_PEAK = 0.05, 1000, 0.5


def make_clip(path: Path, seconds: float) -> None:
    """Write the person's clip over and over, with another lamp and beeps instead of speech."""
    with av.open(str(MEDIA / "person.mp4")) as container:
        pictures = [
            frame.reformat(SIZE.width, SIZE.height, format="yuv420p").to_ndarray()
            for frame in container.decode(video=0)
        ]

    def shown(number: int) -> tuple[av.VideoFrame, np.ndarray]:
        picture = pictures[number % len(pictures)].copy()
        _paint_lamp(picture, lit=number % EVERY < LIT)
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        return frame, _sound_beside(number)

    write_clip_file(path, SIZE, FPS, map(shown, range(round(seconds * FPS))), tune="zerolatency")


def _paint_lamp(picture: np.ndarray, *, lit: bool) -> None:
    scale = SIZE.width / CLIP.width
    x, y, half = (round(each * scale) for each in (*LAMP, LAMP_RADIUS + 8))
    picture[y - half : y + half, x - half : x + half] = 230 if lit else 30


def _sound_beside(number: int) -> np.ndarray:
    samples = np.zeros(RATE // FPS, np.int16)
    if number % EVERY == 0:
        t = np.arange(round(BEEP_SECONDS * RATE))
        beep = (np.cos(2 * np.pi * BEEP_HZ * t / RATE) * BEEP_PEAK * 32767).astype(np.int16)
        samples = np.pad(beep, (0, len(samples)))[: len(samples)]
    return samples
