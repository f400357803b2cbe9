"""Runs in the guest: a program that watches a camera as browsers do, with mapped buffers.

    reader.py DEVICE [BUFFERS]

Each line on stdin ends a chapter: then it tells, as one JSON object, how many pictures came in
it, the longest time between two of them (the last one open-ended), their kinds by CRC-32 with
the count of each, the driver's numbers of the first and last, and errors. Only the standard
library: it starts in 1 s.
"""

import fcntl
import json
import mmap
import os
import select
import struct
import sys
import time
import zlib
from collections.abc import Callable
from typing import TypeVar

CAPTURE, MMAP = 1, 1
Measured = TypeVar("Measured")
BUFFER = struct.Struct("=IIIII4x16s16sIIQIII4x")
"""struct v4l2_buffer on 64 bit: index, type, bytesused, flags, field, timestamp, timecode,
sequence, memory, m, length, reserved2, request_fd."""


def request(direction: int, number: int, size: int) -> int:
    """Return an ioctl number of group 'V'."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


REQBUFS, STREAMON = request(3, 8, 20), request(1, 18, 4)
QUERYBUF, QBUF, DQBUF = (request(3, number, BUFFER.size) for number in (9, 15, 17))
G_FMT = request(3, 4, 208)


class Stream:
    """A streaming device."""

    def __init__(self, path: str, buffers: int) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        form = bytearray(struct.pack("=I204x", CAPTURE))
        fcntl.ioctl(self.fd, G_FMT, form)
        width, height, _fourcc, _field, _line, self.size = struct.unpack_from("=IIIIII", form, 8)
        self.size = width * height * 3 // 2
        asked = bytearray(struct.pack("=IIIII", buffers, CAPTURE, MMAP, 0, 0))
        fcntl.ioctl(self.fd, REQBUFS, asked)
        self.maps = [self._map(index) for index in range(struct.unpack_from("=I", asked)[0])]
        for index in range(len(self.maps)):
            self._queue(index)
        fcntl.ioctl(self.fd, STREAMON, struct.pack("=i", CAPTURE))

    def _buffer(self, index: int) -> bytearray:
        return bytearray(BUFFER.pack(index, CAPTURE, 0, 0, 0, b"", b"", 0, MMAP, 0, 0, 0, 0))

    def _map(self, index: int) -> mmap.mmap:
        about = self._buffer(index)
        fcntl.ioctl(self.fd, QUERYBUF, about)
        fields = BUFFER.unpack(about)
        return mmap.mmap(self.fd, fields[10], mmap.MAP_SHARED, mmap.PROT_READ, offset=fields[9])

    def _queue(self, index: int) -> None:
        fcntl.ioctl(self.fd, QBUF, self._buffer(index))

    def take(self, measure: Callable[[memoryview], Measured]) -> tuple[int, Measured]:
        """Return the next picture's number and what `measure` says of it."""
        about = self._buffer(0)
        fcntl.ioctl(self.fd, DQBUF, about)
        fields = BUFFER.unpack(about)
        measured = measure(memoryview(self.maps[fields[0]])[: self.size])
        self._queue(fields[0])
        return fields[7], measured


class Chapter:
    """What came since the host last asked."""

    def __init__(self, last: float) -> None:
        self.last, self.pictures, self.longest = last, 0, 0.0
        self.first = 0.0
        self.kinds: dict[int, int] = {}
        self.numbers: list[int] = []
        self.errors: list[str] = []

    def add(self, number: int, crc: int) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        self.first = self.first or now
        self.pictures += 1
        self.kinds[crc] = self.kinds.get(crc, 0) + 1
        self.numbers = [*self.numbers[:1], number]

    def tell(self) -> None:
        now = time.monotonic()
        told = {
            "pictures": self.pictures,
            "first": self.first,
            "last": self.last,
            "longest": round(max(self.longest, now - self.last), 3),
            "kinds": self.kinds,
            "numbers": self.numbers,
            "errors": self.errors,
        }
        print(json.dumps(told), flush=True)  # noqa: T201 - this is how it tells


def main() -> None:
    """Watch until stdin ends."""
    stream = Stream(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4)
    print("reader ready", flush=True)  # noqa: T201
    poll = select.poll()
    poll.register(stream.fd, select.POLLIN)
    poll.register(0, select.POLLIN)
    chapter = Chapter(time.monotonic())
    while True:
        for fd, event in poll.poll():
            if fd == 0:
                if not os.read(0, 1 << 12):
                    return
                chapter.tell()
                chapter = Chapter(chapter.last)
            elif event & ~select.POLLIN:
                chapter.errors.append(f"poll {event:#x}")
                poll.unregister(stream.fd)
            else:
                try:
                    chapter.add(*stream.take(zlib.crc32))
                except BlockingIOError:
                    continue
                except OSError as fault:
                    chapter.errors.append(str(fault))


if __name__ == "__main__":
    main()
