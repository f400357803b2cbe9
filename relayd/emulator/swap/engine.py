"""The swap: replaces one face of each picture by the source face."""

from typing import final

import cv2
import numpy as np

from relayd.emulator.swap import canonical
from relayd.emulator.swap.colour import GRID, Light
from relayd.emulator.swap.mesh import Track, Tracker
from relayd.emulator.swap.nets import Floats, Image
from relayd.emulator.swap.planes import Planes, looked_up
from relayd.emulator.swap.source import TEXTURE, SourceFace, unwrap, veiled
from relayd.emulator.swap.veil import Veils
from relayd.emulator.swap.warp import Rect, Warp, keep
from relayd.media.frames import I420

_SMALL = 0.62
"""Picture px per texel below which the texture is halved first, to avoid shimmer."""

_MARGIN = 8
"""Px around the mesh, even, in which its mask fades to zero."""


@final
class FaceSwapper:
    """Swaps the largest face of a stream of pictures; one per session, used by one thread."""

    def __init__(self, face: SourceFace, *, keep_eyes: bool = True) -> None:
        self._face = face
        self._keep_eyes = keep_eyes
        self._tracker = Tracker()
        self._light = Light()
        self._veils = Veils()
        self._warp = Warp()

    def set_face(self, face: SourceFace) -> None:
        """Show another face from the next picture on; any thread may call this."""
        self._face = face

    def swap(self, picture: I420) -> tuple[I420, bool]:
        """Return the picture with the face swapped and True; without a swap the flag is False.

        A known face that is not fully swapped is blurred: one that is not yet confirmed (the
        first three pictures) or fades in, is turned away, or was lost within the last second.
        Without such a face and without a swap it is the same object, unchanged.
        """
        face = self._face
        planes = Planes.of(picture)
        observation = self._tracker.follow(planes)
        veils = self._veils.follow(observation)
        track = observation.track
        if track is None:
            self._light.forget()
        rect = _around(track.points, planes.size) if track and track.strength > 0 else None
        if rect is None and not veils:
            return picture, False
        swapped = picture.copy()
        shown = Planes.of(swapped)
        for veil in veils:
            veil.draw(shown)
        if track is None or rect is None:
            return swapped, False
        self._light.learn(_texels(planes, track.points), track.points)
        self._paint(shown, face, track, rect)
        return swapped, True

    def _paint(self, planes: Planes, face: SourceFace, track: Track, rect: Rect) -> None:
        points = track.points
        luma, chroma = self._light.apply_to(face.luma, face.chroma, face.shading)
        places, mask = self._warp.aim(points, rect)
        mask *= 1 - keep(points, rect, eyes=self._keep_eyes)
        mask *= np.float32(track.strength)
        alpha = veiled(face.alpha, self._light.bare())
        if np.ptp(points[:, 1]) < _SMALL * TEXTURE:
            luma, alpha, chroma = _halved(luma), _halved(alpha), _halved(chroma)
        part = planes.crop(*rect)
        _blend_luma(part.y, cv2.merge([luma, alpha]), places, mask)
        _blend_chroma(part, cv2.merge([chroma, _halved(alpha)]), places, mask)


def _blend_luma(target: Image, texture: Image, places: Floats, mask: Floats) -> None:
    size = target.shape[::-1]
    wide = cv2.resize(places, size, interpolation=cv2.INTER_LINEAR)
    shown = _texels_at(texture, wide)
    colour, alpha = cv2.split(shown)
    weight = cv2.multiply(
        cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR),
        alpha,
        scale=1 / 255,
        dtype=cv2.CV_32F,
    )
    target[...] = cv2.blendLinear(colour, target, weight, 1 - weight)


def _blend_chroma(target: Planes, texture: Image, places: Floats, mask: Floats) -> None:
    colour_u, colour_v, alpha = cv2.split(_texels_at(texture, places))
    weight = cv2.multiply(mask, alpha, scale=1 / 255, dtype=cv2.CV_32F)
    for plane, colour in ((target.u, colour_u), (target.v, colour_v)):
        plane[...] = cv2.blendLinear(colour, plane, weight, 1 - weight)


def _texels_at(texture: Image, places: Floats) -> Image:
    """Return the texture's texels at places 0..1."""
    return looked_up(texture, places * np.float32(texture.shape[0]) - np.float32(0.5))


def _halved(texture: Image) -> Image:
    size = texture.shape[1] // 2, texture.shape[0] // 2
    return cv2.resize(texture, size, interpolation=cv2.INTER_AREA)


def _texels(planes: Planes, points: Floats) -> Floats:
    """Return the picture's Y, U, V unwrapped by the mesh, (64, 64, 3)."""
    places = canonical.texel_places(points, GRID)
    return cv2.merge(unwrap(planes, places)).astype(np.float32)


def _around(points: Floats, size: tuple[int, int]) -> Rect | None:
    """The face's box within the picture, even numbers; None if it is outside or too small."""
    low = np.maximum(np.floor(points[:, :2].min(0) / 2) * 2 - _MARGIN, 0).astype(int)
    high = np.minimum(np.ceil(points[:, :2].max(0) / 2) * 2 + _MARGIN, size).astype(int)
    width, height = (high - low).tolist()
    if min(width, height) < 2 * 4:
        return None
    return int(low[0]), int(low[1]), width, height
