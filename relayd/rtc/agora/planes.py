"""Packs padded, rotated planes of any size into one I420 picture."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from relayd.media.frames import I420, Geometry, planes
from relayd.rtc.agora.events import ReceivedFrame

_QUARTER = 90  # degrees
_SMALLEST = 2  # pixels: a picture of fewer has no chroma


class Packer:
    """Packs frames into a buffer that is reused while the size stays; for one thread."""

    def __init__(self) -> None:
        self._picture: I420 = np.empty((0, 0), np.uint8)

    def pack(self, frame: ReceivedFrame) -> I420 | None:
        """Return the upright picture, valid until the next call; None if the frame is broken.

        An odd last row or column, which I420 cannot hold, is cut off.
        """
        geometry = _even_geometry(frame)
        if geometry is None:
            return None
        received = list(_unpadded(frame, geometry))
        if len(received) != len(frame.planes):
            return None
        turns = frame.rotation % 360 // _QUARTER
        upright = geometry if turns % 2 == 0 else Geometry(geometry.height, geometry.width)
        if self._picture.shape != upright.shape:
            self._picture = np.empty(upright.shape, np.uint8)
        for part, plane in zip(planes(self._picture), received, strict=True):
            part[:] = np.rot90(plane, -turns)  # rot90 counts the other way round
        return self._picture


def _even_geometry(frame: ReceivedFrame) -> Geometry | None:
    width, height = frame.width - frame.width % 2, frame.height - frame.height % 2
    if width < _SMALLEST or height < _SMALLEST or frame.rotation % _QUARTER:
        return None
    return Geometry(width, height)


def _unpadded(frame: ReceivedFrame, geometry: Geometry) -> Iterator[NDArray[np.uint8]]:
    """Return each plane without its padding, as a view; stops at one that is too short."""
    half = geometry.width // 2, geometry.height // 2
    sizes = ((geometry.width, geometry.height), half, half)
    for data, stride, (width, height) in zip(frame.planes, frame.strides, sizes, strict=True):
        rows = len(data) // stride if data and stride >= width else 0
        if data is None or rows < height:
            return
        plane = np.frombuffer(data, np.uint8, rows * stride).reshape(rows, stride)
        yield plane[:height, :width]
