"""Limits of the system: threads, descriptors, memory, disk space, libraries that do not load."""

import errno
import resource
from threading import Thread

from relayd.errors import LibraryUnavailable, Unavailable, causes

_NO_THREAD = "can't start new thread"
"""The text of threading's RuntimeError when the system refuses a thread."""
_NOT_MAPPED = "failed to map segment"
"""The dynamic linker's message when there is no memory for a library."""
_MEMORY_HINT = "raise ulimit -v, or in a unit MemoryMax="
_REINSTALL = "install relayd again with its dependencies"
_THREAD_HINT = (
    "raise the limits on processes and memory (ulimit -u, ulimit -v;"
    " in a unit TasksMax=, LimitNPROC=, MemoryMax=)"
)


def start_thread(thread: Thread) -> None:
    """Start a thread; raises Unavailable if the system refuses it."""
    try:
        thread.start()
    except RuntimeError as fault:
        if limit_error := error_for(fault):
            raise limit_error from fault
        raise


def error_for(fault: BaseException) -> Unavailable | None:
    """Return the error for the system limit that caused an exception; None if no limit did."""
    for cause in causes(fault):
        if isinstance(cause, MemoryError) or (
            isinstance(cause, ImportError) and _NOT_MAPPED in str(cause)
        ):
            return Unavailable("out of memory", hint=_MEMORY_HINT)
        if isinstance(cause, ImportError):
            return LibraryUnavailable(f"a library cannot be loaded: {cause}", hint=_REINSTALL)
        if isinstance(cause, RuntimeError) and str(cause) == _NO_THREAD:
            return Unavailable("no thread can be started", hint=_THREAD_HINT)
        if isinstance(cause, OSError) and (limit_error := _error_for_errno(cause)):
            return limit_error
    return None


def _error_for_errno(fault: OSError) -> Unavailable | None:
    match fault.errno:
        case errno.EMFILE:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            hint = "raise ulimit -n, or in a unit LimitNOFILE=; a relay needs 64 and more"
            return Unavailable(f"too many open files: the limit is {soft}", hint=hint)
        case errno.ENFILE:
            return Unavailable("the machine has too many open files", hint="raise fs.file-max")
        case errno.ENOMEM:
            return Unavailable("out of memory", hint=_MEMORY_HINT)
        case errno.ENOSPC | errno.EDQUOT:
            where = f" for {fault.filename}" if fault.filename else ""
            return Unavailable(f"no space left on the disk{where}", hint="free some space there")
        case _:
            return None
