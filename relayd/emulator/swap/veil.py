"""The veil: a blur over a known face that is not, or not fully, swapped.

Users of a swap do not want to show their own face, so no picture shows it: not before a new face
is confirmed, not turned away, not just after tracking lost it.
"""

import math
from dataclasses import dataclass, replace
from typing import final

import cv2
import numpy as np

from relayd.emulator.swap.mesh import Observation, Roi, roi_of
from relayd.emulator.swap.nets import Floats
from relayd.emulator.swap.planes import Planes

SECOND = 25
"""Frames that a lost face stays veiled: a second of the fastest streams, 1.25 s at 20 Hz."""
_DISSOLVE = 4
"""Frames in which an unneeded veil fades out."""
_STEEPNESS = 8.0
"""Opacity per missing swap strength: full below 7/8; at most 3 % shine through."""
_GROWTH = 0.12
"""Growth of a lost face's veil per frame: the face may be moving."""
_SHRINKAGE = 0.12
"""Its shrinkage per frame once the face is found again."""
_LARGEST = 1.6
"""Largest size of a veil, relative to its first size."""
_BLOCKS = 9
"""Blocks across the whole veil: about five across the face, too few to recognise anybody."""
_SPARSE = 4
"""Every fourth pixel each way is enough to average a block, and halves the time."""
_WIDTH, _HEIGHT = 0.46, 0.54
"""Half axes of the opaque ellipse, in sides of the mesh net's square (1.5 faces)."""
_EDGE = 1.3
"""Times the opaque ellipse at which the veil is clear."""


@final
@dataclass(frozen=True, slots=True)
class Veil:
    """The blur over one face in this frame."""

    roi: Roi
    """Where the face is, or was last."""
    opacity: float
    """0..1; 0 over a fully swapped face, kept in case it gets lost."""
    size: float = 1.0
    """Relative to the size that the face needs."""
    unseen: int = 0
    """Frames since the face was last found."""

    def draw(self, planes: Planes) -> None:
        """Draw it; pixels beyond its edge stay unchanged."""
        (x, y), side = self.roi.centre, self.roi.side * self.size
        across, down = side * _WIDTH * _EDGE, side * _HEIGHT * _EDGE
        width, height = planes.size
        left, right = _even(x - across, width), _even(x + across + 2, width)
        top, bottom = _even(y - down, height), _even(y + down + 2, height)
        if left >= right or top >= bottom:
            return
        columns = (np.arange(left, right, 2, dtype=np.float32) + np.float32(0.5 - x)) / across
        rows = (np.arange(top, bottom, 2, dtype=np.float32) + np.float32(0.5 - y)) / down
        weight = self._weight(columns, rows)
        block = 2 * down / _BLOCKS
        part = planes.crop(left, top, right - left, bottom - top)
        blocks = max(1, round((right - left) / block)), max(1, round((bottom - top) / block))
        for plane in (part.y, part.u, part.v):
            size = plane.shape[::-1]
            sparse = plane[::_SPARSE, ::_SPARSE]
            coarse = cv2.resize(sparse, blocks, interpolation=cv2.INTER_AREA)
            coarse = cv2.GaussianBlur(coarse, (3, 3), 0)
            smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
            mask = cv2.resize(weight, size, interpolation=cv2.INTER_LINEAR)
            plane[...] = cv2.blendLinear(smooth, plane, mask, 1 - mask)

    def _weight(self, columns: Floats, rows: Floats) -> Floats:
        """Opacity at places given in outer half axes from the centre: full within, 0 from 1 on."""
        distance = columns[None] ** 2 + rows[:, None] ** 2
        slope = np.float32(self.opacity / (1 - _EDGE**-2))
        weight: Floats = np.clip((1 - distance) * slope, 0, np.float32(self.opacity))
        return weight


@final
class Veils:
    """The veils of one stream, tracked from frame to frame."""

    def __init__(self) -> None:
        self._known: list[Veil] = []

    def follow(self, observation: Observation) -> list[Veil]:
        """Process what the tracker found in the next frame; returns the veils to draw on it."""
        found = [(roi, 0.0) for roi in observation.candidates]
        if observation.track is not None:
            found.append((roi_of(observation.track.points), observation.track.strength))
        lost = [one for one in self._known if not any(_same(one.roi, roi) for roi, _ in found)]
        self._known = [self._over(roi, strength) for roi, strength in found]
        self._known += [_aged(one) for one in lost if one.unseen + 1 < SECOND]
        return [one for one in self._known if one.opacity > 0]

    def _over(self, roi: Roi, strength: float) -> Veil:
        """The veil of a face found in this frame; an earlier veil there fades out."""
        before = [one for one in self._known if _same(one.roi, roi)]
        opacity = max([0.0, *(one.opacity - 1 / _DISSOLVE for one in before)])
        size = max([1.0, *(one.size - _SHRINKAGE for one in before)])
        return Veil(roi, max(opacity, min(1.0, _STEEPNESS * (1 - strength))), size)


def _aged(veil: Veil) -> Veil:
    """The veil of a face not found in this frame."""
    unseen = veil.unseen + 1
    return replace(
        veil,
        opacity=min(1.0, (SECOND - unseen) / _DISSOLVE),
        size=min(_LARGEST, veil.size + _GROWTH),
        unseen=unseen,
    )


def _same(one: Roi, other: Roi) -> bool:
    return math.dist(one.centre, other.centre) < max(one.side, other.side) / 2


def _even(place: float, limit: int) -> int:
    return min(max(0, math.floor(place / 2) * 2), limit)
