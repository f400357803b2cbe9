"""Writes a clip, picture by picture, with the sound beside each."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from relayd.media.frames import Geometry
from relayd.sound.blocks import RATE


def write_clip_file(
    path: Path,
    geometry: Geometry,
    fps: int,
    pictures: Iterable[tuple[av.VideoFrame, NDArray[np.int16]]],
    *,
    tune: str,
) -> None:
    """Write pictures, and with each the mono samples at RATE that last as long as it does."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=fps)
        video.width, video.height = geometry.width, geometry.height
        video.pix_fmt, video.gop_size = "yuv420p", fps
        video.options = {"preset": "ultrafast", "tune": tune, "crf": "20"}
        sound = file.add_stream("aac", rate=RATE, layout="mono", bit_rate=96_000)
        for number, (picture, samples) in enumerate(pictures):
            picture.pts, picture.time_base = number, Fraction(1, fps)
            file.mux(video.encode(picture))
            beside = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
            beside.sample_rate, beside.pts = RATE, number * len(samples)
            file.mux(sound.encode(beside))
        file.mux(video.encode(None))
        file.mux(sound.encode(None))
