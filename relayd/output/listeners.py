"""Counts the programs that read a microphone, each time that the sound server reports a change."""

from collections.abc import Callable
from contextlib import closing
from threading import Event, Thread
from typing import Final

from relayd.clock import Clock, MonotonicClock
from relayd.errors import MicrophoneUnavailable, Unavailable
from relayd.logs import LogEvent, get
from relayd.process import pactl
from relayd.process.limits import start_thread

RETRY: Final = 5.0
"""s between two attempts to watch again after a failure."""
_SETTLED: Final = 3.0
"""s after which it counts once more: a program may have come before pactl was subscribed."""

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
        settled_at = self._clock.now() + _SETTLED
        with closing(pactl.reports(self._stop)) as reports:
            for number, report in enumerate(reports):
                has_settled = self._clock.now() >= settled_at
                if has_settled:
                    settled_at = float("inf")
                if number == 0 or has_settled or b"source" in report:
                    self._report(self._count())

    def _report(self, listeners: int | None, reason: str = "") -> None:
        if listeners == self._reported:
            return
        self._reported = listeners
        if listeners is None:
            _log.warning(LogEvent.READERS_UNKNOWN, device=self._name, reason=reason)
        else:
            _log.info(LogEvent.READERS_CHANGED, device=self._name, count=listeners)
        self._on_count(listeners)
