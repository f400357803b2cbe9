"""The source face: one photo, unwrapped once into a texture of the canonical face."""

import io
import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import final

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from relayd.emulator.swap import canonical
from relayd.emulator.swap.colour import GRID, bareness, plainness, shade
from relayd.emulator.swap.mesh import MeshNet
from relayd.emulator.swap.nets import Floats, Image
from relayd.emulator.swap.planes import Planes, looked_up
from relayd.emulator.swap.stills import DetectedFace, find_all

TEXTURE = 320
"""Texture side, texels: about one texel a pixel for a face 270 px high."""

_MOST_PIXELS = 40_000_000
"""A photo larger than this is refused before it is decoded, for the memory it would take."""
_TOO_LARGE = f"the image has more than {_MOST_PIXELS // 1_000_000} megapixels"
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_BACKDROP = (128, 128, 128)
"""What shows through transparent pixels, RGB."""
_SMALLEST_FACE = 40
"""Px, the box side below which a photo has too little of a face."""
_SEEN = (0.10, 0.35)
"""Triangles facing less than the first are not seen in the photo, above the second fully."""

_RIM = (0.012, 0.085)
"""Texture units from the oval's edge: the swap is clear at the first, full at the second."""
_FOREHEAD = (0.15, 0.25)
"""Height in the texture: the forehead fades out upwards, so that no hairline is painted on."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class SourceFace:
    """A face ready to be put on others; immutable, so threads may share it."""

    luma: Image
    """(320, 320) Y."""
    chroma: Image
    """(160, 160, 2) U and V."""
    alpha: Image
    """(320, 320): how much of each texel to show, 0..255."""
    shading: Floats
    """(64, 64, 3): the skin's own Y, U, V without its detail."""

    @classmethod
    def prepare(cls, image_bgr: Image, landmarks: str = "") -> "SourceFace":
        """Unwrap the photo's face: the one nearest to `landmarks` ("x,y:x,y:…"), else the largest.

        Takes 50-300 ms. Raises ValueError, in a plain sentence, if no face is found.
        """
        planes = Planes.of_bgr(image_bgr)
        mesh = MeshNet()
        faces = find_all(planes, mesh)
        if not faces:
            raise ValueError("no face was found in the image")
        face, points = _chosen(faces, landmarks)
        if max(face.region[2:]) < _SMALLEST_FACE:
            raise ValueError(
                f"the face is only {max(face.region[2:])} pixels wide; at least {_SMALLEST_FACE}"
            )
        return cls._unwrapped(planes, points)

    @classmethod
    def _unwrapped(cls, planes: Planes, points: Floats) -> "SourceFace":
        seen = _seen(points)
        places = canonical.texel_places(points, TEXTURE)
        luma, chroma_u, chroma_v = (_completed(plane, seen) for plane in unwrap(planes, places))
        half = (TEXTURE // 2, TEXTURE // 2)
        chroma = cv2.resize(cv2.merge([chroma_u, chroma_v]), half, interpolation=cv2.INTER_AREA)
        small = cv2.resize(
            cv2.merge([luma, chroma_u, chroma_v]), (GRID, GRID), interpolation=cv2.INTER_AREA
        )
        texels = small.astype(np.float32)
        plain = plainness(texels)
        return cls(luma, chroma, veiled(_alpha(), bareness(plain)), shade(texels, plain))


def decode_image(data: bytes) -> Image:
    """Decode a photo to BGR (height, width, 3), upright, transparency on grey.

    Raises ValueError, in a plain sentence, for an invalid image or more than 40 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is checked here, damaged metadata is harmless
            with Pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    raise ValueError(_TOO_LARGE)
                upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except Pillow.DecompressionBombError as error:
        raise ValueError(_TOO_LARGE) from error
    except (OSError, SyntaxError, EOFError, MemoryError) as error:
        raise ValueError("the image is in no format that can be read (JPEG, PNG, WebP…)") from error
    opaque = Pillow.new("RGBA", upright.size, (*_BACKDROP, 255))
    opaque.alpha_composite(upright)
    return cv2.cvtColor(np.asarray(opaque, np.uint8), cv2.COLOR_RGBA2BGR)


def veiled(alpha: Image, bare: Floats) -> Image:
    """The alpha texture (n, n) without what is hair, from bareness (64, 64)."""
    wide = cv2.resize(bare, alpha.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(alpha, wide, dtype=cv2.CV_8U)


def unwrap(planes: Planes, places: Floats) -> list[Image]:
    """Y, U and V at the given picture places (rows, columns, 2), each (rows, columns)."""
    chroma_places = (places / 2 - 0.25).astype(np.float32)
    return [
        looked_up(planes.y, places, cv2.BORDER_REPLICATE),
        looked_up(planes.u, chroma_places, cv2.BORDER_REPLICATE),
        looked_up(planes.v, chroma_places, cv2.BORDER_REPLICATE),
    ]


def _chosen(
    faces: list[tuple[DetectedFace, Floats]], landmarks: str
) -> tuple[DetectedFace, Floats]:
    numbers = [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", landmarks)]
    if len(numbers) < 2 or len(numbers) % 2:  # noqa: PLR2004 - a point has two coordinates
        return faces[0]
    meant = np.array(numbers, np.float32).reshape(-1, 2).mean(0)
    return min(faces, key=lambda face: float(np.hypot(*(np.mean(face[0].points[:3], 0) - meant))))


def _seen(points: Floats) -> Floats:
    """How well the photo shows each texel, (320, 320), 0..1."""
    labels, _ = canonical.texture_grid(TEXTURE)
    hidden, full = _SEEN
    visibility = np.clip((canonical.facing(points) - hidden) / (full - hidden), 0, 1)
    return cv2.GaussianBlur(visibility[labels].astype(np.float32), (0, 0), TEXTURE / 80)


def _completed(plane: Image, seen: Floats) -> Image:
    """Fill what the photo does not show with the other half of the face, mirrored."""
    mirrored = (1 - seen) * cv2.flip(seen, 1)
    total = seen + mirrored + np.float32(1e-3)
    mixed = (plane * (seen + np.float32(1e-3)) + cv2.flip(plane, 1) * mirrored) / total
    completed: Image = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return completed


@cache
def _alpha() -> Image:
    """The feathered oval without the upper forehead, (320, 320), 0..255."""
    oval = np.zeros((TEXTURE, TEXTURE), np.uint8)
    rim = np.round(canonical.UV[list(canonical.OVAL)] * TEXTURE).astype(np.int32)
    cv2.fillPoly(oval, [rim], 255)
    inside = cv2.distanceTransform(oval, cv2.DIST_L2, 5) / TEXTURE
    height = np.linspace(0, 1, TEXTURE, dtype=np.float32)[:, None]
    alpha = _smoothstep(inside, *_RIM) * _smoothstep(height, *_FOREHEAD)
    veil: Image = np.rint(alpha * 255).astype(np.uint8)
    return veil


def _smoothstep(value: Floats, low: float, high: float) -> Floats:
    part = np.clip((value - low) / (high - low), 0, 1)
    smooth: Floats = (part * part * (3 - 2 * part)).astype(np.float32)
    return smooth
