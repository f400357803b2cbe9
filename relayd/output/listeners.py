"""Counts the programs that read a microphone, each time that the sound server reports a change."""

import os
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Final

from relayd.clock import Clock, MonotonicClock
from relayd.errors import MicrophoneUnavailable, Unavailable
from relayd.logs import LogEvent, get
from relayd.output.pulse import environment_for_pactl, pactl_path
from relayd.process.child import Child
from relayd.process.descriptors import wait_readable
from relayd.process.limits import start_thread

RETRY: Final = 5.0
"""s between two attempts to watch again after a failure."""
_LOOK: Final = 0.2
"""s after which the thread checks whether it should end."""
_SETTLED: Final = 3.0
"""s after which it counts once more: a program may have come before pactl was subscribed."""
_REPORT_BYTES: Final = 65536

_log = get("readers")


class ListenersWatch:
    """Runs in the thread `relayd-listeners`; `pactl subscribe` tells when to count."""

    def __init__(
        self,
        name: str,
        count: Callable[[], int],
        on_count: Callable[[int | None], None],
        *,
        clock: Clock | None = None,
    ) -> None:
        """`count` returns the number of programs, or raises MicrophoneUnavailable.

        `on_count` gets it now and at each change, from the thread; None when it is unknown.
        """
        self._name, self._count, self._on_count = name, count, on_count
        self._clock = clock or MonotonicClock()
        self._stop = Event()
        self._reported: int | None = -1
        self._thread = Thread(target=self._run, name="relayd-listeners", daemon=True)

    def start(self) -> None:
        """Start watching; only once. If that is not possible, the listeners are unknown."""
        try:
            start_thread(self._thread)
        except Unavailable as fault:
            self._report(None, str(fault))

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except (MicrophoneUnavailable, OSError) as fault:
                self._report(None, str(fault))
            self._clock.sleep_until(self._clock.now() + RETRY, self._stop)

    def _watch(self) -> None:
        """Count now and at each report, until the server ends or this is stopped."""
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
            child = Child.start_program(
                [pactl_path(), "subscribe"], stderr=nowhere, environment=environment_for_pactl()
            )
        try:
            self._report(self._count())
            settled_at = self._clock.now() + _SETTLED
            while not self._stop.is_set():
                if self._clock.now() >= settled_at:
                    settled_at = float("inf")
                    self._report(self._count())
                if not wait_readable((child.stdout.fileno(),), _LOOK):
                    continue
                text = os.read(child.stdout.fileno(), _REPORT_BYTES)
                if not text:
                    return
                if b"source" in text:
                    self._report(self._count())
        finally:
            child.kill()
            child.end(0)
            for end in (child.stdin, child.stdout):
                with suppress(OSError):
                    end.close()

    def _report(self, listeners: int | None, reason: str = "") -> None:
        if listeners == self._reported:
            return
        self._reported = listeners
        if listeners is None:
            _log.warning(LogEvent.READERS_UNKNOWN, device=self._name, reason=reason)
        else:
            _log.info(LogEvent.READERS_CHANGED, device=self._name, count=listeners)
        self._on_count(listeners)
