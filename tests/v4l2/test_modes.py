"""What devices offer, out of answers that were recorded from real drivers."""

import os
import struct
from fractions import Fraction
from pathlib import Path

import pytest

from relayd.v4l2.calls import fourcc_code, fourcc_text, query_capability
from relayd.v4l2.modes import (
    VIDIOC_ENUM_FRAMEINTERVALS,
    VIDIOC_ENUM_FRAMESIZES,
    Mode,
    list_formats,
    list_modes,
)
from tests.support.cameras import RecordedDevices


def opened(folder: Path, device: str) -> tuple[RecordedDevices, int]:
    system = RecordedDevices(folder, {"video0": device})
    return system, system.open(str(folder / "video0"), os.O_RDWR)


def test_a_webcams_formats_sizes_and_rates_are_read(tmp_path: Path) -> None:
    system, fd = opened(tmp_path, "webcam")
    capability = query_capability(system, fd)
    assert (capability.driver, capability.card, capability.can_capture) == ("vivid", "vivid", True)
    assert list_formats(system, fd) == ["YUYV", "UYVY", "YVYU"]
    modes = list_modes(system, fd, {"YUYV"})
    assert [(mode.width, mode.height, str(mode.rates[0])) for mode in modes] == [
        (320, 180, "60"), (640, 360, "40"), (640, 480, "25"), (1280, 720, "25/2"),
        (1920, 1080, "5"), (3840, 2160, "2"),
    ]  # fmt: skip
    assert modes[3].rates == tuple(map(Fraction, (12.5, 10, 5, 4, 2, 1)))
    system.close(fd)


def test_a_format_of_swapped_bytes_keeps_its_code() -> None:
    swapped = int.from_bytes(b"Y16 ", "little") | 1 << 31  # V4L2_PIX_FMT_Y16_BE
    assert fourcc_code(fourcc_text(swapped)) == swapped


def test_of_a_range_of_sizes_the_usual_ones_are_given(tmp_path: Path) -> None:
    system, fd = opened(tmp_path, "hdmi")
    modes = list_modes(system, fd, {"YUYV"})
    assert Mode("YUYV", 1280, 720, (Fraction(60),)) in modes
    assert (modes[-1].width, modes[-1].height) == (16384, 8640)  # the largest that it has
    system.close(fd)


def test_a_virtual_camera_has_the_mode_of_its_writer(tmp_path: Path) -> None:
    system, fd = opened(tmp_path, "loopback")
    assert list_modes(system, fd, {"YUYV"}) == [Mode("YUYV", 640, 480, (Fraction(30),))]
    system.close(fd)


class Ranges:
    """A driver with ranges of sizes and rates, as those of camera chips have them."""

    def __init__(self, steps: tuple[int, ...], intervals: tuple[int, ...]) -> None:
        self._steps, self._intervals = steps, intervals

    def open(self, path: str, flags: int) -> int:
        raise NotImplementedError

    def close(self, fd: int) -> None:
        raise NotImplementedError

    def write(self, fd: int, data: memoryview) -> int:
        raise NotImplementedError

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        if struct.unpack_from("=I", argument) != (0,):
            raise OSError(22, "the only answer was given")
        if request == VIDIOC_ENUM_FRAMESIZES:
            struct.pack_into("=7I", argument, 8, 3, *self._steps)
        elif request == VIDIOC_ENUM_FRAMEINTERVALS:
            struct.pack_into("=7I", argument, 16, 2, *self._intervals)
        else:
            struct.pack_into("=4s", argument, 44, b"NV12")


@pytest.mark.parametrize(
    ("intervals", "rates"),
    [
        ((1, 30, 1, 10, 0, 1), (30, 25, 24, 20, 15, 10)),
        ((1, 90, 1, 60, 0, 1), (90, 60)),
        ((0, 0, 0, 0, 0, 0), ()),  # of a driver that fills in nothing
    ],
)
def test_of_a_range_of_rates_the_usual_ones_are_given(
    intervals: tuple[int, ...], rates: tuple[int, ...]
) -> None:
    driver = Ranges((32, 1000, 16, 32, 700, 2), intervals)
    modes = list_modes(driver, 0, {"NV12"})
    assert [(mode.width, mode.height) for mode in modes] == [
        (320, 240), (640, 360), (640, 480), (800, 600), (992, 700)
    ]  # fmt: skip
    assert modes[0].rates == rates
