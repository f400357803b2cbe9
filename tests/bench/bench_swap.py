"""CPU milliseconds of a face swap, beside peers on the same frames in the same run.

    taskset -c 0 python tests/bench/bench_swap.py [CLIP]

The peers tell how fast the machine is just now: read the ratios, not the milliseconds.
"""

import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from relayd.emulator.swap import FaceSwapper, SourceFace, decode_image
from relayd.media.frames import I420
from tests.people.make_media import MEDIA

SIZES = ((640, 480), (1280, 720))
WARM_UP = 10  # frames: the swap fades in, buffers grow


def main() -> None:
    """Print one table for each size."""
    clip = Path(sys.argv[1]) if len(sys.argv) > 1 else MEDIA / "person.mp4"
    face = SourceFace.prepare(decode_image((MEDIA / "portrait.png").read_bytes()))
    for size in SIZES:
        frames = decoded(clip, size)
        swapper = FaceSwapper(face)
        encode = encoder(size)
        empty = [np.full_like(frames[0], 128)] * len(frames)
        rows = {
            "swap": measured(swapper.swap, frames),
            "no face": measured(FaceSwapper(face).swap, empty),
            "to BGR, half size, and back": measured(convert, frames),
            "x264 ultrafast": measured(encode, frames),
        }
        report(f"{clip.name} {size[0]}x{size[1]}, {len(frames)} frames", rows)


def decoded(clip: Path, size: tuple[int, int]) -> list[I420]:
    """Every frame of the clip, scaled without regard to its aspect."""
    with av.open(str(clip)) as container:
        return [
            np.ascontiguousarray(
                frame.reformat(*size, format="yuv420p").to_ndarray(format="yuv420p")
            )
            for frame in container.decode(video=0)
        ]


def encoder(size: tuple[int, int]) -> Callable[[I420], object]:
    """One frame through x264 on one thread."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height = size
    codec.pix_fmt = "yuv420p"
    codec.framerate = Fraction(25)
    codec.thread_count = 1
    codec.options = {"preset": "ultrafast", "tune": "zerolatency"}

    def encode(picture: I420) -> object:
        return codec.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p"))

    return encode


def convert(picture: I420) -> object:
    """What any BGR pipeline pays before it begins."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_YUV2BGR_I420)
    half = cv2.resize(bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return half, cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)


def measured(work: Callable[[I420], object], frames: list[I420]) -> np.ndarray:
    """CPU milliseconds each frame took, after the warm-up; other processes do not count."""
    spent = []
    for frame in frames:
        start = time.thread_time()
        work(frame)
        spent.append((time.thread_time() - start) * 1000)
    return np.array(spent[WARM_UP:])


def report(title: str, rows: dict[str, np.ndarray]) -> None:
    """Mean, p99 and what the swap costs in units of each peer."""
    swap = rows["swap"].mean()
    lines = ["", title, f"{'':<28}{'mean ms':>9}{'p99 ms':>9}{'swap/this':>11}"]
    lines += [
        f"{name:<28}{spent.mean():>9.2f}{np.percentile(spent, 99):>9.2f}"
        f"{swap / spent.mean():>11.2f}"
        for name, spent in rows.items()
    ]
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
