"""What the kernel tells of one file's opening and closing: inotify, through libc.

Python has no binding of its own; three calls are all that is needed.
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
"""Without IN_MODIFY: each picture written would be one."""
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_HEAD: Final = struct.Struct("=iIII")
_ROOM: Final = 64 * 1024
"""Bytes of one read: 4000 events of a single file."""

_libc = ctypes.CDLL(None, use_errno=True)


class FileEvent(Enum):
    """What happened to the file."""

    OPENED = "opened"
    """Somebody opened it. Two openings in a row that nobody read in between are told as one."""
    CLOSED = "closed"
    """The last descriptor of an opening was closed; told as one like openings."""
    MISSED = "missed"
    """More happened than the kernel kept for us."""
    GONE = "gone"
    """The file was deleted; nothing more will be told."""


class FileWatch:
    """Openings and closings of one file from now on, our own ones too."""

    def __init__(self, path: str) -> None:
        """Watch `path`; raises OSError, EACCES where we may not read it."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), _WATCHED))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, which can be read when something happened."""
        return self._fd

    def read(self) -> list[FileEvent]:
        """Return what happened since the last read, in its order; never waits."""
        try:
            data = os.read(self._fd, _ROOM)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            _watch, mask, _cookie, name_length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + name_length
            events.append(_event(mask))
        return events

    def close(self) -> None:
        """Let go of the descriptor."""
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
