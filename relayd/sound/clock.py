"""The clock of sound: a call for each 10 ms, in a thread of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final

from relayd.clock import Clock, MonotonicClock
from relayd.logs import LogEvent, get
from relayd.process.limits import start_thread
from relayd.sound.blocks import BLOCK_SECONDS

_log = get("sound")

_TOGETHER: Final = 2
"""Calls made one after the other: to wake up costs more than a call."""
HELD: Final = (_TOGETHER - 1) * BLOCK_SECONDS
"""s after it is due that a call comes at most, on a machine that is never late."""
_CATCH_UP: Final = 2 * BLOCK_SECONDS
"""s of lateness that are made up for at once: outputs hold that much, and their listeners have
used it up meanwhile. After more, ticks are left out: it would remain as delay."""


@dataclass(slots=True)
class SoundClockCounts:
    """Counts since the start."""

    ticks: int = 0
    skipped: int = 0
    """Ticks left out because the machine or `on_tick` was too slow."""


class SoundClock:
    """Calls `on_tick(due)` for each multiple of 10 ms since the start, in `relayd-sound`.

    `due` is when the call was due, monotonic s, not when it came: sound timed by it is even. Two
    calls are made each 20 ms, so every other one comes HELD s late. `on_tick` must take less than
    10 ms. If it raises, that is logged and the ticks go on.
    """

    def __init__(self, on_tick: Callable[[float], None], clock: Clock | None = None) -> None:
        self._on_tick = on_tick
        self._clock = clock or MonotonicClock()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="relayd-sound", daemon=True)
        self._logged = ""
        self.counts = SoundClockCounts()

    def start(self) -> None:
        """Start; only once. Raises Unavailable if no thread can be started."""
        start_thread(self._thread)

    def stop(self) -> None:
        """Stop; returns when the last call has returned."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        due = self._clock.now()
        while not self._clock.sleep_until(due + HELD, self._stop):
            for number in range(_TOGETHER):
                self._tick(due + number * BLOCK_SECONDS)
            due = self._next(due)

    def _tick(self, due: float) -> None:
        self.counts.ticks += 1
        try:
            self._on_tick(due)
        except Exception as fault:  # noqa: BLE001 - the ticks must go on
            if str(fault) != self._logged:  # 100 times a second would fill the disk
                self._logged = str(fault)
                _log.exception(LogEvent.SOUND_TICK_FAILED)

    def _next(self, due: float) -> float:
        """Return when the ticks after those at `due` are due, without those too late to be made."""
        due += _TOGETHER * BLOCK_SECONDS
        late = self._clock.now() - due - HELD
        if late > _CATCH_UP:
            skipped = int(late / BLOCK_SECONDS)
            self.counts.skipped += skipped
            due += skipped * BLOCK_SECONDS
        return due
