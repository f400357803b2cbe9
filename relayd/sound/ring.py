"""Bounded rings for sound: in order and complete, unlike the latest-frame slots of pictures.

`SoundRing` connects threads of one process, `SharedRing` two processes. Each has one writer and
one reader. A writer never blocks; when the reader is too slow, the oldest blocks are dropped and
counted.
"""

import mmap
import os
from collections import deque
from contextlib import ExitStack
from math import ceil
from threading import Condition
from typing import Generic, TypeVar

import numpy as np

from relayd.process.descriptors import wait_readable
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, Samples

T = TypeVar("T")


class SoundRing(Generic[T]):
    """Blocks between two threads, oldest first."""

    def __init__(self, seconds: float) -> None:
        """Hold up to `seconds` of sound."""
        self._limit = max(1, ceil(seconds / BLOCK_SECONDS))
        self._blocks: deque[T] = deque()
        self._changed = Condition()
        self.dropped = 0
        """Blocks dropped because the reader was too slow."""

    def __len__(self) -> int:
        """Return the number of blocks that wait."""
        return len(self._blocks)

    def put(self, block: T) -> None:
        """Add a block; the oldest one is dropped if the ring is full."""
        with self._changed:
            if len(self._blocks) >= self._limit:
                self._blocks.popleft()
                self.dropped += 1
            self._blocks.append(block)
            self._changed.notify_all()

    def take(self, timeout: float = 0.0) -> T | None:
        """Return the oldest block; None when there is none within `timeout` s."""
        with self._changed:
            if not self._blocks and timeout > 0:
                self._changed.wait_for(lambda: self._blocks, timeout)
            return self._blocks.popleft() if self._blocks else None

    def clear(self) -> None:
        """Drop everything: what was said before a mute is not heard after it."""
        with self._changed:
            self._blocks.clear()


class SharedRing:
    """Blocks between two processes, in an anonymous memory file, with an eventfd as doorbell.

    The writer fills the next place, then raises the count of written blocks. The reader copies
    and then checks that the writer has not come round meanwhile, so neither waits for a lock that
    the other may die with. Nothing remains whichever process is killed.
    """

    _HEADER_BYTES = 4096  # one page, so that blocks start aligned

    def __init__(self, capacity: int, memory_fd: int, bell_fd: int) -> None:
        """Map the descriptors of a ring of `capacity` blocks; see `create`."""
        self.capacity = capacity
        self.memory_fd, self.bell_fd = memory_fd, bell_fd
        self._map = mmap.mmap(memory_fd, self._nbytes(capacity))
        self._map.madvise(mmap.MADV_DONTDUMP)  # no voice may get into a core dump
        self._written = np.frombuffer(self._map, np.int64, 1)
        self._stamps = np.frombuffer(self._map, np.int64, capacity, self._HEADER_BYTES)
        self._blocks = np.frombuffer(
            self._map, np.int16, capacity * BLOCK, self._HEADER_BYTES + capacity * 8
        ).reshape(capacity, BLOCK)
        self._read = int(self._written[0])
        self.missed = 0
        """Blocks that were overwritten before this reader took them."""

    @classmethod
    def create(cls, seconds: float, name: str) -> "SharedRing":
        """Create a ring for `seconds` of sound; `name` only appears in /proc/PID/maps."""
        capacity = max(2, ceil(seconds / BLOCK_SECONDS))
        with ExitStack() as undo:
            memory_fd = os.memfd_create(f"relayd-{name}", os.MFD_CLOEXEC)
            undo.callback(os.close, memory_fd)
            os.ftruncate(memory_fd, cls._nbytes(capacity))
            bell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, bell_fd)
            ring = cls(capacity, memory_fd, bell_fd)
            undo.pop_all()
        return ring

    @classmethod
    def _nbytes(cls, capacity: int) -> int:
        return cls._HEADER_BYTES + capacity * (8 + BLOCK * 2)

    @property
    def fds(self) -> tuple[int, int]:
        """The descriptors that the other process must inherit: memory and doorbell."""
        return self.memory_fd, self.bell_fd

    def write(self, samples: Samples, at: float) -> None:
        """Add a block with its time in monotonic seconds."""
        number = int(self._written[0])
        place = number % self.capacity
        self._blocks[place] = samples
        self._stamps[place] = int(at * 1e9)
        self._written[0] = number + 1
        os.eventfd_write(self.bell_fd, 1)

    def read(self) -> tuple[Samples, float] | None:
        """Return the oldest block that was not read yet, with its time; None if there is none."""
        while self._read < (written := int(self._written[0])):
            # The place after the newest block is being written.
            if written - self._read >= self.capacity:
                oldest = written - self.capacity + 1
                self.missed += oldest - self._read
                self._read = oldest
            place = self._read % self.capacity
            samples, stamp = self._blocks[place].copy(), int(self._stamps[place])
            if int(self._written[0]) - self._read < self.capacity:
                self._read += 1
                return samples, stamp / 1e9
        return None

    def clear(self) -> None:
        """Skip what waits; for the reader."""
        self._read = int(self._written[0])

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the doorbell; True when it rang."""
        if not wait_readable((self.bell_fd,), timeout):
            return False
        try:
            os.eventfd_read(self.bell_fd)
        except BlockingIOError:  # another reader of this ring was faster
            return False
        return True

    def close(self) -> None:
        """Unmap and close; the memory is freed when the last process has done so."""
        del self._written, self._stamps, self._blocks
        self._map.close()
        os.close(self.memory_fd)
        os.close(self.bell_fd)
