"""How much the face in a picture looks like a source face, without a recogniser."""

import cv2
import numpy as np

from relayd.emulator.swap import canonical
from relayd.emulator.swap.mesh import MeshNet
from relayd.emulator.swap.nets import Floats, Image
from relayd.emulator.swap.planes import Planes
from relayd.emulator.swap.source import TEXTURE, SourceFace, unwrap
from relayd.emulator.swap.stills import find_all

_BAND = (TEXTURE / 160, TEXTURE / 20)
"""Texels (sigma): the detail between noise and light identifies a face."""
_COLOUR = 3
"""Dimensions of a BGR image; an I420 one has two."""


def likeness(picture: Image, face: SourceFace) -> float | None:
    """Correlate a picture's face with a source face, -1..1; None if there is none.

    The picture, BGR (height, width, 3) or I420, is unwrapped by its landmarks and compared
    in the texture, as detail only (without light and skin tone).
    """
    planes = Planes.of_bgr(picture) if picture.ndim == _COLOUR else Planes.of(picture)
    faces = find_all(planes, MeshNet())
    if not faces:
        return None
    points = faces[0][1]
    luma = unwrap(planes, canonical.texel_places(points, TEXTURE))[0]
    labels, _ = canonical.texture_grid(TEXTURE)
    weights = face.alpha / np.float32(255) * np.clip(canonical.facing(points), 0, 1)[labels]
    one, other = _detail(luma), _detail(face.luma)
    one -= np.average(one, weights=weights)
    other -= np.average(other, weights=weights)
    common = float((weights * one * other).sum())
    return common / float(np.sqrt((weights * one * one).sum() * (weights * other * other).sum()))


def _detail(luma: Image) -> Floats:
    fine, coarse = (cv2.GaussianBlur(luma.astype(np.float32), (0, 0), sigma) for sigma in _BAND)
    return fine - coarse
