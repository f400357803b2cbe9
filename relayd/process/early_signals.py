"""What signals do to a process before its event loop runs.

The imports of a relay take up to a second. A signal that arrives meanwhile would kill the process
as if it had failed. In a container's first process (PID 1), to which the kernel delivers only
signals that have a handler, it would be lost, and the relay would go on to open a session. Until
the event loop takes over (`signals`) nothing is open, so a stop ends the process at once.

Except for `signal`, only modules that Python has already loaded are imported here.
"""

import os
import signal
from collections.abc import Sequence
from types import FrameType

LONG_RUNNING = frozenset({"run", "demo", "emulator"})
"""Commands that run until a signal ends them: that is a normal end, with exit code 0."""


class _Early:
    """Signals received before the event loop took over."""

    hangup = False


def command_of(argv: Sequence[str]) -> str:
    """Return the command in a command line; empty if there is none."""
    return next((word for word in argv[1:] if not word.startswith("-")), "")


def handle_early_signals(command: str) -> None:
    """Set the handlers of SIGTERM, SIGINT and SIGHUP until the event loop takes over.

    A hang-up that `nohup` ignores stays ignored. Commands that end by themselves keep Python's
    handlers, except that SIGTERM also ends them as PID 1.
    """
    if command not in LONG_RUNNING:
        if os.getpid() == 1:
            signal.signal(signal.SIGTERM, _exit_by_signal)
        return
    signal.signal(signal.SIGINT, _exit_cleanly)
    if command != "emulator" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _exit_cleanly if hangup_ends(command) else _note_hangup)
    signal.signal(signal.SIGTERM, _exit_cleanly)


def hangup_ends(command: str) -> bool:
    """Whether SIGHUP means that the terminal is gone; otherwise it requests a reload.

    Only a relay that reads a file can reload. One that was started from a terminal, and not by a
    service manager, ends with it.
    """
    return command != "run" or (os.isatty(0) and not os.environ.get("NOTIFY_SOCKET"))


def take_early_hangup() -> bool:
    """Return and reset whether a reload was requested before the event loop took over."""
    was, _Early.hangup = _Early.hangup, False
    return was


def _exit_cleanly(_number: int, _frame: FrameType | None) -> None:
    # A module that is being imported could swallow an exception; there is nothing to undo yet.
    os._exit(0)


def _exit_by_signal(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _note_hangup(_number: int, _frame: FrameType | None) -> None:
    _Early.hangup = True
