"""Short clips whose pictures show their own number, in every container that people have.

The number is shown as bars, black or white from the lowest bit on the left, so that it survives
any codec, scaling and cropping to the same aspect.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from relayd.media.frames import I420, luma

BITS = 6
BAR, HEIGHT = 16, 72
WIDTH = BITS * BAR
RATE = 25
"""Pictures per second where a clip does not say otherwise: no one's default but FFmpeg's own."""

H264 = {"preset": "ultrafast", "qp": "20", "bf": "0"}
B_FRAMES = {"preset": "veryfast", "qp": "20", "bf": "2", "b-adapt": "0"}
H265 = {"preset": "ultrafast", "x265-params": "log-level=none:qp=24:pools=1:frame-threads=1"}
QUICK_VP8 = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "2M"}


def numbered(number: int) -> NDArray[np.uint8]:
    """Return the RGB picture that shows `number`."""
    bars = [255 * (number >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.array(bars, np.uint8), BAR)
    return np.broadcast_to(row[:, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(i420: I420) -> int:
    """Read the number out of a picture of any size."""
    rows = luma(i420)
    height, width = rows.shape
    columns = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum((int(rows[height // 2, column]) > 128) << bit for bit, column in enumerate(columns))


def make_clip(
    path: Path,
    count: int,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = RATE,
    gop: int = 10,
    options: dict[str, str] | None = None,
    muxer: str | None = None,
    muxer_options: dict[str, str] | None = None,
    times: Iterable[float] | None = None,
    first: int = 0,
) -> Path:
    """Write `count` pictures, numbered from `first` on; `times` in seconds make the rate vary.

    A file that exists is taken as it is.
    """
    if path.exists():
        return path
    stamps = list(times) if times is not None else None
    base = Fraction(1, 1000) if stamps else Fraction(1, rate)
    encoder = (
        dict(options if options is not None else H264)
        if codec == "libx264"
        else dict(options or {})
    )
    how: dict[str, Any] = {"format": muxer} if muxer else {}
    with av.open(str(path), "w", options=muxer_options or {}, **how) as container:
        stream = container.add_stream(codec, rate=rate, options=encoder)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = base
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(first + number), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts = round(stamps[number] * 1000) if stamps else number
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
