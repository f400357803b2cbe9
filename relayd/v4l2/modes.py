"""What a capture device offers: formats, their sizes, and the frame rates of each."""

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

from relayd.v4l2.calls import BufferType, System, describe_format, fourcc_code, request

_Answer = TypeVar("_Answer")
_FRAME_SIZE = struct.Struct("=3I6I8x")
_FRAME_INTERVAL = struct.Struct("=5I6I8x")
VIDIOC_ENUM_FRAMESIZES: Final = request(3, 74, _FRAME_SIZE.size)
VIDIOC_ENUM_FRAMEINTERVALS: Final = request(3, 75, _FRAME_INTERVAL.size)
_DISCRETE = 1
"""V4L2_FRMSIZE_TYPE_DISCRETE and V4L2_FRMIVAL_TYPE_DISCRETE; the other types are ranges."""
_MOST_ANSWERS = 256
"""Limit of each list, for a broken driver that never ends it."""

USUAL_SIZES: Final = (
    (320, 240), (640, 360), (640, 480), (800, 600), (1280, 720), (1280, 960), (1920, 1080),
    (2560, 1440), (3840, 2160),
)  # fmt: skip
"""Sizes in pixels that are considered of a device that can scale to any size of a range."""
USUAL_RATES: Final = (60, 50, 30, 25, 24, 20, 15, 10, 5)
"""Frames per second that are considered of a device that offers a range."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One format and size of a device."""

    fourcc: str
    width: int
    height: int
    rates: tuple[Fraction, ...]
    """Frames per second, fastest first; empty when the device does not tell."""


def list_formats(system: System, fd: int) -> list[str]:
    """VIDIOC_ENUM_FMT: the FourCCs that a device captures, in its own order."""
    return list(_until_refused(lambda n: describe_format(system, fd, BufferType.CAPTURE, n)))


def list_modes(system: System, fd: int, fourccs: Collection[str]) -> list[Mode]:
    """Return the modes of these formats as far as the device has them and tells their sizes.

    Ranges are given as those of USUAL_SIZES and USUAL_RATES that lie in them, and their ends.
    """
    return [
        Mode(fourcc, width, height, _rates(system, fd, fourcc, (width, height)))
        for fourcc in list_formats(system, fd)
        if fourcc in fourccs
        for width, height in _sizes(system, fd, fourcc)
    ]


def _sizes(system: System, fd: int, fourcc: str) -> list[tuple[int, int]]:
    sizes: dict[tuple[int, int], None] = {}
    for kind, fields in _until_refused(lambda n: _frame_size(system, fd, fourcc, n)):
        if kind != _DISCRETE:  # a range is the only entry
            return list(dict.fromkeys(_in_range(fields)))
        sizes[fields[0], fields[1]] = None
    return list(sizes)


def _in_range(fields: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return the sizes to consider in a range: struct v4l2_frmsize_stepwise."""
    least_width, most_width, width_step, least_height, most_height, height_step = fields
    for width, height in (*USUAL_SIZES, (most_width, most_height)):
        if least_width <= width <= most_width and least_height <= height <= most_height:
            yield (
                width - (width - least_width) % max(1, width_step),
                height - (height - least_height) % max(1, height_step),
            )


def _rates(system: System, fd: int, fourcc: str, size: tuple[int, int]) -> tuple[Fraction, ...]:
    rates: set[Fraction] = set()
    for kind, fields in _until_refused(lambda n: _frame_interval(system, fd, fourcc, size, n)):
        rates.add(fastest := _rate(fields[0], fields[1]))
        if kind != _DISCRETE:  # a range is the only entry: struct v4l2_frmival_stepwise
            slowest = _rate(fields[2], fields[3])
            rates |= {Fraction(rate) for rate in USUAL_RATES if slowest <= rate <= fastest}
            break
    return tuple(sorted(rates - {Fraction(0)}, reverse=True))


def _rate(numerator: int, denominator: int) -> Fraction:
    """Return the frame rate of an interval in seconds; 0 for an impossible one."""
    return Fraction(denominator, numerator) if numerator else Fraction(0)


def _frame_size(system: System, fd: int, fourcc: str, number: int) -> tuple[int, tuple[int, ...]]:
    argument = bytearray(_FRAME_SIZE.pack(number, fourcc_code(fourcc), *[0] * 7))
    system.ioctl(fd, VIDIOC_ENUM_FRAMESIZES, argument)
    _number, _fourcc, kind, *fields = _FRAME_SIZE.unpack(argument)
    return kind, tuple(fields)


def _frame_interval(
    system: System, fd: int, fourcc: str, size: tuple[int, int], number: int
) -> tuple[int, tuple[int, ...]]:
    argument = bytearray(_FRAME_INTERVAL.pack(number, fourcc_code(fourcc), *size, *[0] * 7))
    system.ioctl(fd, VIDIOC_ENUM_FRAMEINTERVALS, argument)
    _number, _fourcc, _width, _height, kind, *fields = _FRAME_INTERVAL.unpack(argument)
    return kind, tuple(fields)


def _until_refused(ask: Callable[[int], _Answer]) -> Iterator[_Answer]:
    """Return the answers for 0, 1, … up to the one that the driver refuses, which ends a list."""
    for number in range(_MOST_ANSWERS):
        try:
            yield ask(number)
        except OSError:
            return
