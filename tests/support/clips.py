"""Video files made on the spot."""

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TypedDict, Unpack

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
MATRICES = {"ITU601": 6, "ITU709": 1, "SMPTE240M": 7, "BT2020": 9}  # as in ITU-T H.273
FILTER_NAMES = {"ITU601": "bt601", "ITU709": "bt709", "SMPTE240M": "smpte240m", "BT2020": "bt2020"}
COLOURS = {  # Y, U, V in BT.601, limited range
    "red": (82, 90, 240),
    "green": (145, 54, 34),
    "blue": (41, 240, 110),
    "white": (235, 128, 128),
    "black": (16, 128, 128),
}


def quadrants(width: int, height: int) -> RGB:
    """Red above left, green above right, blue below left, white below right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


def converted(rgb: RGB, pixel_format: str, matrix: str, *, full_range: bool) -> av.VideoFrame:
    """Return a picture in another format. By a filter: PyAV 17 has no other way to BT.2020."""
    height, width = rgb.shape[:2]
    graph = av.filter.Graph()
    size = f"video_size={width}x{height}:pix_fmt=rgb24:time_base=1/1000"
    colours = f"out_color_matrix={FILTER_NAMES[matrix]}:out_range={'pc' if full_range else 'tv'}"
    nodes = [
        graph.add("buffer", size),
        graph.add("scale", colours),
        graph.add("format", pixel_format),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    nodes[0].push(av.VideoFrame.from_ndarray(rgb, format="rgb24"))
    picture = nodes[-1].pull()
    assert isinstance(picture, av.VideoFrame)
    return picture


class Look(TypedDict, total=False):
    """How Clips.video writes pictures, where not as usual."""

    pixel_format: str
    codec: str
    sample_aspect: Fraction
    matrix: str
    full_range: bool


class Clips:
    """Makes video files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def video(
        self,
        name: str,
        pictures: Iterable[RGB],
        *,
        rate: int = 30,
        times: list[float] | None = None,
        pixel_format: str = "yuv420p",
        codec: str = "libx264",
        sample_aspect: Fraction = Fraction(1),
        matrix: str = "ITU601",
        full_range: bool = False,
    ) -> Path:
        """Write pictures of one size; `times` in seconds make the rate vary."""
        path = self.folder / name
        if path.exists():
            return path
        options = {"qp": "12", "preset": "ultrafast", "g": "15"} if codec == "libx264" else {}
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.pix_fmt = pixel_format
            for number, rgb in enumerate(pictures):
                frame = converted(rgb, pixel_format, matrix, full_range=full_range)
                if number == 0:
                    context = stream.codec_context
                    context.height, context.width = rgb.shape[:2]
                    context.sample_aspect_ratio = sample_aspect
                    context.color_range = 2 if full_range else 1
                    context.colorspace = MATRICES[matrix]
                    context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
                frame.pts = round(times[number] * 1000) if times else number
                frame.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def quadrants(
        self, name: str, width: int, height: int, count: int = 15, **look: Unpack[Look]
    ) -> Path:
        return self.video(name, [quadrants(width, height)] * count, **look)

    def grey_ramp(self, name: str, count: int, rate: int, times: list[float] | None = None) -> Path:
        """Pictures that tell their number by their grey: 40 + 2 for each."""
        pictures = (np.full((120, 160, 3), 40 + 2 * number, np.uint8) for number in range(count))
        return self.video(name, pictures, rate=rate, times=times)

    def rotated(self, clip: Path, a: int, b: int, c: int, d: int) -> Path:
        """Copy an MP4 with another matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""
        content = bytearray(clip.read_bytes())
        matrix_at = content.index(b"tkhd") + 4 + 40
        one = 1 << 16
        struct.pack_into(
            ">9i", content, matrix_at, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
        )
        path = clip.with_name(f"{clip.stem}_{a}{b}{c}{d}.mp4")
        path.write_bytes(content)
        return path

    def sound(self, name: str) -> Path:
        """A file with sound alone."""
        path = self.folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 4096), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 48000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    @staticmethod
    def colour_at(i420: NDArray[np.uint8], x: float, y: float) -> str:
        """Name the colour at a place given in shares of width and height."""
        rows, width = i420.shape
        height = rows * 2 // 3
        column, row = int(x * width), int(y * height)
        chroma = i420[height:].reshape(2, height // 2, width // 2)
        found = (
            int(i420[row, column]),
            int(chroma[0, row // 2, column // 2]),
            int(chroma[1, row // 2, column // 2]),
        )
        for name, colour in COLOURS.items():
            if all(abs(a - b) <= 6 for a, b in zip(found, colour, strict=True)):
                return name
        return str(found)

    @staticmethod
    def corners(i420: NDArray[np.uint8]) -> list[str]:
        """Name the colours of the four quadrants: above left and right, below left and right."""
        return [Clips.colour_at(i420, x, y) for y in (0.2, 0.8) for x in (0.2, 0.8)]
