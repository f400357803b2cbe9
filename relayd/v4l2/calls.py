"""The ioctls of a video device that reading and writing share, named by their effect.

Layouts and numbers are the kernel's include/uapi/linux/videodev2.h; they are the same on
x86-64 and aarch64.
"""

import fcntl
import os
import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, Protocol

LOOPBACK_DRIVER: Final = "v4l2 loopback"
"""The driver name in v4l2loopback's answer to QUERYCAP, in all its versions."""

CAP_CAPTURE: Final = 0x1
CAP_OUTPUT: Final = 0x2
CAP_STREAMING: Final = 0x04000000
_CAP_CAPTURE_PLANES: Final = 0x1000
_CAP_OUTPUT_PLANES: Final = 0x2000
_CAP_CONVERTER: Final = 0x4000 | 0x8000
"""V4L2_CAP_VIDEO_M2M_MPLANE and V4L2_CAP_VIDEO_M2M."""
_CAP_METADATA: Final = 0x00800000
_CAP_DEVICE_CAPS: Final = 0x80000000

_CAPABILITY = struct.Struct("=16s32s32sIII12x")
_FORMAT_DESCRIPTION = struct.Struct("=III32sI16x")
_BUFFER_TYPE = struct.Struct("=i")


class BufferType(IntEnum):
    """enum v4l2_buf_type: the side of a device that a call is about."""

    CAPTURE = 1
    OUTPUT = 2


def request(direction: int, number: int, size: int) -> int:
    """Return an ioctl number of group 'V' (asm-generic/ioctl.h); 1 writes, 2 reads."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


VIDIOC_QUERYCAP: Final = request(2, 0, _CAPABILITY.size)
VIDIOC_ENUM_FMT: Final = request(3, 2, _FORMAT_DESCRIPTION.size)
VIDIOC_STREAMON: Final = request(1, 18, _BUFFER_TYPE.size)
VIDIOC_STREAMOFF: Final = request(1, 19, _BUFFER_TYPE.size)


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


class Role(StrEnum):
    """What a node is there for, as far as a source is concerned."""

    CAPTURE = "capture"
    METADATA = "metadata"
    """Data about the pictures of another node: each webcam has one."""
    CONVERTER = "converter"
    """Takes pictures and gives them back changed: a codec or scaler."""
    PLANES = "separate planes"
    """Captures pictures whose planes lie apart, which FFmpeg cannot read."""
    OUTPUT = "output"
    """Shows pictures that a program gives it."""
    OTHER = "other"


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

    @property
    def role(self) -> Role:
        """What it is there for now."""
        roles = (
            (CAP_CAPTURE, Role.CAPTURE),
            (_CAP_METADATA, Role.METADATA),
            (_CAP_CONVERTER, Role.CONVERTER),
            (_CAP_CAPTURE_PLANES, Role.PLANES),
            (CAP_OUTPUT | _CAP_OUTPUT_PLANES, Role.OUTPUT),
        )
        return next((role for flag, role in roles if self.flags & flag), Role.OTHER)


def query_capability(system: System, fd: int) -> Capability:
    """VIDIOC_QUERYCAP; OSError ENOTTY or EINVAL when it is not a video device."""
    argument = bytearray(_CAPABILITY.size)
    system.ioctl(fd, VIDIOC_QUERYCAP, argument)
    driver, card, _bus, _version, all_flags, node_flags = _CAPABILITY.unpack(argument)
    flags = node_flags if all_flags & _CAP_DEVICE_CAPS else all_flags
    return Capability(_text(driver), _text(card), flags)


def describe_format(system: System, fd: int, side: BufferType, number: int) -> str:
    """VIDIOC_ENUM_FMT: the FourCC of one format of that side; OSError EINVAL after the last."""
    argument = bytearray(_FORMAT_DESCRIPTION.pack(number, side, 0, b"", 0))
    system.ioctl(fd, VIDIOC_ENUM_FMT, argument)
    return fourcc_text(_FORMAT_DESCRIPTION.unpack(argument)[4])


def stop_streaming(system: System, fd: int) -> None:
    """VIDIOC_STREAMOFF for capture: a call that waits for a picture there ends with an error."""
    system.ioctl(fd, VIDIOC_STREAMOFF, bytearray(_BUFFER_TYPE.pack(BufferType.CAPTURE)))


def fourcc_text(fourcc: int) -> str:
    """Return a FourCC as its four letters; the last has bit 7 set where bytes are swapped."""
    return fourcc.to_bytes(4, "little").decode("latin-1")


def fourcc_code(text: str) -> int:
    """Return the FourCC of four letters."""
    return int.from_bytes(text.encode("latin-1"), "little")


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
