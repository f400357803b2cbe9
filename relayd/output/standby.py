"""The standby picture: a dark background with a short text on it.

Only this module imports Pillow.
"""

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from relayd.errors import ConfigError
from relayd.media.frames import I420, Geometry, StandbyFrame

_TOP, _BOTTOM = (24, 29, 38), (11, 13, 18)
"""The background's colours, RGB: a dark blue-grey, a little lighter at the top."""
_GLOW: Final = (38, 52, 74)
"""Added around the logo, fading outwards."""
_ACCENT: Final = (104, 160, 232)
_TITLE: Final = (236, 240, 246)
_DETAIL: Final = (158, 169, 186)

_MARGIN: Final = 0.10
"""Share of the width kept free at each side: call apps crop and round corners."""
_TITLE_SIZE: Final = 0.082
_DETAIL_SIZE: Final = 0.044
"""Font sizes as shares of the picture's height; readable in a call's small tile."""
_LINE: Final = 1.32
"""Line height over font size."""
_MOST_LINES: Final = 4
_MOST_CHARACTERS: Final = 400
"""Longer texts are cut: they may contain server answers and paths."""
_ELLIPSIS: Final = "…"

_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
)
"""Searched in the system's font folders; else Pillow's own, which has Latin letters only."""

_MOST_BYTES: Final = 32 * 1024 * 1024
_MOST_PIXELS: Final = 64 * 1024 * 1024
"""A phone's largest photo has 50 million; more is a mistake or a decompression bomb."""
_CACHED_PICTURES: Final = 8
"""Pictures kept, one per text: a relay has about that many states."""

_RGB_TO_YUV: Final = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32
) / np.float32(255.0)
"""ITU-R BT.601, limited range."""

Rgb = NDArray[np.uint8]


class StandbyRenderer:
    """Draws standby pictures, or returns the user's own one."""

    def __init__(self, geometry: Geometry, image_path: str = "") -> None:
        """Draw at size `geometry`, or use the picture at `image_path` whatever the text.

        Raises ConfigError when that picture cannot be used.
        """
        self._geometry = geometry
        self._own = _load(image_path, geometry) if image_path else None
        self._draw = lru_cache(maxsize=_CACHED_PICTURES)(self._draw_uncached)

    def draw(self, title: str, detail: str = "") -> StandbyFrame:
        """Return the picture for a state: a title of a few words, a sentence or two below."""
        return self._draw(title, detail)

    def _draw_uncached(self, title: str, detail: str) -> StandbyFrame:
        text = f"{title}: {detail}" if detail else title
        if self._own is not None:
            return StandbyFrame(self._own, text)
        image = Image.fromarray(_background(self._geometry))
        _draw_text(image, _printable(title), _printable(detail))
        return StandbyFrame(i420_from_rgb(np.asarray(image)), text)


def i420_from_rgb(rgb: Rgb) -> I420:
    """Convert uint8 (height, width, 3) full-range RGB to I420, BT.601 limited range."""
    height, width, _ = rgb.shape
    yuv = rgb.astype(np.float32) @ _RGB_TO_YUV.T
    luma = yuv[..., 0] + 16.0
    chroma = yuv[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3)) + 128.0
    planes = [luma.ravel(), chroma[..., 0].ravel(), chroma[..., 1].ravel()]
    flat = np.concatenate([np.rint(plane).astype(np.uint8) for plane in planes])
    return flat.reshape(height * 3 // 2, width)


@lru_cache(maxsize=1)  # half of the drawing, and the same for each text
def _background(geometry: Geometry) -> Rgb:
    """Return a soft light on a dark background, with noise below one step against banding."""
    rows = np.linspace(0, 1, geometry.height, dtype=np.float32)[:, None]
    columns = np.linspace(0, 1, geometry.width, dtype=np.float32)[None, :]
    fade = rows[..., None]
    background = np.array(_TOP, np.float32) * (1 - fade) + np.array(_BOTTOM, np.float32) * fade
    distance = ((columns - 0.5) / 0.55) ** 2 + ((rows - 0.34) / 0.6) ** 2
    light = np.exp(-2.2 * distance)[..., None] * np.array(_GLOW, np.float32)
    noise = np.random.default_rng(0).random((geometry.height, geometry.width, 1), np.float32)
    lit: Rgb = np.clip(background + light * 0.8 + noise, 0, 255).astype(np.uint8)
    return lit


def _draw_text(image: Image.Image, title: str, detail: str) -> None:
    """Draw logo, title and detail as one vertically centred block."""
    width, height = image.size
    pen = ImageDraw.Draw(image)
    room = round(width * (1 - 2 * _MARGIN))
    title_font, detail_font = _font(height * _TITLE_SIZE), _font(height * _DETAIL_SIZE)
    title_lines = _wrap(pen, title, title_font, room)
    detail_lines = _wrap(pen, detail, detail_font, room)
    logo = height * 0.16
    block = (
        logo
        + height * 0.06
        + len(title_lines) * title_font.size * _LINE
        + (height * 0.02 + len(detail_lines) * detail_font.size * _LINE if detail_lines else 0)
    )
    y = max(height * 0.05, (height - block) / 2)
    _draw_logo(image, width / 2, y + logo / 2, logo)
    y += logo + height * 0.06
    for line in title_lines:
        pen.text((width / 2, y), line, _TITLE, title_font, anchor="ma")
        y += title_font.size * _LINE
    y += height * 0.02
    for line in detail_lines:
        pen.text((width / 2, y), line, _DETAIL, detail_font, anchor="ma")
        y += detail_font.size * _LINE


def _draw_logo(image: Image.Image, x: float, y: float, size: float) -> None:
    """Draw relayd's logo: a lens with an open ring around it."""
    oversampling = 4  # drawn larger and scaled down, for smooth edges
    canvas = Image.new("L", (round(size * oversampling),) * 2, 0)
    pen = ImageDraw.Draw(canvas)
    edge = canvas.width - 1
    line = max(1, round(edge * 0.045))
    pen.arc((0, 0, edge, edge), -60, 210, 255, line)
    inset = edge * 0.22
    pen.ellipse((inset, inset, edge - inset, edge - inset), outline=150, width=line)
    inset = edge * 0.40
    pen.ellipse((inset, inset, edge - inset, edge - inset), fill=255)
    alpha = canvas.resize((round(size),) * 2, Image.Resampling.LANCZOS)
    image.paste(_ACCENT, (round(x - size / 2), round(y - size / 2)), alpha)


@lru_cache(maxsize=_CACHED_PICTURES)
def _font(size: float) -> ImageFont.FreeTypeFont:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    built_in = ImageFont.load_default(size)
    assert isinstance(built_in, ImageFont.FreeTypeFont)
    return built_in


def _wrap(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, room: int
) -> list[str]:
    """Break text at spaces, and words that are too wide anywhere; at most _MOST_LINES lines."""
    shown = _replace_missing_glyphs(text, font)
    lines: list[str] = []
    line = ""
    for word in shown.split():
        longer = f"{line} {word}" if line else word
        if pen.textlength(longer, font) <= room:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while pen.textlength(line, font) > room:
            fitting = max(
                n for n in range(1, len(line)) if n == 1 or pen.textlength(line[:n], font) <= room
            )
            lines.append(line[:fitting])
            line = line[fitting:]
    if line:
        lines.append(line)
    if len(lines) > _MOST_LINES:
        lines = lines[:_MOST_LINES]
        lines[-1] = f"{lines[-1][:-1].rstrip()}{_ELLIPSIS}"
    return lines


def _replace_missing_glyphs(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Replace each character that the font lacks with a dot, rather than show boxes."""
    missing = bytes(font.getmask("\U0010fffe"))
    return "".join(
        "·" if not char.isspace() and bytes(font.getmask(char)) == missing else char
        for char in text
    )


def _printable(text: str) -> str:
    """Return one line without control characters, at most _MOST_CHARACTERS long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 1]}{_ELLIPSIS}"


def _load(path: str, geometry: Geometry) -> I420:
    """Read the user's picture, upright, cropped to the size; ConfigError when that fails."""
    try:
        size = Path(path).expanduser().stat().st_size
        if not Path(path).expanduser().is_file():
            raise _unusable(path, "it is not a file")
        if size > _MOST_BYTES:
            raise _unusable(path, f"it has {size} bytes, more than {_MOST_BYTES}")
        with warnings.catch_warnings():
            # Pillow warns about large pictures; our own limit applies.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(Path(path).expanduser()) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    raise _unusable(path, f"it has {opened.width}x{opened.height} pixels")
                upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except UnidentifiedImageError as fault:
        raise _unusable(path, "it is not a picture that can be read") from fault
    except (
        OSError,
        RuntimeError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        MemoryError,
    ) as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise _unusable(path, reason or type(fault).__name__) from fault
    on_background = Image.alpha_composite(Image.new("RGBA", upright.size, (*_BOTTOM, 255)), upright)
    size_wanted = (geometry.width, geometry.height)
    fitted = ImageOps.fit(on_background.convert("RGB"), size_wanted, Image.Resampling.LANCZOS)
    return i420_from_rgb(np.asarray(fitted))


def _unusable(path: str, reason: str) -> ConfigError:
    return ConfigError(
        [f'privacy.standby_image = "{path}": {reason}; use a PNG or JPEG file, or "" for none']
    )
