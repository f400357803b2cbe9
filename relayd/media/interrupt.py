"""Ends FFmpeg's blocking calls early: from another thread, or at a limit that may change.

FFmpeg asks PyAV about ten times a second whether a call that waits for the network is to be
ended. PyAV answers from a time limit that is fixed when a call begins, and offers nothing else.
Without more, an abandoned connection would hold its camera, its port and its thread until then.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, local
from typing import Final

from relayd.media import compat

UNLIMITED: Final = 7 * 24 * 3600.0
"""s for a call that nothing but a cancellation ends, or another part with limits of its own."""


class _Calls(local):
    """What applies to FFmpeg's calls of one thread."""

    cancelled: Event | None = None
    asked = 0
    """Questions since the cancellation."""


_calls = _Calls()
_FAR: float = 1e6
"""s that each question after a cancellation seems later than the one before: past every limit,
also when the call began after it."""


def _now() -> float:
    """Return the time that PyAV compares with its limits: far in the future once cancelled."""
    if _calls.cancelled is None or not _calls.cancelled.is_set():
        return time.monotonic()
    _calls.asked += 1
    return time.monotonic() + _FAR * _calls.asked


@contextmanager
def ended_by(cancelled: Event) -> Iterator[None]:
    """Let `cancelled` end FFmpeg's calls of this thread within about 0.2 s.

    Reads of network protocols end so; a capture device and a file do not. With PyAV 16 the time
    limits alone end them.
    """
    compat.use_clock(_now)
    _calls.cancelled, _calls.asked = cancelled, 0
    try:
        yield
    finally:
        _calls.cancelled = None


class TimeLimit:
    """Seconds that a call may take, asked again when each call begins."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds` is asked in the thread that makes the call."""
        self._seconds = seconds

    def __float__(self) -> float:
        """Return the limit for a call that begins now."""
        return float(max(_SHORTEST, self._seconds()))


_SHORTEST = 0.01
"""s: PyAV takes a negative limit for none at all."""
