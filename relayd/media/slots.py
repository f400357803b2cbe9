"""Latest-frame slots: two stages are connected by one slot with the newest frame, never a queue.

`LatestSlot` is for threads of one process, `SharedSlot` for two processes. A writer never
blocks; each reader keeps the number of the frame it read last and so counts missed ones.
"""

import mmap
import os
from contextlib import ExitStack
from threading import Condition, Event
from typing import Generic, TypeVar

import numpy as np

from relayd.media.frames import I420, Geometry
from relayd.process.descriptors import wait_readable

T = TypeVar("T")


class LatestSlot(Generic[T]):
    """Holds the newest item; any number of readers, one sequence number for all."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._number = 0
        self._item: T | None = None
        self._events: list[Event] = []

    def notify(self, event: Event) -> None:
        """Set `event` at each `put` from now on, for a reader that waits for other things as well.

        The reader clears it before it looks.
        """
        with self._changed:
            self._events.append(event)

    def put(self, item: T) -> None:
        """Make `item` the newest; the previous one is dropped."""
        with self._changed:
            self._number += 1
            self._item = item
            self._changed.notify_all()
            for event in self._events:
                event.set()

    def clear(self) -> None:
        """Drop the item, so that it is not shown again; the numbering continues."""
        with self._changed:
            self._item = None

    def latest(self) -> tuple[int, T | None]:
        """Return the number of the newest item (0: none so far), and the item unless cleared."""
        with self._changed:
            return self._number, self._item

    def wait_newer(self, number: int, timeout: float) -> tuple[int, T | None]:
        """Wait up to `timeout` seconds for an item newer than `number`; else None."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, timeout)
            return (self._number, self._item) if self._number > number else (number, None)


class SharedSlot:
    """The newest I420 picture, shared by two processes.

    One header and three buffers in an anonymous memory file (memfd), so that nothing remains
    whichever process is killed, and an eventfd as doorbell. The writer fills the oldest buffer
    and then updates the number; a reader copies and checks whether the writer has overwritten
    the buffer meanwhile (a seqlock), so neither waits for a lock that the other may die with.
    """

    BUFFERS = 3
    _HEADER_WORDS = 1 + BUFFERS * 2  # newest number; per buffer: its number, its time stamp in ns
    _HEADER_BYTES = 4096  # one page, so that pictures start aligned
    _MOST_TRIES = 100  # no correct writer overtakes a copy so often

    def __init__(self, geometry: Geometry, memory_fd: int, bell_fd: int) -> None:
        self.geometry = geometry
        self.memory_fd, self.bell_fd = memory_fd, bell_fd
        self._map = mmap.mmap(memory_fd, self._HEADER_BYTES + self.BUFFERS * geometry.nbytes)
        self._map.madvise(mmap.MADV_DONTDUMP)  # no face may get into a core dump
        self._header = np.frombuffer(self._map, np.int64, self._HEADER_WORDS)
        self._pictures = np.frombuffer(self._map, np.uint8, offset=self._HEADER_BYTES).reshape(
            self.BUFFERS, *geometry.shape
        )

    @classmethod
    def create(cls, geometry: Geometry, name: str) -> "SharedSlot":
        """Create a slot; `name` only appears in /proc/PID/maps."""
        with ExitStack() as undo:
            memory_fd = os.memfd_create(f"relayd-{name}", os.MFD_CLOEXEC)
            undo.callback(os.close, memory_fd)
            os.ftruncate(memory_fd, cls._HEADER_BYTES + cls.BUFFERS * geometry.nbytes)
            bell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, bell_fd)
            slot = cls(geometry, memory_fd, bell_fd)
            undo.pop_all()
        return slot

    @property
    def fds(self) -> tuple[int, int]:
        """The descriptors that the other process must inherit: memory and doorbell."""
        return self.memory_fd, self.bell_fd

    def write(self, picture: I420, stamp: float) -> None:
        """Copy `picture` in as the newest, with a time stamp in monotonic seconds."""
        number = int(self._header[0]) + 1
        slot = number % self.BUFFERS
        self._header[1 + slot * 2] = -1
        self._pictures[slot] = picture
        self._header[2 + slot * 2] = int(stamp * 1e9)
        self._header[1 + slot * 2] = number
        self._header[0] = number
        os.eventfd_write(self.bell_fd, 1)

    def number(self) -> int:
        """Return the number of the newest picture; 0 before the first."""
        return int(self._header[0])

    def read(self, into: I420, after: int) -> tuple[int, float] | None:
        """Copy the newest picture into `into` if its number is above `after`.

        Returns its number and time stamp, or None when there is nothing newer.
        """
        for _ in range(self._MOST_TRIES):
            if (number := int(self._header[0])) <= after:
                break
            slot = number % self.BUFFERS
            stamp = int(self._header[2 + slot * 2])
            np.copyto(into, self._pictures[slot])
            if int(self._header[1 + slot * 2]) == number:
                return number, stamp / 1e9
        return None

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the doorbell; True when it rang."""
        if not wait_readable((self.bell_fd,), timeout):
            return False
        try:
            os.eventfd_read(self.bell_fd)
        except BlockingIOError:  # another reader of this slot was faster
            return False
        return True

    def close(self) -> None:
        """Unmap and close; the memory is freed when the last process has done so."""
        del self._header, self._pictures
        self._map.close()
        os.close(self.memory_fd)
        os.close(self.bell_fd)
