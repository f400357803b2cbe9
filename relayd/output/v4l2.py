"""The part of V4L2 that a virtual camera needs: a few ioctls, named by their effect.

Layouts and numbers are the kernel's include/uapi/linux/videodev2.h; they are the same on
x86-64 and aarch64. Behaviour of v4l2loopback named here was seen with 0.12.7 to 0.15.
"""

import errno
import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from relayd.media.frames import Geometry
from relayd.v4l2.calls import VIDIOC_STREAMON, BufferType, System, fourcc_text, request

I420_FOURCC: Final = "YU12"
"""V4L2_PIX_FMT_YUV420: planar, Y then U then V."""

KEEP_FORMAT: Final = 0x98F900
"""v4l2loopback's control keep_format: V4L2_CID_USER_BASE | 0xf000."""

# The union of struct v4l2_format holds pointers and so starts at a multiple of their size.
_FORMAT = struct.Struct(f"=I{struct.calcsize('P') - 4}x200s")
_PIX_FORMAT = struct.Struct("=12I")
_STREAM_PARM = struct.Struct("=I200s")
_FRAME_RATE = struct.Struct("=IIII")
_BUFFER_TYPE = struct.Struct("=i")
_CONTROL = struct.Struct("=Ii")
_SUBSCRIPTION = struct.Struct("=III20x")
_EVENT = struct.Struct("=I4xI60xII16sI36x")

VIDIOC_G_FMT: Final = request(3, 4, _FORMAT.size)
VIDIOC_S_FMT: Final = request(3, 5, _FORMAT.size)
VIDIOC_G_CTRL: Final = request(3, 27, _CONTROL.size)
VIDIOC_G_PARM: Final = request(3, 21, _STREAM_PARM.size)
VIDIOC_S_PARM: Final = request(3, 22, _STREAM_PARM.size)
VIDIOC_DQEVENT: Final = request(2, 89, _EVENT.size)
VIDIOC_SUBSCRIBE_EVENT: Final = request(1, 90, _SUBSCRIPTION.size)
EVENT_CLIENT_USAGE: Final = 0x10E00001
"""V4L2_EVENT_PRI_CLIENT_USAGE of v4l2loopback since 0.13: how many programs stream from it."""
_SEND_INITIAL = 1

_FIELD_NONE = 1
_COLORSPACE_SMPTE170M = 1
_YCBCR_ENC_601 = 1
_QUANTIZATION_LIMITED = 2


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
    return PictureFormat(fourcc_text(fourcc), width, height, line, size)
