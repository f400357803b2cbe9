"""Applies the target's light to the source face: skin tone and shadows, from the texture."""

from functools import cache
from typing import final

import cv2
import numpy as np
from numpy.typing import NDArray

from relayd.emulator.swap import canonical
from relayd.emulator.swap.nets import Floats, Image

GRID = 64
"""Texels of a side on which light is estimated: it changes slowly over a face."""

_SPREAD = 5.0
"""Texels (sigma) of the low-pass that separates light from detail."""
_MEMORY = 0.15
"""Share of the newest frame in the estimate: light changes over about 7 frames."""
_LUMA_GAIN = (0.35, 2.2)
"""Limits of the brightness ratio, so that shadows stay visible and noise is not amplified."""
_SATURATION = (0.35, 1.25)
"""Limits of the saturation ratio between the two skins."""
_FOLLOW = 0.92
"""How far the source's skin takes on the target's light and tone."""
_BLACK = 16.0
"""Y of black."""
_EXPECT_SPREAD = 10.0
"""Texels (sigma) by which the cheeks' light is carried up to the forehead."""
_CHEEKS = (0.42, 0.60)
"""Heights in the texture between fringe and beard."""
_FOREHEAD_TO = 0.29
"""Height in the texture above which hair is looked for all across."""
_TEMPLES_TO = 0.62
"""Height in the texture above which hair is looked for near the outline."""
_TEMPLE_WIDTH = 0.13
"""Texture units from the outline that count as near."""
_HAIR_LUMA = 0.35
"""Natural log of the brightness ratio to the cheeks that makes hair of skin."""
_HAIR_CHROMA = 11.0
"""Shift of U or V from the cheeks that makes hair of skin."""
_HAIR_BAND = (0.75, 1.25)
"""Distances, in the two units above, between which skin passes into hair."""
_SEEN = (0.15, 0.45)
"""A triangle facing the camera less than the first is not used for the light."""


def shade(texels: Floats, plain: Floats) -> Floats:
    """The skin's low-pass (64, 64, 3), from Y, U, V texels (64, 64, 3) and what of them is skin."""
    weights = _skin() * plain
    return _divided(_spread(texels * weights[..., None]), _spread(weights))


def plainness(texels: Floats) -> Floats:
    """Tell plain skin (1) from hair, beard or make-up (0), (64, 64), from Y, U, V texels.

    Skin is assumed to look like the cheeks everywhere.
    """
    cheeks = _cheeks()
    expected = _divided(
        _spread(texels * cheeks[..., None], _EXPECT_SPREAD), _spread(cheeks, _EXPECT_SPREAD)
    )
    luma = np.maximum(texels[..., 0] - _BLACK, 1) / np.maximum(expected[..., 0] - _BLACK, 1)
    brightness = np.log(luma) / np.float32(_HAIR_LUMA)
    chroma = (texels[..., 1:] - expected[..., 1:]) / np.float32(_HAIR_CHROMA)
    distance = np.sqrt(brightness**2 + chroma[..., 0] ** 2 + chroma[..., 1] ** 2)
    low, high = _HAIR_BAND
    plain: Floats = np.clip((high - distance) / (high - low), 0, 1)
    return plain


def bareness(plain: Floats) -> Floats:
    """Where forehead and temples are free of hair (1), (64, 64), from what is plain skin."""
    hair = cv2.dilate((1 - plain) * _hairy(), np.ones((3, 3), np.uint8))
    return 1 - cv2.GaussianBlur(hair, (0, 0), 1.0)


@final
class Light:
    """The target's light, averaged over frames in texture space."""

    def __init__(self) -> None:
        self._known: Floats | None = None

    def forget(self) -> None:
        """Start again for another face or place."""
        self._known = None

    def learn(self, texels: Floats, points: Floats) -> None:
        """Add the target's Y, U, V texels (64, 64, 3) of one frame, with its mesh points."""
        plain = plainness(texels)
        weights = _skin() * _visibility(points) * plain
        newest = np.dstack([texels * weights[..., None], weights, bareness(plain)])
        if self._known is None:
            self._known = newest
        else:
            self._known += (newest - self._known) * np.float32(_MEMORY)

    def bare(self) -> Floats:
        """Where the target shows skin and not hair, (64, 64), 0..1."""
        if self._known is None:
            return np.ones((GRID, GRID), np.float32)
        return np.ascontiguousarray(self._known[..., 4])

    def apply_to(
        self, luma: Image, chroma: Image, shading: Floats
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The source's luma (n, n) and chroma (n/2, n/2, 2) textures, lit as the target is."""
        if self._known is None:
            return luma, chroma
        spread = _spread(self._known[..., :4])
        light = _divided(spread[..., :3], spread[..., 3])
        ratio = (light[..., 0] - _BLACK) / np.maximum(shading[..., 0] - _BLACK, 1)
        gain = np.clip(ratio, *_LUMA_GAIN) ** np.float32(_FOLLOW)
        saturation = float(np.clip(_tint(light) / _tint(shading), *_SATURATION))
        followed = shading[..., 1:] + (light[..., 1:] - shading[..., 1:]) * np.float32(_FOLLOW)
        offset = followed - shading[..., 1:] * np.float32(saturation)
        return _lit(luma, gain), _toned(chroma, saturation, offset)


def _lit(luma: Image, gain: Floats) -> Image:
    """Return (luma - black) * gain + black."""
    wide = cv2.resize(gain, luma.shape[::-1], interpolation=cv2.INTER_LINEAR)
    offset = np.float32(_BLACK) * (1 - wide)
    return cv2.add(cv2.multiply(luma, wide, dtype=cv2.CV_32F), offset, dtype=cv2.CV_8U)


def _toned(chroma: Image, saturation: float, offset: Floats) -> Image:
    """Return chroma * saturation + offset."""
    wide = cv2.resize(offset, chroma.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.scaleAdd(chroma.astype(np.float32), saturation, wide).clip(0, 255).astype(np.uint8)


def _tint(shading: Floats) -> float:
    """How far the skin's mean chroma is from grey, in code values."""
    skin = _skin().ravel()
    mean = skin @ shading[..., 1:].reshape(-1, 2) / skin.sum()
    return max(1.0, float(np.hypot(*(mean - 128))))


def _spread(values: Floats, sigma: float = _SPREAD) -> Floats:
    return cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)


def _divided(total: Floats, weight: Floats) -> Floats:
    quotient: Floats = total / (weight[..., None] + np.float32(1e-6))
    return quotient


def _visibility(points: Floats) -> Floats:
    labels, _ = canonical.texture_grid(GRID)
    low, high = _SEEN
    visibility: Floats = np.clip((canonical.facing(points) - low) / (high - low), 0, 1)
    return visibility[labels]


@cache
def _skin() -> Floats:
    """1 where the texture shows plain skin: no eyes, brows, lips; (64, 64)."""
    labels, _ = canonical.texture_grid(GRID)
    face = (labels >= 0).astype(np.float32)
    inner = cv2.erode(face, np.ones((5, 5), np.uint8), borderValue=0)
    skin: Floats = inner * (1 - _features())
    return skin


@cache
def _cheeks() -> Floats:
    """1 on cheeks and nose, (64, 64): neither fringe nor beard reaches there."""
    rows = np.linspace(0, 1, GRID, dtype=np.float32)[:, None]
    low, high = _CHEEKS
    cheeks: Floats = _skin() * ((rows > low) & (rows < high))
    return cheeks


@cache
def _hairy() -> Floats:
    """1 where hair may hang into the face: forehead and temples but not the brows, (64, 64)."""
    labels, _ = canonical.texture_grid(GRID)
    depth = cv2.distanceTransform((labels >= 0).astype(np.uint8), cv2.DIST_L2, 5) / GRID
    rows = np.linspace(0, 1, GRID, dtype=np.float32)[:, None]
    zone = (rows < _FOREHEAD_TO) | ((rows < _TEMPLES_TO) & (depth < _TEMPLE_WIDTH))
    hairy: Floats = zone * (1 - cv2.dilate(_features(), np.ones((3, 3), np.uint8)))
    return hairy.astype(np.float32)


@cache
def _features() -> Floats:
    """1 where eyes, brows and lips are, (64, 64)."""
    features = np.zeros((GRID, GRID), np.uint8)
    for line in (
        canonical.RIGHT_EYE,
        canonical.LEFT_EYE,
        canonical.RIGHT_BROW,
        canonical.LEFT_BROW,
        canonical.OUTER_LIPS,
    ):
        shape = np.round(canonical.UV[list(line)] * GRID - 0.5).astype(np.int32)
        cv2.fillPoly(features, [shape], 1)
    return cv2.dilate(features, np.ones((3, 3), np.uint8)).astype(np.float32)
