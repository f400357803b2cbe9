"""Detects a resume without logind, by a timerfd that is cancelled when the clock is set.

After a sleep the kernel sets the wall clock, so a timer on that clock with TFD_TIMER_CANCEL_ON_SET
becomes readable: no polling. Whether the computer slept or its clock was set shows in the time that
CLOCK_BOOTTIME counted and CLOCK_MONOTONIC did not. Python has timerfd from 3.13 on; two calls of
libc are enough.
"""

import ctypes
import errno
import os
import time
from typing import Final

_CANCELLED_BY_SETTING: Final = 1 << 0 | 1 << 1
"""TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET."""
_NEVER: Final = (1 << 63) - 1
"""s since 1970 at which the timer expires: the last second of time_t."""
_COUNTER: Final = 8
"""Bytes of the counter that a timerfd returns."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class ClockChanges:
    """A descriptor that becomes readable when the wall clock is set, as at each resume."""

    def __init__(self) -> None:
        """Watch from now on; raises OSError if the kernel or a sandbox has no timerfd."""
        self._fd = _checked(_libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC))
        never = _Itimerspec(_Timespec(0, 0), _Timespec(_NEVER, 0))
        try:
            _checked(
                _libc.timerfd_settime(
                    self._fd, _CANCELLED_BY_SETTING, ctypes.byref(never), ctypes.c_void_p()
                )
            )
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def changed(self) -> bool:
        """Whether the clock was set since the last call; never waits."""
        try:
            os.read(self._fd, _COUNTER)
        except BlockingIOError:
            return False
        except OSError as fault:
            if fault.errno != errno.ECANCELED:
                raise
        return True

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def time_slept() -> float:
    """Return the seconds that this computer has slept since its boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
