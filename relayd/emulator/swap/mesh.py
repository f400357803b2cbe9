"""Tracking one face's 468 points from frame to frame."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from relayd.emulator.swap.detect import Detection, Detector
from relayd.emulator.swap.nets import Floats, landmark_net
from relayd.emulator.swap.planes import Planes

_INPUT = 192
"""Side of the mesh net's input, px."""
_ROI_SCALE = 1.5
"""How much larger than the face the net's square is (MediaPipe)."""
_ACQUIRE = 0.95
"""Mesh score that starts tracking: stricter than MediaPipe's 0.5, which accepts false faces."""
_KEEP = 0.8
"""Mesh score that keeps tracking."""
_CONFIRMING = 3
"""Good frames in a row before the swap begins to show."""
_FADE_FRAMES = 4
"""Frames from no swap to a full one."""
_YAW_FADE = (44.0, 49.0)
"""Degrees of yaw, as the mesh reads it, between which the swap fades out.

The mesh drifts off beyond; it reads a true 50 as 47, a true 60 as 53 and a true 75 as little
as 41."""
_YAW_BACK = 35.0
"""Degrees, as read, below which a head that was turned away counts as a face again."""
_LIKELY = 0.7
"""Detector score that makes a candidate of what the mesh net rejects; noise scores up to 0.66."""
_POSSIBLE = 0.1
"""Mesh score that makes a candidate in any case; noise has almost none."""
_FRAME_RATE = 25.0
"""Hz, for the One-Euro filter; the true rate is 20-30 and the filter forgiving."""
_MIN_CUTOFF = 1.0
"""Hz, One-Euro: calms a face that stands still."""
_BETA = 120.0
"""One-Euro: cutoff gained per face size and second; 30 lagged visibly."""
_SPEED_CUTOFF = 1.0
"""Hz, One-Euro: smoothing of the speed itself (MediaPipe)."""

_SIDES = ((234, 454), (33, 263), (61, 291), (127, 356), (132, 361))
"""Mirrored point pairs that yaw is read from."""


@final
@dataclass(frozen=True, slots=True)
class Roi:
    """The rotated square that is the mesh net's input, in picture pixels."""

    centre: tuple[float, float]
    side: float
    angle: float
    """Radians, clockwise as seen; 0 is upright."""

    @classmethod
    def around(cls, outline: Floats, eyes: Floats) -> "Roi":
        """The square that holds the outline (n, 2), upright along the eye line (2, 2)."""
        across = eyes[1] - eyes[0]
        angle = math.atan2(float(across[1]), float(across[0]))
        turn = np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], np.float32
        )
        upright = outline @ turn
        low, high = upright.min(0), upright.max(0)
        middle = turn @ ((low + high) / 2)
        side = float((high - low).max()) * _ROI_SCALE
        return cls((float(middle[0]), float(middle[1])), side, angle)

    @classmethod
    def of(cls, found: Detection) -> "Roi":
        """The square for a fresh detection."""
        left, top, width, height = (float(number) for number in found.box)
        eyes = found.keypoints[:2]
        across = eyes[1] - eyes[0]
        angle = math.atan2(float(across[1]), float(across[0]))
        middle = (left + width / 2, top + height / 2)
        return cls(middle, max(width, height) * _ROI_SCALE, angle)

    def to_picture(self) -> Floats:
        """The 2x3 matrix from net input pixels to picture pixels."""
        zoom = self.side / _INPUT
        cos, sin = math.cos(self.angle) * zoom, math.sin(self.angle) * zoom
        middle = (_INPUT - 1) / 2
        return np.array(
            [
                [cos, -sin, self.centre[0] - middle * (cos - sin)],
                [sin, cos, self.centre[1] - middle * (sin + cos)],
            ],
            np.float32,
        )


@final
class MeshNet:
    """468 points of the face within a square. Not thread-safe."""

    def __init__(self) -> None:
        self._net = landmark_net()

    def read(self, planes: Planes, roi: Roi) -> tuple[Floats, float]:
        """Points (468, 3), picture px, z in the same unit (near is small); and a score 0..1."""
        matrix = roi.to_picture()
        raw, logit = self._net.run(planes.patch(matrix, _INPUT))
        points = raw.reshape(468, 3).copy()
        points[:, :2] = (points[:, :2] - 0.5) @ matrix[:, :2].T + matrix[:, 2]
        points[:, 2] *= roi.side / _INPUT
        return points, 1 / (1 + math.exp(-float(logit.reshape(()))))

    def settle(self, planes: Planes, found: Detection) -> tuple[Floats, float]:
        """Points of a freshly detected face: the second pass, centred by the first, is exact."""
        points, score = self.read(planes, Roi.of(found))
        if score < _KEEP / 2:
            return points, score
        return self.read(planes, roi_of(points))


@final
@dataclass(frozen=True, slots=True)
class Track:
    """Where the face is in this frame."""

    points: Floats
    """(468, 3), picture px."""
    strength: float
    """How much of the swap to show, 0..1."""


@final
@dataclass(frozen=True, slots=True)
class Observation:
    """What the tracker found in a frame."""

    track: Track | None
    """The face it follows; None where there is none."""
    candidates: list[Roi]
    """Possible faces without a track: detected, but with a low mesh score."""


@final
class Tracker:
    """Follows the largest face. Not thread-safe."""

    def __init__(self) -> None:
        self._detector = Detector.short_range()
        self._mesh = MeshNet()
        self._filter = _OneEuro()
        self._roi: Roi | None = None
        self._good_frames = 0
        self._away = False

    def follow(self, planes: Planes) -> Observation:
        """Find the face in the next frame."""
        points, candidates = self._known(planes), list[Roi]()
        if points is None:
            self._filter.reset()
            points, candidates = self._new(planes)
        if points is None:
            self._roi, self._good_frames, self._away = None, 0, False
            return Observation(None, candidates)
        self._roi = roi_of(points)
        self._good_frames += 1
        return Observation(Track(self._filter.smooth(points), self._strength(points)), candidates)

    def _known(self, planes: Planes) -> Floats | None:
        if self._roi is None:
            return None
        points, score = self._mesh.read(planes, self._roi)
        return points if score >= _KEEP else None

    def _new(self, planes: Planes) -> tuple[Floats | None, list[Roi]]:
        """Return points of the largest face, or the possible faces with a low mesh score."""
        found = self._detector.find(planes)
        if not found:
            return None, []
        largest = max(found, key=lambda one: float(one.box[2]))
        points, score = self._mesh.settle(planes, largest)
        if score >= _ACQUIRE:
            return points, []
        possible = largest if score >= _POSSIBLE else None
        return None, [Roi.of(one) for one in found if one.score >= _LIKELY or one is possible]

    def _strength(self, points: Floats) -> float:
        near, far = _YAW_FADE
        turned = abs(yaw(points))
        self._away = turned > (_YAW_BACK if self._away else far)
        if self._away:
            self._good_frames = 0
        proven = (self._good_frames - _CONFIRMING + 1) / _FADE_FRAMES
        facing = (far - turned) / (far - near)
        return min(1.0, max(0.0, proven)) * min(1.0, max(0.0, facing))


def roi_of(points: Floats) -> Roi:
    """The next frame's square, from this frame's points."""
    return Roi.around(points[:, :2], points[[33, 263], :2])


def yaw(points: Floats) -> float:
    """How far the head is turned, degrees; 0 faces the camera."""
    pairs = np.array(_SIDES)
    across = (points[pairs[:, 1]] - points[pairs[:, 0]]).sum(0)
    return math.degrees(math.atan2(float(across[2]), math.hypot(*across[:2].tolist())))


@final
class _OneEuro:
    """Casiez' filter: smooths what stands still, lets through what moves."""

    def __init__(self) -> None:
        self._smooth: Floats | None = None
        self._speed: Floats | None = None

    def reset(self) -> None:
        self._smooth = self._speed = None

    def smooth(self, points: Floats) -> Floats:
        if self._smooth is None or self._speed is None:
            self._smooth, self._speed = points.copy(), np.zeros_like(points)
            return points
        size = float(np.ptp(points[:, 1])) + 1e-6
        speed = (points - self._smooth) * np.float32(_FRAME_RATE / size)
        self._speed += (speed - self._speed) * _gain(np.float32(_SPEED_CUTOFF))
        cutoff = _MIN_CUTOFF + _BETA * np.abs(self._speed)
        self._smooth = self._smooth + (points - self._smooth) * _gain(cutoff)
        return self._smooth


def _gain(cutoff: Floats | np.float32) -> Floats:
    lag = _FRAME_RATE / (2 * np.pi * cutoff)
    gain: Floats = np.asarray(1 / (1 + lag), np.float32)
    return gain
