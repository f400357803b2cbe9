"""A pipe to a sound server or program, kept almost empty: what waits in it is delay."""

import array
import fcntl
import os
import termios
from contextlib import suppress
from pathlib import Path
from typing import Final

from relayd.sound.blocks import BLOCK_BYTES, Samples

MOST_WAITING: Final = 5 * BLOCK_BYTES
"""Bytes in the pipe at which a block is dropped: nobody reads it, or its reader is slower. Two
blocks come at once, and PipeWire takes more than two at once."""
UNREAD: Final = 5
"""Blocks dropped in a row after which nobody reads: what waits is replaced by what is said now. So
a program that begins to listen hears nothing that is older than that."""
_ALL: Final = 65536
"""Bytes that a pipe holds at most."""


class SoundPipe:
    """The writing end; one thread feeds it and never waits."""

    def __init__(self, fd: int, fifo: Path | None = None) -> None:
        """Take over a descriptor that does not block; that of `fifo`, if it has a name."""
        self._fd, self._fifo = fd, fifo
        self._unread = 0
        self._waiting = array.array("i", [0])
        self.dropped = 0
        """Blocks dropped as too much waited."""

    def feed(self, samples: Samples) -> None:
        """Write one block, or drop it. Raises OSError when the reading end is gone."""
        fcntl.ioctl(self._fd, termios.FIONREAD, self._waiting)
        if self._waiting[0] >= MOST_WAITING:
            self._unread += 1
            if self._fifo is None or self._unread < UNREAD:
                self.dropped += 1
                return
            self._empty(self._fifo)
        self._unread = 0
        try:
            os.write(self._fd, samples.tobytes())  # atomic: less than PIPE_BUF
        except BlockingIOError:
            self.dropped += 1

    def _empty(self, fifo: Path) -> None:
        """Read what nobody else reads."""
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with suppress(BlockingIOError):  # somebody has read it just now
                os.read(fd, _ALL)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close this end."""
        os.close(self._fd)
