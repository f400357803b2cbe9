"""Shared by the output tests: a fake of the v4l2loopback driver, and a scripted clock.

The fake behaves as versions 0.12.7, 0.13.2 and 0.15 were observed to.

It replaces only the driver: open, close, ioctl and write. The pictures go to a real memory
file, so that tests check real bytes. The real module is tested in a virtual machine.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Never

import pytest

from relayd.output import v4l2
from relayd.v4l2 import calls

CAPTURE, OUTPUT = 0x1, 0x2
DEVICE_CAPS = 0x80000000
YU12 = int.from_bytes(b"YU12", "little")
BGR4 = int.from_bytes(b"BGR4", "little")


def refuse(number: int) -> Never:
    raise OSError(number, os.strerror(number))


@dataclass
class FakeLoopback:
    version: str = "0.15.0"
    path: str = "/dev/video0"
    driver: bytes = b"v4l2 loopback"
    card: bytes = b"relayd"
    keep_format: bool = False
    exclusive_caps: bool = True
    open_error: int = 0
    write_error: int = 0
    write_limit: int | None = None
    watched_at: tuple[int, int] | None = None
    """Size that a reader streams at, while there is one."""
    ready_for_output: bool = True
    ready_for_capture: bool = False
    size: tuple[int, int] = (0, 0)
    fps: dict[int, tuple[int, int]] = field(default_factory=dict)
    fds: dict[int, str] = field(default_factory=dict)
    requests: list[int] = field(default_factory=list)
    memory: int = -1
    written: int = 0
    readers: int = 0
    """Programs that stream from it, as reported by the event of 0.13 and later."""
    unreported: set[int] = field(default_factory=set)
    """Descriptors that have subscribed and not yet read the last change."""
    bells: dict[int, socket.socket] = field(default_factory=dict)
    """Signals a subscribed descriptor: urgent data of a socket is POLLPRI as well."""

    def __post_init__(self) -> None:
        self.memory = os.memfd_create("fake-driver")

    @property
    def is_old(self) -> bool:
        return self.version.startswith("0.12")

    @property
    def is_new(self) -> bool:
        return self.version.startswith("0.15")

    def pictures(self) -> bytes:
        return os.pread(self.memory, 1 << 24, 0)

    def drop(self) -> None:
        os.close(self.memory)

    # The system calls

    def open(self, path: str, flags: int) -> int:
        if self.open_error:
            refuse(self.open_error)
        if path != self.path:
            refuse(errno.ENOENT)
        assert flags in {os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK}  # to write; to inspect
        fd = os.dup(self.memory)
        self.fds[fd] = "plain"
        return fd

    def stream_to(self, readers: int) -> None:
        """Let this many programs stream from it from now on."""
        self.readers = readers
        for fd in self.bells:
            self._ring(fd)

    def _ring(self, fd: int) -> None:
        if fd not in self.unreported:
            self.unreported.add(fd)
            self.bells[fd].send(b"!", socket.MSG_OOB)

    def close(self, fd: int) -> None:
        kind = self.fds.pop(fd)
        if fd in self.bells:
            self.bells.pop(fd).close()
            self.unreported.discard(fd)
        os.close(fd)
        if kind == "writer" or (not self.is_old and kind == "wrote"):
            self.ready_for_output = not (self.keep_format and self.is_new)
            is_watched = self.watched_at is not None and not self.is_new
            self.ready_for_capture = self.keep_format or is_watched
        # 0.12: a writer without STREAMON does not free the output side.
        if not self.fds and self.is_old and kind == "wrote" and self.watched_at is None:
            self.ready_for_capture = False

    def write(self, fd: int, data: memoryview) -> int:
        if self.write_error:
            refuse(self.write_error)
        if self.fds[fd] == "plain":
            self.fds[fd] = "wrote"
        self.ready_for_capture, self.ready_for_output = True, False
        data = data[: self.write_limit] if self.write_limit is not None else data
        self.written += 1
        return os.write(fd, data)

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        self.requests.append(request)
        answers: dict[int, Callable[[int, bytearray], None]] = {
            calls.VIDIOC_QUERYCAP: self._querycap,
            v4l2.VIDIOC_S_FMT: self._s_fmt,
            v4l2.VIDIOC_G_FMT: self._g_fmt,
            v4l2.VIDIOC_S_PARM: self._s_parm,
            v4l2.VIDIOC_G_PARM: self._g_parm,
            calls.VIDIOC_STREAMON: self._streamon,
            v4l2.VIDIOC_G_CTRL: self._g_ctrl,
            v4l2.VIDIOC_SUBSCRIBE_EVENT: self._subscribe,
            v4l2.VIDIOC_DQEVENT: self._dqevent,
        }
        if request not in answers:
            refuse(errno.ENOTTY)
        answers[request](fd, argument)

    def _caps(self) -> int:
        if not self.exclusive_caps:
            return CAPTURE | OUTPUT
        return CAPTURE * self.ready_for_capture | OUTPUT * self.ready_for_output

    def _querycap(self, fd: int, argument: bytearray) -> None:
        struct.pack_into("=16s32s32sIII", argument, 0, self.driver, self.card, b"platform:0",
                         0x000F00, DEVICE_CAPS | CAPTURE | OUTPUT, self._caps())  # fmt: skip

    def _s_fmt(self, fd: int, argument: bytearray) -> None:
        (side,) = struct.unpack_from("=I", argument)
        if side != OUTPUT or not self._caps() & OUTPUT:
            refuse(errno.EINVAL)  # videodev's check_fmt
        wanted = struct.unpack_from("=II", argument, 8)
        if self.watched_at and wanted != self.watched_at:
            if self.version.startswith("0.13"):
                refuse(errno.EBUSY)
            self.size = self.watched_at
        else:
            self.size = wanted
        self._g_fmt(fd, argument)
        if not self.is_new:  # they return the size in whole pages
            (size,) = struct.unpack_from("=I", argument, 28)
            struct.pack_into("=I", argument, 28, -(-size // 4096) * 4096)

    def _g_fmt(self, fd: int, argument: bytearray) -> None:
        width, height = self.size
        if not width:  # no format was set yet
            unset = (640, 480, BGR4, 0, 2560, 1228800) if self.is_new else (0, 0, BGR4, 0, 0, 0)
            struct.pack_into("=IIIIII", argument, 8, *unset)
            return
        struct.pack_into(
            "=IIIIII", argument, 8, width, height, YU12, 1, width, width * height * 3 // 2
        )

    def _s_parm(self, fd: int, argument: bytearray) -> None:
        (side,) = struct.unpack_from("=I", argument)
        if side == 1 and self.is_new and not self.ready_for_capture:
            refuse(errno.EINVAL)
        self.fps[1] = struct.unpack_from("=II", argument, 12)

    def _g_parm(self, fd: int, argument: bytearray) -> None:
        struct.pack_into("=II", argument, 12, *self.fps.get(1, (1, 30)))

    def _g_ctrl(self, fd: int, argument: bytearray) -> None:
        control, _ = struct.unpack("=Ii", argument)
        if control != v4l2.KEEP_FORMAT:
            refuse(errno.EINVAL)
        struct.pack_into("=i", argument, 4, self.keep_format)

    def _streamon(self, fd: int, argument: bytearray) -> None:
        if self.is_new:
            refuse(errno.EINVAL)
        self.fds[fd] = "writer"
        self.ready_for_output, self.ready_for_capture = False, True

    def _subscribe(self, fd: int, argument: bytearray) -> None:
        kind, _id, flags = struct.unpack_from("=III", argument)
        if self.is_old or kind != 0x10E00001:
            refuse(errno.EINVAL)
        assert flags == 1  # V4L2_EVENT_SUB_FL_SEND_INITIAL
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            self.bells[fd] = server.accept()[0]
        with client:
            os.dup2(client.fileno(), fd, inheritable=False)
        self._ring(fd)

    def _dqevent(self, fd: int, argument: bytearray) -> None:
        if fd not in self.unreported:
            refuse(errno.ENOENT)
        self.unreported.discard(fd)
        client = socket.socket(fileno=os.dup(fd))
        with client:
            client.recv(1, socket.MSG_OOB)
        struct.pack_into("=I4xI", argument, 0, 0x10E00001, self.readers)


@pytest.fixture
def make() -> Iterator[Callable[..., FakeLoopback]]:
    """Create fake drivers; no descriptor of them may be left open."""
    made: list[FakeLoopback] = []

    class Made(FakeLoopback):
        def __post_init__(self) -> None:
            super().__post_init__()
            made.append(self)

    yield Made
    for driver in made:
        still_open = list(driver.fds)
        driver.drop()
        assert not still_open, "a device was left open"


class ScriptedClock:
    """Time that passes only during sleeps; calls the actions that become due."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` this many seconds after the clock's start."""
        self._due.append((1000.0 + seconds, action))
        self._due.sort(key=lambda entry: entry[0])

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float, stop: Event) -> bool:
        while self._due and self._due[0][0] <= moment and not stop.is_set():
            due, action = self._due.pop(0)
            self.time = max(self.time, due)
            action()
        if not stop.is_set():
            self.time = max(self.time, moment)
        return stop.is_set()


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()
