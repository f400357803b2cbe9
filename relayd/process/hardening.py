"""Kernel settings of a process at its start: no memory dumps, and to end with its parent.

Our memory contains pictures of a face, tokens and the account's key. Only the standard library
is imported here: `launcher` runs without any other.
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
"""Which memory a dump contains, core(5); children inherit it, also across exec."""


def forbid_dumps() -> None:
    """Prevent a crash from writing this process's memory to a file or to a crash reporter.

    Children inherit the limit and the filter. The dumpable flag does not survive their exec, so
    our own children call this as well. After this /proc/PID belongs to root: other programs of
    the same user cannot inspect this process. Settings that the kernel refuses are skipped.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Before the flag, after which root owns the file. No pathlib: it would double the
    # launcher's start-up time.
    with suppress(OSError), open(_CORE_FILTER, "wb", buffering=0) as file:  # noqa: PTH123
        file.write(b"0")
    _prctl(_PR_SET_DUMPABLE, 0)


def is_dumpable() -> bool:
    """Whether the kernel would dump this process, limits aside."""
    return _prctl(_PR_GET_DUMPABLE, 0) != 0


def die_with_parent(parent: int) -> None:
    """Have this process killed when the thread that started it ends, or now if it already has.

    `parent` is the process id of that thread's process. Not for a child of a short-lived thread.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, argument: int) -> int:
    return int(ctypes.CDLL(None).prctl(option, argument, 0, 0, 0))
