"""Face work on still images, away from the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from relayd.emulator.images import PARAMETER_ERROR, png
from relayd.emulator.swap import DetectedFace, SourceFace, decode_image, find_faces
from relayd.errors import FaceRejected

T = TypeVar("T")

CROP_MARGIN = 1 / 3
"""Margin of a crop beyond each side of a face's region, as a share of its size."""


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face in an image and its crop."""

    face: DetectedFace
    crop_region: tuple[int, int, int, int]
    """x, y, width, height in the image."""
    crop_png: bytes

    @property
    def crop_landmarks(self) -> str:
        """The first four points, in the pixels of the crop."""
        left, top = self.crop_region[:2]
        return ":".join(f"{x - left},{y - top}" for x, y in self.face.points[:4])


async def prepare_face(executor: Executor, image: bytes, landmarks: str) -> SourceFace:
    """Make an image file's face ready to be put on; FaceRejected when it has none."""
    return await _run(executor, lambda: SourceFace.prepare(decode_image(image), landmarks))


async def detect_faces(executor: Executor, image: bytes, *, single: bool) -> list[FoundFace]:
    """Return every face of an image file, or only the largest; FaceRejected when it is no image."""
    return await _run(executor, lambda: _detect(image, single=single))


async def _run(executor: Executor, work: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, work)
    except ValueError as fault:
        raise FaceRejected(f"sourceImage: {fault}", code=PARAMETER_ERROR) from fault


def _detect(image: bytes, *, single: bool) -> list[FoundFace]:
    picture = decode_image(image)
    faces = sorted(find_faces(picture), key=lambda one: -one.region[2] * one.region[3])
    found = []
    for face in faces[:1] if single else faces:
        region = _crop_region(face.region, picture.shape[1], picture.shape[0])
        left, top, width, height = region
        crop = picture[top : top + height, left : left + width]
        found.append(FoundFace(face, region, png(crop)))
    return found


def _crop_region(
    region: tuple[int, int, int, int], image_width: int, image_height: int
) -> tuple[int, int, int, int]:
    x, y, width, height = region
    left = max(0, round(x - width * CROP_MARGIN))
    top = max(0, round(y - height * CROP_MARGIN))
    right = min(image_width, round(x + width * (1 + CROP_MARGIN)))
    bottom = min(image_height, round(y + height * (1 + CROP_MARGIN)))
    return left, top, right - left, bottom - top
