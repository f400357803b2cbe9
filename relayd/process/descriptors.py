"""File descriptors: waiting for them whatever their number, and not passing them to children."""

import os
import select
from collections.abc import Iterable


def wait_readable(fds: Iterable[int], timeout: float) -> set[int]:
    """Wait up to `timeout` seconds for data or an end; return the descriptors that have it.

    It uses poll: select raises ValueError for a descriptor of 1024 or more.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(max(0.0, timeout) * 1000)}


def keep_from_children(fds: Iterable[int]) -> None:
    """Close these descriptors in every program that this process, or a library in it, starts.

    For a process that inherited them: inherited descriptors stay inheritable. Raises OSError if
    one is not open.
    """
    for fd in fds:
        os.set_inheritable(fd, False)
