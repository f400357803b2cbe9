"""Colours to measure with: a chart, clips of it in each format, and how far two colours differ."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from relayd.media.frames import I420, planes
from tests.support.clips import RGB

Floats = NDArray[np.float64]

PATCHES: Final = (
    (255, 255, 255), (200, 200, 200), (160, 160, 160), (122, 122, 121), (85, 85, 85), (20, 20, 20),
    (224, 172, 138), (141, 85, 54), (198, 134, 66), (241, 194, 125), (115, 82, 68), (194, 150, 130),
    (98, 122, 157), (87, 108, 67), (133, 128, 177), (103, 189, 170), (214, 126, 44), (80, 91, 166),
    (193, 90, 99), (94, 60, 108), (157, 188, 64), (175, 54, 60), (231, 199, 31), (8, 133, 161),
)  # fmt: skip
"""Greys, skins and the colours of a common test chart."""
_COLUMNS, _ROWS = 6, 4


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a clip holds its colours, and what it says about them."""

    name: str
    size: tuple[int, int] = (1280, 720)
    matrix: str = "bt709"
    """As the filter zscale calls it."""
    tagged: bool = True
    full_range: bool = False
    pixel_format: str = "yuv420p"
    gamut: str = "bt709"
    curve: str = "bt709"
    """bt709, smpte2084 (PQ) or arib-std-b67 (HLG)."""

    @property
    def is_hdr(self) -> bool:
        return self.curve != "bt709"


def chart(width: int, height: int) -> RGB:
    """Return a picture of the patches."""
    picture = np.empty((height, width, 3), np.uint8)
    for number, colour in enumerate(PATCHES):
        row, column = divmod(number, _COLUMNS)
        top, bottom = (height * one // _ROWS for one in (row, row + 1))
        left, right = (width * one // _COLUMNS for one in (column, column + 1))
        picture[top:bottom, left:right] = colour
    return picture


def encode(picture: RGB, encoding: Encoding, path: Path, frames: int = 1) -> Path:
    """Write a lossless clip with the ffmpeg command."""
    height, width = picture.shape[:2]
    colour_range = "full" if encoding.full_range else "limited"
    to_light = "zscale=t=linear:npl=203,format=gbrpf32le," if encoding.is_hdr else ""
    convert = (
        "format=gbrp,setparams=color_primaries=bt709:color_trc=bt709:colorspace=gbr,"
        f"{to_light}zscale=m={encoding.matrix}:r={colour_range}:p={_zscale_gamut(encoding)}"
        f":t={encoding.curve}:npl=203,format={encoding.pixel_format}"
    )
    tags = (
        "range=unknown:color_primaries=unknown:color_trc=unknown:colorspace=unknown"
        if not encoding.tagged
        else f"range={colour_range}"
    )
    _ffmpeg(
        ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "30", "-i", "-",
         "-vf", f"{convert},setparams={tags}", "-c:v", "ffv1", *_tags(encoding), str(path)],
        picture.tobytes() * frames,
    )  # fmt: skip
    return path


def _zscale_gamut(encoding: Encoding) -> str:
    return {"bt709": "bt709", "bt2020": "2020"}[encoding.gamut]


def _tags(encoding: Encoding) -> list[str]:
    if not encoding.tagged:
        return []
    matrix = {"170m": "smpte170m", "2020_ncl": "bt2020nc"}.get(encoding.matrix, encoding.matrix)
    colour_range = "pc" if encoding.full_range else "tv"
    return ["-colorspace", matrix, "-color_primaries", encoding.gamut,
            "-color_trc", encoding.curve, "-color_range", colour_range]  # fmt: skip


def as_ffmpeg_shows(path: Path, encoding: Encoding) -> RGB:
    """Return a clip's first picture as the ffmpeg command converts it when told what it is.

    HDR is shown with the white of ITU-R BT.2408, and what is brighter is cut off.
    """
    colour_range = "full" if encoding.full_range else "limited"
    given = (
        f"min={encoding.matrix}:rin={colour_range}:pin={_zscale_gamut(encoding)}"
        f":tin={encoding.curve}"
    )
    if encoding.is_hdr:
        convert = (
            f"zscale={given}:t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,"
            "tonemap=clip:desat=0,zscale=t=bt709:r=full,format=gbrp"
        )
    else:
        convert = f"zscale={given}:m=gbr:r=full:p=bt709:t=bt709,format=gbrp"
    shown = _ffmpeg(
        ["-i", str(path), "-frames:v", "1", "-vf", convert, "-f", "rawvideo", "-pix_fmt", "rgb24",
         "-"]
    )  # fmt: skip
    width, height = encoding.size
    return np.frombuffer(shown, np.uint8).reshape(height, width, 3)


def _ffmpeg(arguments: list[str], given: bytes = b"") -> bytes:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    command = ["ffmpeg", "-nostdin" if not given else "-y", "-v", "error", "-y", *arguments]
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True).stdout


def shown_by_viewers(i420: I420) -> RGB:
    """Return an I420 picture as RGB, read as BT.601 of limited range."""
    luma, blue, red = planes(i420)
    y = (luma.astype(float) - 16) / 219
    cb, cr = ((one.repeat(2, 0).repeat(2, 1).astype(float) - 128) / 224 for one in (blue, red))
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)


def patches(rgb: RGB) -> Floats:
    """Return the mean colour of each patch's middle, shape (patches, 3)."""
    height, width = rgb.shape[:2]
    means = []
    for number in range(len(PATCHES)):
        row, column = divmod(number, _COLUMNS)
        top, bottom = (round(height * (row + share) / _ROWS) for share in (0.3, 0.7))
        left, right = (round(width * (column + share) / _COLUMNS) for share in (0.3, 0.7))
        means.append(rgb[top:bottom, left:right].reshape(-1, 3).mean(axis=0))
    return np.array(means)


def difference(one: Floats, other: Floats) -> Floats:
    """Return the difference of sRGB colours of 0 to 255: Delta E by CIE 1976, D65."""
    return np.asarray(np.linalg.norm(_lab(one) - _lab(other), axis=-1), np.float64)


def _lab(rgb: Floats) -> Floats:
    signal = rgb / 255
    linear = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
