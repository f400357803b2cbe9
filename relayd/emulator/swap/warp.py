"""Maps picture pixels of the face to texture places: a label map, and an affine map per label."""

from typing import Any, final

import cv2
import numpy as np
from numpy.typing import NDArray

from relayd.emulator.swap import canonical
from relayd.emulator.swap.nets import Floats, Image

_STEP = 2
"""Picture px per map px: the map is drawn at chroma size, luma interpolates it."""
_SUBPIXEL_BITS = 4
"""Fractional bits of the corners handed to OpenCV."""
_RIM = 0.028
"""Share of the face's height that is cut off and feathered at its outline."""
_SPILL = 2
"""Map px that drawing and closing reach beyond the mesh's outline."""
_SLIVER = 0.5
"""Twice the area in map px below which a triangle is skipped: it holds no texel."""
_LIP_REACH = 0.004
"""Share of the face's height by which the kept inside of the mouth is feathered."""
_EYE_REACH = 0.012
"""Share of the face's height by which kept eyes reach beyond the lids' edge: the lashes."""
_OPEN_MOUTH = (0.012, 0.03)
"""Lip distance per face height: closed below, and the source's; above wide open, the target's."""

Rect = tuple[int, int, int, int]
"""left, top, width, height; all even."""


@final
class Warp:
    """The maps for one frame; their buffers are kept from frame to frame."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}

    def aim(self, points: Floats, rect: Rect) -> tuple[Floats, Floats]:
        """Draw the map of a mesh (468, 3) within `rect`.

        Returns places in the texture, 0..1, (height / 2, width / 2, 2), and the mask
        of the face with a feathered rim (height / 2, width / 2), 0..1.
        """
        left, top, width, height = rect
        rows, columns = height // _STEP, width // _STEP
        local = points[:, :2] - np.array([left, top], np.float32)
        corners = ((local + 0.5) / _STEP - 0.5)[canonical.TRIANGLES]
        shown = _far_to_near(points, corners)
        labels = self._buffer("labels", (rows, columns), np.int16)
        labels.fill(-1)
        fixed = np.round(corners * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        for index in shown.tolist():
            cv2.fillConvexPoly(labels, fixed[index], index, shift=_SUBPIXEL_BITS)
        labels = _closed(labels)
        return self._places(labels, corners), self._mask(labels, float(np.ptp(local[:, 1])))

    def _places(self, labels: NDArray[np.int16], corners: Floats) -> Floats:
        rows, columns = labels.shape
        terms = self._buffer("terms", (rows, columns, 6), np.float32)
        np.take(_affines(corners), labels, axis=0, out=terms, mode="wrap")
        places = self._buffer("places", (rows, columns, 2), np.float32)
        x = np.arange(columns, dtype=np.float32)[:, None]
        y = np.arange(rows, dtype=np.float32)[:, None, None]
        np.multiply(terms[..., 0:2], x, out=places)
        terms[..., 2:4] *= y
        places += terms[..., 2:4]
        places += terms[..., 4:6]
        return places

    def _mask(self, labels: NDArray[np.int16], height: float) -> Floats:
        covered = (labels >= 0).astype(np.uint8) * np.uint8(255)
        reach = max(1, round(height * _RIM / _STEP))
        eroded = cv2.erode(covered, _disc(reach + _SPILL))
        soft = cv2.blur(eroded, (2 * reach + 1, 2 * reach + 1))
        return soft.astype(np.float32) / np.float32(255)

    def _buffer(self, name: str, shape: tuple[int, ...], kind: type[np.generic]) -> NDArray[Any]:
        """A contiguous array that grows when it must and is reused otherwise."""
        wanted = int(np.prod(shape))
        held = self._buffers.get(name)
        if held is None or held.size < wanted:
            held = self._buffers[name] = np.empty(wanted, kind)
        return held[:wanted].reshape(shape)


def keep(points: Floats, rect: Rect, *, eyes: bool) -> Floats:
    """The target's own parts, (height / 2, width / 2), 0..1: an open mouth's inside, the eyes."""
    left, top, width, height = rect
    kept = np.zeros((height // _STEP, width // _STEP), np.uint8)
    local = ((points[:, :2] - np.array([left, top], np.float32)) + 0.5) / _STEP - 0.5
    face = float(np.ptp(local[:, 1]))
    openness = float(np.hypot(*(local[13] - local[14]))) / face
    low, high = _OPEN_MOUTH
    shown = min(1.0, max(0.0, (openness - low) / (high - low)))
    if shown:
        _fill(kept, local[list(canonical.INNER_LIPS)], round(255 * shown))
        kept = _soft(kept, face * _LIP_REACH)
    if eyes:
        lids = np.zeros_like(kept)
        for line in (canonical.RIGHT_EYE, canonical.LEFT_EYE):
            _fill(lids, local[list(line)], 255)
        reach = max(1, round(face * _EYE_REACH))
        kept = np.maximum(kept, _soft(cv2.dilate(lids, _disc(reach)), reach))
    return kept.astype(np.float32) / np.float32(255)


def _disc(radius: int) -> Image:
    """A round kernel for erosion and dilation."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _soft(mask: Image, reach: float) -> Image:
    side = 2 * max(1, round(reach)) + 1
    return cv2.blur(mask, (side, side))


def _fill(mask: Image, line: Floats, value: int) -> None:
    fixed = np.round(line * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], value, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)


def _closed(labels: NDArray[np.int16]) -> NDArray[np.int16]:
    """Fill the pinholes that triangles turned away leave beside the nostrils."""
    return np.where(labels < 0, cv2.dilate(labels, np.ones((3, 3), np.uint8)), labels)


def _far_to_near(points: Floats, corners: Floats) -> NDArray[np.intp]:
    """The triangles that face the camera, in the order of painting."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = _cross(b - a, c - a)
    depth = points[canonical.TRIANGLES, 2].sum(1)
    order = np.argsort(-depth)
    return order[area[order] < -_SLIVER]


def _affines(corners: Floats) -> Floats:
    """Map px to texture place, (898, 6): x terms, y terms, constants, each for u and v."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = _cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-6, np.float32(1e-6), area)[:, None]  # noqa: PLR2004 - flat
    texture = canonical.UV[canonical.TRIANGLES]
    along, across = texture[:, 1] - texture[:, 0], texture[:, 2] - texture[:, 0]
    by_x = (along * (c - a)[:, 1:] - across * (b - a)[:, 1:]) / area
    by_y = (across * (b - a)[:, :1] - along * (c - a)[:, :1]) / area
    constant = texture[:, 0] - by_x * a[:, :1] - by_y * a[:, 1:]
    return np.concatenate([by_x, by_y, constant], 1)


def _cross(one: Floats, other: Floats) -> Floats:
    product: Floats = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    return product
