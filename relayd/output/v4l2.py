"""The part of V4L2 that a virtual camera needs: a few ioctls, named by their effect.

Layouts and numbers are the kernel's include/uapi/linux/videodev2.h; they are the same on
x86-64 and aarch64. Behaviour of v4l2loopback named here was seen with 0.12.7 to 0.15.
"""

import errno
import fcntl
import os
import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction
from typing import Final, Protocol

from relayd.media.frames import Geometry

LOOPBACK_DRIVER: Final = "v4l2 loopback"
"""The driver name in v4l2loopback's answer to QUERYCAP, in all its versions."""
I420_FOURCC: Final = "YU12"
"""V4L2_PIX_FMT_YUV420: planar, Y then U then V."""

KEEP_FORMAT: Final = 0x98F900
"""v4l2loopback's control keep_format: V4L2_CID_USER_BASE | 0xf000."""

CAP_CAPTURE: Final = 0x1
CAP_OUTPUT: Final = 0x2
_CAP_DEVICE_CAPS: Final = 0x80000000

_CAPABILITY = struct.Struct("=16s32s32sIII12x")
# The union of struct v4l2_format holds pointers and so starts at a multiple of their size.
_FORMAT = struct.Struct(f"=I{struct.calcsize('P') - 4}x200s")
_PIX_FORMAT = struct.Struct("=12I")
_STREAM_PARM = struct.Struct("=I200s")
_FRAME_RATE = struct.Struct("=IIII")
_FORMAT_DESCRIPTION = struct.Struct("=III32sI16x")
_BUFFER_TYPE = struct.Struct("=i")
_CONTROL = struct.Struct("=Ii")
_SUBSCRIPTION = struct.Struct("=III20x")
_EVENT = struct.Struct("=I4xI60xII16sI36x")


class BufferType(IntEnum):
    """enum v4l2_buf_type: the side of a device that a call is about."""

    CAPTURE = 1
    OUTPUT = 2


def _request(direction: int, number: int, size: int) -> int:
    """Return an ioctl number of group 'V' (asm-generic/ioctl.h); 1 writes, 2 reads."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


VIDIOC_QUERYCAP: Final = _request(2, 0, _CAPABILITY.size)
VIDIOC_ENUM_FMT: Final = _request(3, 2, _FORMAT_DESCRIPTION.size)
VIDIOC_G_FMT: Final = _request(3, 4, _FORMAT.size)
VIDIOC_S_FMT: Final = _request(3, 5, _FORMAT.size)
VIDIOC_G_CTRL: Final = _request(3, 27, _CONTROL.size)
VIDIOC_STREAMON: Final = _request(1, 18, _BUFFER_TYPE.size)
VIDIOC_G_PARM: Final = _request(3, 21, _STREAM_PARM.size)
VIDIOC_S_PARM: Final = _request(3, 22, _STREAM_PARM.size)
VIDIOC_DQEVENT: Final = _request(2, 89, _EVENT.size)
VIDIOC_SUBSCRIBE_EVENT: Final = _request(1, 90, _SUBSCRIPTION.size)
EVENT_CLIENT_USAGE: Final = 0x10E00001
"""V4L2_EVENT_PRI_CLIENT_USAGE of v4l2loopback since 0.13: how many programs stream from it."""
_SEND_INITIAL = 1

_FIELD_NONE = 1
_COLORSPACE_SMPTE170M = 1
_YCBCR_ENC_601 = 1
_QUANTIZATION_LIMITED = 2


class System(Protocol):
    """The system calls used on a device; tests use a fake of the driver."""

    def open(self, path: str, flags: int) -> int:
        """Return a file descriptor."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def write(self, fd: int, data: memoryview) -> int:
        """Return the number of bytes written."""

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        """Call the driver; `argument` is changed in place."""


class Linux:
    """The real system calls."""

    def open(self, path: str, flags: int) -> int:
        """Return a file descriptor."""
        return os.open(path, flags | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def write(self, fd: int, data: memoryview) -> int:
        """Return the number of bytes written."""
        return os.write(fd, data)

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        """Call the driver; `argument` is changed in place."""
        fcntl.ioctl(fd, request, argument, True)


@dataclass(frozen=True, slots=True)
class Capability:
    """A device's answer to QUERYCAP."""

    driver: str
    card: str
    flags: int
    """Of this node: V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_OUTPUT, …"""

    @property
    def is_loopback(self) -> bool:
        """Whether it is a v4l2loopback device, not a physical camera."""
        return self.driver == LOOPBACK_DRIVER

    @property
    def can_output(self) -> bool:
        """Whether a program may write pictures to it now."""
        return bool(self.flags & CAP_OUTPUT)

    @property
    def can_capture(self) -> bool:
        """Whether programs see it as a webcam now."""
        return bool(self.flags & CAP_CAPTURE)


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """The part of struct v4l2_pix_format that matters here."""

    fourcc: str
    width: int
    height: int
    bytes_per_line: int
    size: int
    """Bytes of one picture; v4l2loopback before 0.15 answers with whole pages of 4096."""

    def holds(self, wanted: "PictureFormat") -> bool:
        """Whether pictures of the format `wanted` are accepted unchanged."""
        return self.size >= wanted.size and self == replace(wanted, size=self.size)


def i420_format(geometry: Geometry) -> PictureFormat:
    """Return the one format that relayd writes."""
    return PictureFormat(
        I420_FOURCC, geometry.width, geometry.height, geometry.width, geometry.nbytes
    )


def query_capability(system: System, fd: int) -> Capability:
    """VIDIOC_QUERYCAP; OSError ENOTTY or EINVAL when it is not a video device."""
    argument = bytearray(_CAPABILITY.size)
    system.ioctl(fd, VIDIOC_QUERYCAP, argument)
    driver, card, _bus, _version, all_flags, node_flags = _CAPABILITY.unpack(argument)
    flags = node_flags if all_flags & _CAP_DEVICE_CAPS else all_flags
    return Capability(_text(driver), _text(card), flags)


def set_format(system: System, fd: int, wanted: PictureFormat) -> PictureFormat:
    """VIDIOC_S_FMT for output; returns the format that the driver set."""
    fields = (
        wanted.width,
        wanted.height,
        int.from_bytes(wanted.fourcc.encode("ascii"), "little"),
        _FIELD_NONE,
        wanted.bytes_per_line,
        wanted.size,
        _COLORSPACE_SMPTE170M,
        0,
        0,
        _YCBCR_ENC_601,
        _QUANTIZATION_LIMITED,
        0,
    )
    argument = bytearray(_FORMAT.pack(BufferType.OUTPUT, _PIX_FORMAT.pack(*fields)))
    system.ioctl(fd, VIDIOC_S_FMT, argument)
    return _picture_format(argument)


def get_format(system: System, fd: int, side: BufferType) -> PictureFormat:
    """VIDIOC_G_FMT; OSError EINVAL when that side has none."""
    argument = bytearray(_FORMAT.pack(side, b""))
    system.ioctl(fd, VIDIOC_G_FMT, argument)
    return _picture_format(argument)


def describe_format(system: System, fd: int, side: BufferType, number: int) -> str:
    """VIDIOC_ENUM_FMT: the FourCC of one format of that side; OSError EINVAL after the last."""
    argument = bytearray(_FORMAT_DESCRIPTION.pack(number, side, 0, b"", 0))
    system.ioctl(fd, VIDIOC_ENUM_FMT, argument)
    return _fourcc_text(_FORMAT_DESCRIPTION.unpack(argument)[4])


def set_frame_rate(system: System, fd: int, fps: Fraction) -> None:
    """VIDIOC_S_PARM: the frame rate that readers see; without it v4l2loopback reports 30.

    It is one setting for both sides. 0.15 accepts it from a writer for the output side only.
    """
    rate = _FRAME_RATE.pack(0, 0, fps.denominator, fps.numerator)
    system.ioctl(fd, VIDIOC_S_PARM, bytearray(_STREAM_PARM.pack(BufferType.OUTPUT, rate)))


def get_frame_rate(system: System, fd: int, side: BufferType) -> float:
    """VIDIOC_G_PARM in frames per second, 0 when it is not known."""
    argument = bytearray(_STREAM_PARM.pack(side, b""))
    system.ioctl(fd, VIDIOC_G_PARM, argument)
    _capability, _mode, numerator, denominator = _FRAME_RATE.unpack_from(argument, 4)
    return float(denominator) / float(numerator) if numerator else 0.0


def has_control(system: System, fd: int, control: int) -> bool:
    """VIDIOC_G_CTRL: whether this control exists and is set."""
    argument = bytearray(_CONTROL.pack(control, 0))
    try:
        system.ioctl(fd, VIDIOC_G_CTRL, argument)
    except OSError:
        return False
    return bool(_CONTROL.unpack(argument)[1])


def mark_as_writer(system: System, fd: int) -> None:
    """VIDIOC_STREAMON for output, so that the driver knows who writes.

    v4l2loopback 0.12 frees the camera for the next writer only if the last one did this,
    even when that one was killed; else it stays unusable until the module is reloaded
    (issues v4l2loopback#442, #470). Later versions do not need it and may answer EINVAL.
    """
    try:
        system.ioctl(fd, VIDIOC_STREAMON, bytearray(_BUFFER_TYPE.pack(BufferType.OUTPUT)))
    except OSError as fault:
        if fault.errno != errno.EINVAL:
            raise


def subscribe_client_usage(system: System, fd: int) -> None:
    """VIDIOC_SUBSCRIBE_EVENT: get an event with the number of readers now and at each change.

    OSError EINVAL if the driver has no such event: v4l2loopback before 0.13.
    """
    argument = bytearray(_SUBSCRIPTION.pack(EVENT_CLIENT_USAGE, 0, _SEND_INITIAL))
    system.ioctl(fd, VIDIOC_SUBSCRIBE_EVENT, argument)


def next_client_usage(system: System, fd: int) -> int | None:
    """VIDIOC_DQEVENT: how many programs read now; None if unchanged since the last call.

    `fd` must be non-blocking. The driver keeps one event: of quick changes only the last is seen.
    """
    argument = bytearray(_EVENT.size)
    try:
        system.ioctl(fd, VIDIOC_DQEVENT, argument)
    except OSError as fault:
        if fault.errno == errno.ENOENT:
            return None
        raise
    count: int = _EVENT.unpack(argument)[1]
    return count


def _picture_format(argument: bytearray) -> PictureFormat:
    _side, union = _FORMAT.unpack(argument)
    width, height, fourcc, _field, line, size = _PIX_FORMAT.unpack_from(union)[:6]
    return PictureFormat(_fourcc_text(fourcc), width, height, line, size)


def _fourcc_text(fourcc: int) -> str:
    return fourcc.to_bytes(4, "little").decode("ascii", "replace")


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
