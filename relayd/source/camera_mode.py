"""Which mode of a camera is taken: a size near twice the relay's, at no fewer pictures a second.

Twice the size, since a picture that is scaled down is sharper than one of the relay's own size.
Pure functions: modes and request in, options for FFmpeg's v4l2 demuxer out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from relayd.media.frames import Geometry
from relayd.v4l2.modes import Mode

INPUT_FORMATS: Final = {
    "YUYV": "yuyv422", "UYVY": "uyvy422", "NV12": "nv12", "YU12": "yuv420p", "422P": "yuv422p",
    "RGB3": "rgb24", "BGR3": "bgr24", "MJPG": "mjpeg", "JPEG": "mjpeg", "GREY": "gray",
}  # fmt: skip
"""FourCCs of the formats that are chosen from, and FFmpeg's names for them.

No H.264: FFmpeg plays it if the user asks for it, but it can start at a key frame only.
"""
_COMPRESSED: Final = {"MJPG", "JPEG"}
_COLOURLESS: Final = {"GREY"}
"""What the infrared half of a face-login camera delivers."""
_WANTED_DETAIL: Final = 2.0
"""Camera pixels for each pixel of the relay's picture, along either side."""
_LEAST_DETAIL: Final = 0.5
"""Below it a picture is so blurred that one with too few pictures a second looks better."""
_MOST_PIXELS: Final = 1920 * 1080 * 30
"""Pixels a second beyond which a mode larger than the relay's picture costs more than it shows:
an emulated or small processor core decodes little more as MJPEG."""
_RATE_TOLERANCE: Final = Fraction(99, 100)
"""29.97 pictures a second are as good as 30."""
_FORMAT_OPTIONS: Final = ("input_format", "pixel_format")
_OTHER_INPUT_OPTIONS: Final = ("channel", "standard")
"""Options that choose another input of a capture card: its modes are unknown before."""


@dataclass(frozen=True, slots=True)
class ModeRequest:
    """What the mode is chosen for."""

    geometry: Geometry
    fps: float
    options: Mapping[str, str]
    """The user's own for FFmpeg: they take precedence, and the rest is chosen to match."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    mode: Mode
    rate: Fraction
    """Frames per second; 0 when the device does not tell."""

    @property
    def is_compressed(self) -> bool:
        return self.mode.fourcc in _COMPRESSED

    @property
    def options(self) -> dict[str, str]:
        options = {
            "input_format": INPUT_FORMATS[self.mode.fourcc],
            "video_size": f"{self.mode.width}x{self.mode.height}",
        }
        if self.rate:
            options["framerate"] = f"{self.rate.numerator}/{self.rate.denominator}"
        return options


def mode_options(modes: Sequence[Mode], request: ModeRequest) -> list[dict[str, str]]:
    """Return FFmpeg's options for the best mode, then for others to try if it is refused.

    Raw pictures are preferred to MJPEG of the same size if both are fast enough. The second
    try is the best mode of the other of these two kinds, the last one is the device's own choice.
    """
    options = dict(request.options)
    last = [options]
    if any(name in options for name in _OTHER_INPUT_OPTIONS):
        return last
    fps = _parsed_rate(options.get("framerate", "")) or Fraction(request.fps)
    ranked = sorted(
        (
            _Candidate(mode, _rate_for(mode, fps))
            for mode in modes
            if mode.fourcc in INPUT_FORMATS and _matches(mode, options)
        ),
        key=lambda candidate: _rank(candidate, request.geometry, fps),
    )
    if not ranked:
        return last
    best = ranked[0]
    other = [one for one in ranked if one.is_compressed != best.is_compressed]
    return [one.options | options for one in (best, *other[:1])] + last


def _rank(candidate: _Candidate, geometry: Geometry, fps: Fraction) -> tuple[float, ...]:
    """Return what orders candidates: the smallest is the best."""
    mode, rate = candidate.mode, candidate.rate
    detail = min(mode.width / geometry.width, mode.height / geometry.height)
    area = mode.width * mode.height
    missing = fps - rate if 0 < rate < fps * _RATE_TOLERANCE else 0
    is_heavy = detail > 1 and area * (rate or fps) > _MOST_PIXELS
    wanted_area = geometry.width * geometry.height * _WANTED_DETAIL**2
    return (
        mode.fourcc in _COLOURLESS,
        detail < _LEAST_DETAIL,
        float(missing),
        is_heavy,
        round(abs(math.log2(area / wanted_area)), 3),
        candidate.is_compressed,
        -area,
    )


def _rate_for(mode: Mode, fps: Fraction) -> Fraction:
    """Return the lowest rate that is not below `fps`, else the highest; 0 when none is told.

    More pictures than the relay sends would be decoded in vain.
    """
    enough = [rate for rate in mode.rates if rate >= fps * _RATE_TOLERANCE]
    return min(enough) if enough else max(mode.rates, default=Fraction(0))


def _matches(mode: Mode, options: Mapping[str, str]) -> bool:
    """Whether a mode is one that the user's options allow."""
    named = {options[name] for name in _FORMAT_OPTIONS if name in options}
    if named - {INPUT_FORMATS[mode.fourcc]}:
        return False
    return options.get("video_size") in (None, f"{mode.width}x{mode.height}")


def _parsed_rate(text: str) -> Fraction | None:
    """Return a frame rate as FFmpeg reads it, such as "25" or "30000/1001"; None if it is none."""
    if not re.fullmatch(r"\d+(\.\d+)?|\d+/[1-9]\d*", text):
        return None
    return Fraction(text) or None
