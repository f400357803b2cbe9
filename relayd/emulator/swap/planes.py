"""Views of an I420 picture as three planes, and RGB patches cut from it."""

from dataclasses import dataclass
from typing import final

import cv2
import numpy as np

from relayd.emulator.swap.nets import Floats, Image
from relayd.media.frames import I420

_TO_RGB = np.array(
    [
        [1.164, 0.0, 1.596, -1.164 * 16 - 1.596 * 128],
        [1.164, -0.391, -0.813, -1.164 * 16 + (0.391 + 0.813) * 128],
        [1.164, 2.018, 0.0, -1.164 * 16 - 2.018 * 128],
    ],
    np.float32,
) / np.float32(255)
"""BT.601 limited-range YUV (0..255) to RGB (0..1), as a 3x4 affine matrix."""

_BLACK = (16, 128, 128)
"""Black as Y, U, V; MediaPipe pads with it."""

_NO_SECOND_MAP = np.empty(0, np.float32)
"""Both coordinates are in the first map of cv2.remap."""


@final
@dataclass(frozen=True, slots=True)
class Planes:
    """Y (height, width), U and V (height / 2, width / 2): views of one I420 picture."""

    y: Image
    u: Image
    v: Image

    @classmethod
    def of(cls, picture: I420) -> "Planes":
        """Views of the picture: writing to them writes to it."""
        height, width = picture.shape[0] * 2 // 3, picture.shape[1]
        flat, luma, chroma = picture.reshape(-1), height * width, height * width // 4
        half = (height // 2, width // 2)
        return cls(
            flat[:luma].reshape(height, width),
            flat[luma : luma + chroma].reshape(half),
            flat[luma + chroma :].reshape(half),
        )

    @classmethod
    def of_bgr(cls, image: Image) -> "Planes":
        """Convert a BGR image, shape (height, width, 3); an odd last row or column is doubled."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        picture: Image = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
        return cls.of(picture)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.y.shape[1], self.y.shape[0]

    def crop(self, left: int, top: int, width: int, height: int) -> "Planes":
        """Views of a rectangle; all four numbers must be even."""
        half = np.s_[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2]
        return Planes(self.y[top : top + height, left : left + width], self.u[half], self.v[half])

    def patch(self, to_picture: Floats, size: int) -> Floats:
        """Cut a size x size RGB patch (0..1); the 2x3 matrix maps patch pixels to picture ones."""
        to_chroma = to_picture / np.float32(2)
        to_chroma[:, 2] -= 0.25  # a chroma sample is in the middle of four luma samples
        yuv = [
            cv2.warpAffine(
                plane,
                matrix,
                (size, size),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=black,
            )
            for plane, matrix, black in zip(
                (self.y, self.u, self.v), (to_picture, to_chroma, to_chroma), _BLACK, strict=True
            )
        ]
        return _rgb(yuv)

    def letterbox(self, size: int, fill: float) -> tuple[Floats, float, float, float]:
        """Shrink the whole picture into the middle of a size x size RGB patch (0..1).

        Its longer side takes up `fill` of the patch. Returns the patch, the scale
        (patch px per picture px) and the picture's left and top within the patch.
        """
        width, height = self.size
        scale = size * fill / max(width, height)
        shown = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (size - shown[0]) // 2, (size - shown[1]) // 2
        canvases = []
        for plane, black in zip((self.y, self.u, self.v), _BLACK, strict=True):
            canvas = np.full((size, size), black, np.uint8)
            canvas[top : top + shown[1], left : left + shown[0]] = cv2.resize(
                plane, shown, interpolation=cv2.INTER_AREA
            )
            canvases.append(canvas)
        return _rgb(canvases), scale, left, top


def looked_up(plane: Image, places: Floats, border: int = cv2.BORDER_CONSTANT) -> Image:
    """The plane's pixels at places (rows, columns, 2), px, bilinear."""
    return cv2.remap(plane, places, _NO_SECOND_MAP, cv2.INTER_LINEAR, borderMode=border)


def _rgb(yuv: list[Image]) -> Floats:
    pixels = cv2.merge(yuv).astype(np.float32)
    return np.clip(cv2.transform(pixels, _TO_RGB), 0.0, 1.0)
