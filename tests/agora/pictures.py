"""Pictures on their way through the hub, and what may be wrong with them when they arrive."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tests.agora.wire import Payload, encode

Plane = NDArray[np.uint8]

PADDING = 255
"""The value of padding bytes: white, or magenta, where somebody shows them."""
GREY = 128


@dataclass(frozen=True, slots=True)
class Picture:
    """An I420 picture of any size, odd ones too, as it goes over the wire."""

    width: int
    height: int
    rotation: int
    """Degrees that it must be turned clockwise to be upright."""
    payload: Payload
    pad: int = 0
    """Bytes after the pixels of each row, in every plane."""

    @classmethod
    def received(cls, width: int, height: int, rotation: int, payload: Payload) -> Self:
        """Check and take a member's picture; ValueError when the payload is no such picture."""
        picture = cls(width, height, rotation, payload)
        if min(width, height) <= 0 or rotation not in {0, 90, 180, 270}:
            raise ValueError(f"no picture is {width}x{height}, rotated by {rotation}")
        if len(payload) != (due := sum(rows * stride for rows, stride in picture.layout())):
            raise ValueError(f"{width}x{height} is {due} bytes of I420, not {len(payload)}")
        return picture

    @classmethod
    def of_planes(cls, planes: Sequence[Plane], rotation: int = 0, pad: int = 0) -> Self:
        """Put Y, U and V planes together, with `pad` bytes after each row."""
        height, width = planes[0].shape
        padded = (np.pad(plane, ((0, 0), (0, pad)), constant_values=PADDING) for plane in planes)
        return cls(width, height, rotation, b"".join(one.tobytes() for one in padded), pad)

    @classmethod
    def grey(cls, width: int, height: int) -> Self:
        """Return an even grey picture."""
        nothing = cls(width, height, 0, b"")
        return cls(
            width, height, 0, bytes([GREY]) * sum(rows * row for rows, row in nothing.layout())
        )

    def layout(self) -> list[tuple[int, int]]:
        """Rows and stride in bytes of each plane."""
        half = (self.height + 1) // 2, (self.width + 1) // 2 + self.pad
        return [(self.height, self.width + self.pad), half, half]

    def planes(self) -> list[Plane]:
        """The Y, U and V planes without padding, as views."""
        planes, at = [], 0
        flat = np.frombuffer(self.payload, np.uint8)
        for rows, stride in self.layout():
            plane = flat[at : at + rows * stride].reshape(rows, stride)
            planes.append(plane[:, : stride - self.pad])
            at += rows * stride
        return planes

    def line(self, uid: str) -> bytes:
        """The line before the payload, for a receiver to whom it is user `uid`'s."""
        strides = (stride for _, stride in self.layout())
        now_ms = int(time.monotonic() * 1000)
        size = self.width, self.height
        return encode(
            "frame", uid, *size, *strides, self.rotation, now_ms, length=len(self.payload)
        )


NOTHING = Picture(0, 0, 0, b"")
"""What a broken picture is."""


@dataclass(slots=True)
class PictureFault:
    """What happens to the pictures for one member; without a wish they pass untouched."""

    pad: int = 0
    """Bytes of padding after each row."""
    width: int = 0
    """Pixels; 0 leaves the size."""
    height: int = 0
    rotation: int = 0
    """Degrees that the receiver must turn the picture clockwise, beyond the sender's own."""
    frozen: bool = False
    """The same picture again and again."""
    stopped: bool = False
    echo: bool = False
    """The member's own picture, as user "0", before each."""
    broken: bool = False
    """0x0 pixels."""
    _kept: Picture | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.rotation not in {0, 90, 180, 270}:
            raise ValueError(f"rotation is 0, 90, 180 or 270, not {self.rotation}")
        if self.pad < 0 or min(self.width, self.height) < 0:
            raise ValueError("pad, width and height are zero or more")
        if (self.width == 0) != (self.height == 0):
            raise ValueError("width and height go together")

    def shown(
        self, uid: str, picture: Picture, own: Picture | None
    ) -> Iterator[tuple[str, Picture]]:
        """Return what arrives, and as whose, when `uid` sends `picture` to a member.

        `own` is what that member sent last.
        """
        if self.stopped:
            return
        if self.echo and own is not None:
            yield "0", own
        if self.broken:
            yield uid, NOTHING
            return
        if self.frozen:
            picture = self._kept = self._kept or picture
        yield uid, self._distorted(picture)

    def _distorted(self, picture: Picture) -> Picture:
        if not (self.pad or self.width or self.rotation):
            return picture
        planes = picture.planes()
        if self.width:
            planes = _resized(planes, self.width, self.height)
        planes = [np.rot90(plane, self.rotation // 90) for plane in planes]  # counter-clockwise
        return Picture.of_planes(planes, (picture.rotation + self.rotation) % 360, self.pad)


def _resized(planes: Sequence[Plane], width: int, height: int) -> list[Plane]:
    """Scale by the nearest pixel; the chroma planes get half the size, rounded up."""
    sizes = [(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]
    return [
        plane[np.ix_(_nearest(plane.shape[0], rows), _nearest(plane.shape[1], columns))]
        for plane, (rows, columns) in zip(planes, sizes, strict=True)
    ]


def _nearest(have: int, want: int) -> NDArray[np.intp]:
    return np.arange(want) * have // want
