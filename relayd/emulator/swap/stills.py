"""Finding every face of a still picture, whatever its size."""

from dataclasses import dataclass
from typing import final

import numpy as np

from relayd.emulator.swap.detect import Detection, Detector, merge, overlap
from relayd.emulator.swap.mesh import MeshNet
from relayd.emulator.swap.nets import Floats, Image
from relayd.emulator.swap.planes import Planes

_MARGIN_FILL = 0.55
"""Part of the view that a picture fills on the second look, for faces that fill the picture."""
_TILED_FROM = 500
"""Px of the longer side from which quarters are searched too, for small faces."""
_TILE = 0.6
"""A tile's part of the picture's width and height: four overlap by a fifth."""
_MESH_FLOOR = 0.5
"""Mesh score below which a detection shows no face after all (MediaPipe's gate)."""
_SAME_FACE = 0.3
"""Overlap of boxes above which two detections are one face."""


@final
@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face in a still picture, in its pixels."""

    region: tuple[int, int, int, int]
    """The detector's box: x, y, width, height."""
    points: tuple[tuple[int, int], ...]
    """Left eye as seen, right eye, nose tip, mouth centre, left and right corner of the mouth."""
    score: float
    """The detector's, 0..1."""

    @property
    def landmarks_str(self) -> str:
        """The first four points as the service writes them: "x,y:x,y:x,y:x,y"."""
        return ":".join(f"{x},{y}" for x, y in self.points[:4])


def find_faces(image_bgr: Image) -> list[DetectedFace]:
    """Every face of a BGR image (height, width, 3), the largest first; 30-100 ms."""
    return [face for face, _ in find_all(Planes.of_bgr(image_bgr), MeshNet())]


def find_all(planes: Planes, mesh: MeshNet) -> list[tuple[DetectedFace, Floats]]:
    """Every face with its 468 points, the largest first."""
    faces: list[tuple[Detection, Floats]] = []
    for found in sorted(_detections(planes), key=lambda one: -float(one.box[2])):
        points, score = mesh.settle(planes, found)
        if score >= _MESH_FLOOR and not any(_same(points, other) for _, other in faces):
            faces.append((found, points))
    return [(_described(found, points), points) for found, points in faces]


def _detections(planes: Planes) -> list[Detection]:
    short, full = Detector.short_range(), Detector.full_range()
    found = short.find(planes) + full.find(planes)
    if not found:
        found = short.find(planes, _MARGIN_FILL) + full.find(planes, _MARGIN_FILL)
    width, height = planes.size
    if max(width, height) >= _TILED_FROM:
        tile = _even(width * _TILE), _even(height * _TILE)
        for left in (0, width - tile[0]):
            for top in (0, height - tile[1]):
                part = planes.crop(left, top, *tile)
                found += [one.moved(left, top) for one in full.find(part)]
    return merge(found)


def _same(points: Floats, other: Floats) -> bool:
    boxes = [
        np.concatenate([each.min(0), np.ptp(each, axis=0)])
        for each in (points[:, :2], other[:, :2])
    ]
    return overlap(boxes[0], boxes[1]) > _SAME_FACE


def _described(found: Detection, points: Floats) -> DetectedFace:
    groups = ([33, 133], [362, 263], [1], [13, 14], [61], [291])
    places = [points[group, :2].mean(0) for group in groups]
    left, top, width, height = (round(float(number)) for number in found.box)
    return DetectedFace(
        (left, top, width, height),
        tuple((round(float(x)), round(float(y))) for x, y in places),
        found.score,
    )


def _even(value: float) -> int:
    return max(2, round(value / 2) * 2)
