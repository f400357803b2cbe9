"""Events for the opening and closing of one file: inotify, through libc.

Python has no binding of its own; two libc calls are all that is needed.
"""

import ctypes
import os
import struct
from enum import Enum
from typing import Final

_OPEN: Final = 0x20
_CLOSE_WRITE: Final = 0x8
_CLOSE_NOWRITE: Final = 0x10
_WATCHED: Final = _OPEN | _CLOSE_WRITE | _CLOSE_NOWRITE
"""Without IN_MODIFY: each picture written would be an event."""
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_HEADER: Final = struct.Struct("=iIII")
_BUFFER_SIZE: Final = 64 * 1024
"""Bytes per read: 4000 events of a single file."""

_libc = ctypes.CDLL(None, use_errno=True)


class FileEvent(Enum):
    """What happened to the file."""

    OPENED = "opened"
    """It was opened. Two openings with no read in between are reported as one."""
    CLOSED = "closed"
    """The last descriptor of an open file was closed; merged like openings."""
    MISSED = "missed"
    """The kernel's queue overflowed; events were lost."""
    GONE = "gone"
    """The file was deleted; no more events will come."""


class FileWatch:
    """Openings and closings of one file from now on, including our own."""

    def __init__(self, path: str) -> None:
        """Watch `path`; raises OSError, with EACCES if we may not read it."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), _WATCHED))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor; it is readable when there are events."""
        return self._fd

    def read(self) -> list[FileEvent]:
        """Return the events since the last read, in order; never blocks."""
        try:
            data = os.read(self._fd, _BUFFER_SIZE)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            _watch, mask, _cookie, name_length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + name_length
            events.append(_event(mask))
        return events

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _event(mask: int) -> FileEvent:
    if mask & _OVERFLOW:
        return FileEvent.MISSED
    if mask & _IGNORED:
        return FileEvent.GONE
    return FileEvent.OPENED if mask & _OPEN else FileEvent.CLOSED


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
