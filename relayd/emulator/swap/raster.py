"""Drawing a shaded triangle mesh: for the procedural people that tests and demo swap faces on."""

import cv2
import numpy as np
from numpy.typing import NDArray

from relayd.emulator.swap.nets import Floats, Image
from relayd.emulator.swap.planes import looked_up

_SUBPIXEL_BITS = 4
"""Fractional bits of the corners handed to OpenCV."""


def rasterise(
    places: Floats,
    depth: Floats,
    triangles: NDArray[np.int32],
    attributes: Floats,
    size: tuple[int, int],
) -> tuple[Floats, Image, tuple[slice, slice]] | None:
    """Draw the triangles that face the camera, far to near, with interpolated attributes.

    `places` (n, 2) px, `depth` (n,) growing towards the camera, `attributes` (n, k),
    `size` width and height. Returns attributes (rows, columns, k), the mask (rows, columns),
    0 or 255, and the part of the picture they cover; None where nothing is in the picture.
    """
    low = np.maximum(np.floor(places.min(0)), 0).astype(int)
    high = np.minimum(np.ceil(places.max(0)) + 1, size).astype(int)
    columns, rows = (high - low).tolist()
    if columns <= 0 or rows <= 0:
        return None
    corners = (places - low.astype(np.float32))[triangles]
    labels = np.full((rows, columns), -1, np.int16)
    fixed = np.round(corners * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    order = np.argsort(depth[triangles].sum(1))
    for index in order[_area(corners)[order] < 0].tolist():
        cv2.fillConvexPoly(labels, fixed[index], index, shift=_SUBPIXEL_BITS)
    drawn = _interpolated(labels, corners, attributes[triangles])
    mask = (labels >= 0).astype(np.uint8) * np.uint8(255)
    return drawn, mask, np.s_[low[1] : high[1], low[0] : high[0]]


def sampled(texture: Floats, places: Floats) -> Floats:
    """A float texture's texels at places 0..1 (rows, columns, 2)."""
    side = np.array([texture.shape[1], texture.shape[0]], np.float32)
    where = np.ascontiguousarray(places * side - np.float32(0.5))
    return looked_up(texture, where, cv2.BORDER_REFLECT)


def resized(picture: Image, size: tuple[int, int]) -> Image:
    """A picture shrunk to `size` (width, height), by area."""
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def to_i420(bgr: Image) -> Image:
    """A BGR picture (even sizes) as I420."""
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)


def softened(values: Floats, sigma: float) -> Floats:
    """A Gaussian blur, sigma in px."""
    return cv2.GaussianBlur(values, (0, 0), sigma)


def _interpolated(labels: NDArray[np.int16], corners: Floats, values: Floats) -> Floats:
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = _area(corners)
    area = np.where(np.abs(area) < 1e-6, np.float32(1e-6), area)[:, None]  # noqa: PLR2004 - flat
    along, across = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    by_x = (along * (c - a)[:, 1:] - across * (b - a)[:, 1:]) / area
    by_y = (across * (b - a)[:, :1] - along * (c - a)[:, :1]) / area
    constant = values[:, 0] - by_x * a[:, :1] - by_y * a[:, 1:]
    x = np.arange(labels.shape[1], dtype=np.float32)[None, :, None]
    y = np.arange(labels.shape[0], dtype=np.float32)[:, None, None]
    drawn: Floats = by_x[labels] * x
    drawn += by_y[labels] * y
    drawn += constant[labels]
    return np.clip(drawn, values.min((0, 1)), values.max((0, 1)), out=drawn)


def _area(corners: Floats) -> Floats:
    """Twice each triangle's area (n,), below 0 where it faces the camera."""
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area: Floats = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    return area
