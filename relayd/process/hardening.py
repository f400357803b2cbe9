"""What a process asks of the kernel at its start: no dumps of its memory, no life without parent.

Our memory holds pictures of a face, tokens and the account's key. Only the standard library is
imported here: `launcher` runs without any other.
"""

import ctypes
import os
import resource
import signal
from contextlib import suppress
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_CORE_FILTER: Final = "/proc/self/coredump_filter"
"""Which memory a dump holds, core(5); children keep it, also when they become another program."""


def forbid_dumps() -> None:
    """Let no crash write this process's memory to a file or hand it to a crash reporter.

    Children inherit the limit and the filter. The dumpable flag does not survive their exec, so
    those of ours call this, too. From now on /proc/PID belongs to root: other programs of the
    same user cannot look into this process. A kernel that refuses one of these is left at that.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Before the flag, after which the file is root's. No pathlib: it would double the launcher's
    # start.
    with suppress(OSError), open(_CORE_FILTER, "wb", buffering=0) as file:  # noqa: PTH123
        file.write(b"0")
    _prctl(_PR_SET_DUMPABLE, 0)


def is_dumpable() -> bool:
    """Whether the kernel would dump this process, limits aside."""
    return _prctl(_PR_GET_DUMPABLE, 0) != 0


def die_with_parent(parent: int) -> None:
    """Be killed as soon as the thread ends that started this process; at once if that was so.

    `parent` is the process id of that thread's process. Not for a child that a short-lived
    thread starts.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, argument: int) -> int:
    return int(ctypes.CDLL(None).prctl(option, argument, 0, 0, 0))
