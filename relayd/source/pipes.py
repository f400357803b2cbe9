"""Reads standard input and named pipes through a descriptor that outlives each connection.

FFmpeg would wait for a named pipe's writer inside open(), where nothing can end it, and would
close the pipe at each loss, which ends the program that writes into it.
"""

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Final

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.source import addresses

_POLL_INTERVAL: Final = 0.1
"""s between checks whether to go on waiting for a silent writer."""


class Pipe:
    """A named pipe, or an open descriptor such as standard input, read from here on."""

    def __init__(self, url: str, name: str) -> None:
        """Open it, without waiting for a writer; `name` replaces the URL in errors.

        Raises SourceUnusable when there is no such pipe, or it may not be read.
        """
        self._name = name
        self._path = addresses.path_of(url)
        self.is_named = not addresses.is_pipe(url)
        """Whether another program may write into it later; standard input ends for good."""
        self.has_ended = False
        """Whether its last writer is gone."""
        try:
            self._fd = self._open(url)
        except OSError as error:
            raise SourceUnusable(f"{name} cannot be read: {error.strerror}") from None

    def _open(self, url: str) -> int:
        if self.is_named:
            return os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        fd = os.dup(addresses.descriptor_of(url))
        os.set_inheritable(fd, False)
        return fd

    def read(self, size: int, is_over: Callable[[], bool]) -> bytes | None:
        """Return up to `size` bytes as soon as there are some; none at the end.

        None if `is_over` becomes true first.
        """
        while not is_over():
            if not self._events() or is_over():
                continue
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                continue
            self.has_ended = not data
            return data
        return None

    def wait_for_writer(self, is_over: Callable[[], bool]) -> bool:
        """Wait until there is something to read; False if `is_over` becomes true first."""
        while not is_over():
            self._follow_path()
            events = self._events()
            if events & select.POLLIN or (events and not self.is_named):
                return True
            if events:  # the last writer is gone, and the next one not there
                time.sleep(_POLL_INTERVAL)
        return False

    def _follow_path(self) -> None:
        """Go on with the pipe at the path: programs remove theirs, and create it again."""
        if not self.is_named or not addresses.is_fifo(self._path):
            return  # a writer may still have the removed one open
        with suppress(OSError):  # removed a moment ago
            if not os.path.samestat(Path(self._path).stat(), os.fstat(self._fd)):
                fd = self._open(self._path)
                os.close(self._fd)
                self._fd = fd

    def _events(self) -> int:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return sum(events for _, events in poll.poll(_POLL_INTERVAL * 1000))

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PipeFeed:
    """What one connection reads of a pipe: FFmpeg's file-like object."""

    def __init__(self, pipe: Pipe, name: str, cancelled: Event) -> None:
        """`cancelled` ends a read that waits."""
        self._pipe, self._cancelled = pipe, cancelled
        self.name = name
        self.fault: SourceError | None = None
        """Why there are no more bytes; None at a plain end."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes as soon as there are some; none at the end."""
        data = self._pipe.read(size, self._cancelled.is_set)
        if not data and self._pipe.is_named:
            self.fault = SourceLost(f"{self.name}: the program that wrote into it is gone")
        return data or b""

    def close(self) -> None:
        """Leave the pipe open for the next connection."""


def open_feed(
    pipe: Pipe, name: str, *, cancelled: Event, limit: float, is_late: Callable[[], bool]
) -> PipeFeed:
    """Return a pipe's feed once there is something to read.

    Raises SourceUnreachable if nothing comes within `limit` seconds, which `is_late` tells, and
    SourceUnusable where nothing can come any more.
    """
    if pipe.has_ended and not pipe.is_named:
        raise SourceUnusable(f"{name} has ended: nothing more comes from there")
    if not pipe.wait_for_writer(lambda: cancelled.is_set() or is_late()):
        raise SourceUnreachable(f"{name}: no program wrote into it within {limit:g} s")
    return PipeFeed(pipe, name, cancelled)
