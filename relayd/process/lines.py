"""Lines from a child that may write anything: of bounded length, read with a time limit."""

import os
from typing import Final

from relayd.process.descriptors import wait_readable

_READ_AT_ONCE: Final = 64 * 1024
"""Bytes: the capacity of a pipe."""


class LineTooLong(ValueError):
    """A line exceeds its limit."""


class LineReader:
    """Splits the data from a descriptor into lines of at most `largest` bytes."""

    def __init__(self, fd: int, *, largest: int) -> None:
        """Read from `fd`, which the caller keeps and closes."""
        self._fd, self._largest = fd, largest
        self._partial = bytearray()
        self.at_end = False
        """Whether the writer has closed; there will be no more data."""

    def read(self, timeout: float) -> list[bytes]:
        """Wait up to `timeout` seconds for data; return the lines that it completes.

        Raises LineTooLong.
        """
        if self.at_end or not wait_readable((self._fd,), timeout):
            return []
        data = os.read(self._fd, _READ_AT_ONCE)
        if not data:
            self.at_end = True
            return []
        self._partial += data
        *lines, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        if max(map(len, (*lines, rest))) > self._largest:
            raise LineTooLong(f"a line of more than {self._largest} bytes")
        return lines
