"""MediaPipe's canonical face: 468 points, their places in the texture, 898 triangles."""

from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from relayd.emulator.swap.nets import MODELS, Floats

with np.load(MODELS / "canonical_face.npz") as _stored:
    XYZ: Final[Floats] = _stored["xyz"].astype(np.float32)
    """(468, 3), about centimetres: x to the picture's right, y up, z towards the camera."""
    UV: Final[Floats] = _stored["uv"].astype(np.float32)
    """(468, 2), 0..1: u to the right, v down."""
    TRIANGLES: Final[NDArray[np.int32]] = _stored["tri"].astype(np.int32)
    """(898, 3) indices, wound so that a triangle facing the camera has a negative area."""

RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
"""The lids' edge of the person's right eye, a closed line."""
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
"""The lids' edge of the person's left eye."""
INNER_LIPS = (
    78,
    191,
    80,
    81,
    82,
    13,
    312,
    311,
    310,
    415,
    308,
    324,
    318,
    402,
    317,
    14,
    87,
    178,
    88,
    95,
)
"""Where the lips meet: the mouth's opening."""
OUTER_LIPS = (
    61,
    185,
    40,
    39,
    37,
    0,
    267,
    269,
    270,
    409,
    291,
    375,
    321,
    405,
    314,
    17,
    84,
    181,
    91,
    146,
)
"""Where lips end and skin begins."""
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The mesh's rim, from the forehead's middle clockwise as seen."""
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
"""The person's right brow, a closed line."""
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
"""The person's left brow."""


@cache
def texture_grid(size: int) -> tuple[NDArray[np.int32], Floats]:
    """For each texel of a texture: its triangle (-1 outside) and the corners' weights.

    Returns labels (size, size) and barycentric weights (size, size, 3).
    """
    corners = UV[TRIANGLES] * size - 0.5
    labels = np.full((size, size), -1, np.int16)
    fixed = np.round(corners * 16).astype(np.int32)
    for index, corner in enumerate(fixed):
        cv2.fillConvexPoly(labels, corner, index, shift=4)
    rows, columns = np.indices((size, size), dtype=np.float32)
    a, b, c = (corners[labels, k] for k in range(3))
    area = _cross(b - a, c - a)
    here = np.stack([columns, rows], 2)
    weight_b, weight_c = _cross(here - a, c - a) / area, _cross(b - a, here - a) / area
    weights = np.stack([1 - weight_b - weight_c, weight_b, weight_c], 2)
    return labels.astype(np.int32), weights.astype(np.float32)


def texel_places(points: Floats, size: int) -> Floats:
    """Where each texel lies in the picture, (size, size, 2), from points (468, 2 or more)."""
    labels, weights = texture_grid(size)
    corners = TRIANGLES[labels]
    flat: Floats = points[:, :2]
    places: Floats = np.einsum("hwk,hwkc->hwc", weights, flat[corners])
    return places.astype(np.float32)


def facing(points: Floats) -> Floats:
    """How much each triangle faces the camera, (898,): 1 head on, 0 edge on, below 0 away."""
    corner = points[TRIANGLES]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    length = np.linalg.norm(normal, axis=1) + 1e-9
    toward: Floats = (-normal[:, 2] / length).astype(np.float32)
    return toward


def _cross(one: Floats, other: Floats) -> Floats:
    product: Floats = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    return product
