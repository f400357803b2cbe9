"""Delivers pictures at an even rate, whatever the source's rate is."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final

from relayd.clock import Clock, MonotonicClock, PhaseLock, Tick, Ticker
from relayd.logs import LogEvent, get
from relayd.media.frames import SourceFrame
from relayd.media.slots import LatestSlot
from relayd.process.limits import start_thread

RATE_WINDOW: Final = 5.0
"""s over which the source's own rate is measured."""
SAME_RATE: Final = 0.005
"""Share by which the source's rate may differ for the ticks to follow its phase: the rate
stays within 0.1 of 20 fps."""

_log = get("pacer")


@dataclass(slots=True)
class PacerCounters:
    """Counts since the pacer was created; they only grow, except `age` and `late`."""

    delivered: int = 0
    repeated: int = 0
    """Ticks that delivered the same picture as the tick before."""
    dropped: int = 0
    """Pictures of the source that a newer one replaced before the next tick."""
    starved: int = 0
    """Ticks with nothing to deliver: no picture, or one too old."""
    skipped: int = 0
    """Ticks left out because the machine or `deliver` was too slow."""
    age: float = 0.0
    """s since the capture of the last delivered picture."""
    late: float = 0.0
    """s by which the last tick was late."""


class Pacer:
    """Calls `deliver` with the newest picture, `fps` times a second, in its own thread.

    A picture is repeated while it is younger than `max_age` seconds; after that, or while
    paused, nothing is delivered. `deliver` must be faster than a tick.
    """

    def __init__(
        self,
        slot: LatestSlot[SourceFrame],
        deliver: Callable[[SourceFrame], None],
        fps: float,
        *,
        max_age: float,
        clock: Clock | None = None,
    ) -> None:
        self._slot, self._deliver, self._fps, self._max_age = slot, deliver, fps, max_age
        self._clock = clock or MonotonicClock()
        self._stop, self._paused = Event(), Event()
        self._rate = _ArrivalRate()
        self._seen = 0
        self._thread = Thread(target=self._run, name="relayd-pacer", daemon=True)
        self.counters = PacerCounters()

    def start(self) -> None:
        """Start ticking; only once. Raises Unavailable if no thread can be started."""
        start_thread(self._thread)

    def stop(self) -> None:
        """Stop; returns when the last delivery is done."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def pause(self) -> None:
        """Deliver nothing until `resume`."""
        self._paused.set()

    def resume(self) -> None:
        """Deliver again."""
        self._paused.clear()

    def _run(self) -> None:
        ticker, phase = Ticker(self._fps, self._clock), PhaseLock(self._fps)
        self._seen = self._slot.latest()[0]
        logged = ""
        while (tick := ticker.wait(self._stop)) is not None:
            try:
                ticker.nudge(self._tick(tick, phase))
            except Exception as fault:  # noqa: BLE001 - a session without pictures costs money
                if str(fault) != logged:  # 20 times a second would fill the disk
                    logged = str(fault)
                    _log.exception(LogEvent.SOURCE_TICK_FAILED)

    def _tick(self, tick: Tick, phase: PhaseLock) -> float:
        """Deliver one picture; returns the seconds by which to shift later ticks."""
        self.counters.skipped += tick.skipped
        self.counters.late = tick.late
        number, frame = self._slot.latest()
        arrived, self._seen = number - self._seen, number
        now = self._clock.now()
        if frame is None or self._paused.is_set() or now - frame.captured_at > self._max_age:
            self.counters.starved += 1
            return 0.0
        if arrived:
            self._rate.note(number, frame.captured_at)
        self._count(arrived, now - frame.captured_at)
        self._deliver(frame)
        if arrived and self._rate.is_near(self._fps):
            return phase.correction(tick.deadline - frame.captured_at)
        return 0.0

    def _count(self, arrived: int, age: float) -> None:
        self.counters.delivered += 1
        self.counters.repeated += arrived == 0
        self.counters.dropped += max(0, arrived - 1)
        self.counters.age = age


class _ArrivalRate:
    """The rate at which pictures arrive, from their numbers and when they were captured."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, number: int, captured_at: float) -> None:
        self._seen.append((captured_at, number))
        while captured_at - self._seen[0][0] > RATE_WINDOW:
            self._seen.popleft()

    def is_near(self, rate: float) -> bool:
        """Whether it equals `rate` within SAME_RATE; False until most of a window was seen."""
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        span = last_at - first_at
        return span > RATE_WINDOW * 0.8 and abs((last - first) / span - rate) <= rate * SAME_RATE
