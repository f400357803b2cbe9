"""Frame types and picture geometry.

A picture is I420 from end to end: one contiguous uint8 array of shape
(height * 3 // 2, width), Y rows first, then U, then V at half the width and height.
Its frame type states whose face it may show, so that a type checker rejects code that
sends a raw face to an output.
"""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

I420 = NDArray[np.uint8]
"""uint8, shape (height * 3 // 2, width), C-contiguous."""

FitMode = Literal["crop", "pad", "stretch"]
Rotation = Literal[0, 90, 180, 270]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The size of a picture in pixels; both even, as I420 needs."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0 or self.width % 2 or self.height % 2:
            raise ValueError(f"I420 needs even sizes above zero, not {self.width}x{self.height}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the I420 array."""
        return self.height * 3 // 2, self.width

    @property
    def nbytes(self) -> int:
        """Bytes of one picture."""
        return self.width * self.height * 3 // 2

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@final
@dataclass(frozen=True, slots=True)
class SourceFrame:
    """A picture from the source: it shows the real face and must never reach an output."""

    i420: I420
    captured_at: float
    """When it was decoded, monotonic seconds."""


@final
@dataclass(frozen=True, slots=True)
class SwappedFrame:
    """A picture that came back from the swap engine."""

    i420: I420
    received_at: float
    """When it left the RTC library, monotonic seconds."""


@final
@dataclass(frozen=True, slots=True)
class StandbyFrame:
    """A picture made by relayd: shows the relay's state as text."""

    i420: I420
    text: str


OutputFrame = SwappedFrame | StandbyFrame
"""What an output accepts."""


def expose_source(frame: SourceFrame) -> SwappedFrame:
    """Turn a raw frame into one that outputs accept.

    This happens only here, and only for `[privacy] fallback = "raw"`.
    """
    return SwappedFrame(frame.i420, frame.captured_at)


def luma(i420: I420) -> NDArray[np.uint8]:
    """Return the Y plane, shape (height, width), as a view."""
    return i420[: i420.shape[0] * 2 // 3]


def planes(i420: I420) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return Y, U and V, shapes (height, width) and twice (height / 2, width / 2), as views."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    chroma = i420[height:].reshape(2, height // 2, width // 2)
    return i420[:height], chroma[0], chroma[1]


def black(geometry: Geometry) -> I420:
    """Return a black picture (BT.601 limited range: Y 16, chroma 128)."""
    picture = np.full(geometry.shape, 128, np.uint8)
    picture[: geometry.height] = 16
    return picture


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How a decoded picture is fitted: crop, then scale, then pad, in display pixels."""

    crop: tuple[int, int, int, int]
    """x, y, width, height within the (upright) input, in its own pixels."""
    scaled: tuple[int, int]
    """width, height after scaling; even."""
    offset: tuple[int, int]
    """x, y of the scaled picture within the target; even."""


def plan_fit(
    width: int, height: int, sample_aspect: float, target: Geometry, mode: FitMode
) -> FitPlan:
    """Plan how to fit an upright width x height picture into the target.

    `sample_aspect` is a pixel's width over its height (1.0 = square, 0 counts as unknown).
    crop fills the target and cuts off the rest; pad shows everything between dark bars;
    stretch ignores the aspect.
    """
    if mode == "stretch":
        return FitPlan((0, 0, width, height), (target.width, target.height), (0, 0))
    shown_aspect = width * (sample_aspect if sample_aspect > 0 else 1.0) / height
    target_aspect = target.width / target.height
    if mode == "crop":
        cropped_width, cropped_height = width, height
        if shown_aspect > target_aspect:
            cropped_width = max(1, round(width * target_aspect / shown_aspect))
        else:
            cropped_height = max(1, round(height * shown_aspect / target_aspect))
        left, top = (width - cropped_width) // 2, (height - cropped_height) // 2
        return FitPlan(
            (left, top, cropped_width, cropped_height), (target.width, target.height), (0, 0)
        )
    if shown_aspect > target_aspect:
        scaled = target.width, _even(target.width / shown_aspect, target.height)
    else:
        scaled = _even(target.height * shown_aspect, target.width), target.height
    offset = (
        _even_down((target.width - scaled[0]) // 2),
        _even_down((target.height - scaled[1]) // 2),
    )
    return FitPlan((0, 0, width, height), scaled, offset)


def _even(value: float, limit: int) -> int:
    return min(max(2, round(value / 2) * 2), limit)


def _even_down(value: int) -> int:
    return value - value % 2
