"""Finding faces: MediaPipe's BlazeFace, short and full range."""

from dataclasses import dataclass
from typing import final

import numpy as np

from relayd.emulator.swap.nets import Floats, Net, full_range_net, short_range_net
from relayd.emulator.swap.planes import Planes

SCORE_FLOOR = 0.6
"""Below this a detection is no face, as in MediaPipe's full-range graph; 0.5 gives false faces."""

_SAME_FACE = 0.3
"""Intersection over union above which two boxes are one face (MediaPipe)."""

_LOGIT_LIMIT = 80.0
"""Raw scores are clipped to this before the sigmoid (MediaPipe: 100, which overflows float32)."""


@final
@dataclass(frozen=True, slots=True)
class Detection:
    """One face box in picture pixels."""

    box: Floats
    """left, top, width, height."""
    keypoints: Floats
    """(6, 2): the person's right eye, left eye, nose tip, mouth, right ear, left ear."""
    score: float

    def moved(self, left: float, top: float) -> "Detection":
        """The same face, seen from a picture that this one is a crop of."""
        shift = np.array([left, top], np.float32)
        box = self.box.copy()
        box[:2] += shift
        return Detection(box, self.keypoints + shift, self.score)


@final
class Detector:
    """One of the two detectors. Not thread-safe."""

    def __init__(self, net: Net, size: int, anchors: Floats) -> None:
        self._net = net
        self._size = size
        self._anchors = anchors

    @classmethod
    def short_range(cls) -> "Detector":
        """Faces of about a seventh of the picture's width and more, 2-3 ms."""
        # MediaPipe: strides 8, 16, 16, 16 on 128 px, two anchors each.
        return cls(short_range_net(), 128, np.concatenate([_grid(16, 2), _grid(8, 6)]))

    @classmethod
    def full_range(cls) -> "Detector":
        """Faces of about a tenth of the picture's width and more, 7-13 ms."""
        # MediaPipe: stride 4 on 192 px, one anchor each.
        return cls(full_range_net(), 192, _grid(48, 1))

    def find(self, planes: Planes, fill: float = 1.0) -> list[Detection]:
        """Faces in the picture, best score first; `fill` < 1 adds a black margin around it."""
        patch, scale, left, top = planes.letterbox(self._size, fill)
        regressors, logits = self._net.run(patch * 2 - 1)
        limited = np.clip(logits.reshape(-1), -_LOGIT_LIMIT, _LOGIT_LIMIT)
        scores = 1 / (1 + np.exp(-limited))
        likely = scores >= SCORE_FLOOR
        if not likely.any():
            return []
        numbers = regressors.reshape(-1, 8, 2)[likely]
        centres = self._anchors[likely] * self._size
        points = numbers + centres[:, None]
        points[:, 1] = numbers[:, 1]  # the second pair is the box size, not a place
        points[:, [0, 2, 3, 4, 5, 6, 7]] -= np.array([left, top], np.float32)
        return merge(
            [_detection(p / scale, s) for p, s in zip(points, scores[likely], strict=True)]
        )


def merge(found: list[Detection]) -> list[Detection]:
    """Make one of the boxes that overlap, weighted by score (BlazeFace's way); best first."""
    rest = sorted(found, key=lambda one: one.score, reverse=True)
    merged = []
    while rest:
        best = rest[0]
        alike = [one for one in rest if one is best or overlap(one.box, best.box) > _SAME_FACE]
        weights = np.array([one.score for one in alike], np.float32)
        weights /= weights.sum()
        box = np.tensordot(weights, np.stack([one.box for one in alike]), 1)
        keypoints = np.tensordot(weights, np.stack([one.keypoints for one in alike]), 1)
        merged.append(Detection(box, keypoints, best.score))
        taken = {id(one) for one in alike}
        rest = [one for one in rest if id(one) not in taken]
    return merged


def overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    start = np.maximum(one[:2], other[:2])
    end = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    common = float(np.prod(np.maximum(end - start, 0)))
    return common / float(np.prod(one[2:]) + np.prod(other[2:]) - common)


def _detection(points: Floats, score: float) -> Detection:
    centre, size = points[0], np.maximum(points[1], 1)
    return Detection(np.concatenate([centre - size / 2, size]), points[2:], float(score))


def _grid(cells: int, anchors: int) -> Floats:
    """Anchor centres (cells * cells * anchors, 2), 0..1, row by row."""
    line = (np.arange(cells, dtype=np.float32) + 0.5) / cells
    x, y = np.meshgrid(line, line)
    return np.repeat(np.stack([x.ravel(), y.ravel()], 1), anchors, axis=0)
