"""Signals of a process that runs an event loop: stop, stop now, reload."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from relayd.logs import LogEvent, get
from relayd.process.early_signals import take_early_hangup

REPEATED_WITHIN = 0.5
"""s within which another stop signal counts as the same one: a Ctrl-C reaches the whole process
group, and a launcher that forwards it sends a second signal."""

_log = get("signals")


class StopStep(Enum):
    """What to do on a stop signal."""

    BEGIN = "begin"
    """The first one: shut down cleanly, closing everything that is open."""
    REMIND = "remind"
    """The second one: report what is pending, and what a third one would do."""
    EXIT = "exit"
    """The third one: end the process at once."""
    NOTHING = "nothing"
    """The same request again."""


class StopSignals:
    """Counts the stop signals of one process."""

    def __init__(self) -> None:
        self._count = 0
        self._last = float("-inf")

    def receive(self, now: float) -> StopStep:
        """Return what to do on a stop signal at `now` (monotonic seconds)."""
        if now - self._last < REPEATED_WITHIN:
            return StopStep.NOTHING
        self._last = now
        self._count += 1
        return {1: StopStep.BEGIN, 2: StopStep.REMIND}.get(self._count, StopStep.EXIT)


@contextmanager
def stopped_by_signals(
    *, hangup_ends: bool = True, exit_now: Callable[[int], Any] = os._exit
) -> Iterator[asyncio.Event]:
    """Return an event that SIGTERM and SIGINT set while the block runs.

    With `hangup_ends` SIGHUP sets it as well, unless `nohup` made it ignored. A second signal logs
    that the session is being closed; a third one ends the process with 128 + its number and leaves
    the session to the journal. The previous handlers are restored at the end.
    """
    loop, stop, signals = asyncio.get_running_loop(), asyncio.Event(), StopSignals()

    def on_signal(number: int) -> None:
        match signals.receive(loop.time()):
            case StopStep.BEGIN:
                stop.set()
            case StopStep.REMIND:
                _log.warning(
                    LogEvent.STOP_PENDING,
                    doing="closing the session",
                    hint="one more signal ends at once; the session is closed by the next start"
                    " or `relayd sessions close`",
                )
            case StopStep.EXIT:
                exit_now(128 + number)

    numbers = [signal.SIGTERM, signal.SIGINT]
    if hangup_ends and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with _handled(numbers, on_signal):
        yield stop


@contextmanager
def reload_requests() -> Iterator[asyncio.Event]:
    """Return an event that each SIGHUP sets while the block runs, unless `nohup` made it ignored.

    It is initially set if a SIGHUP came before the event loop ran.
    """
    requested = asyncio.Event()
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with _handled([] if is_ignored else [signal.SIGHUP], lambda _number: requested.set()):
        if take_early_hangup():
            requested.set()
        yield requested


@contextmanager
def _handled(numbers: list[signal.Signals], handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` in the event loop for these signals while the block runs."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:  # None: not set from Python, nothing to restore
                signal.signal(number, handler)
