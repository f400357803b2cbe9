"""Delivers pictures at an even rate, whatever the source's rate is, each when it arrives."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread

from relayd.clock import Clock, MonotonicClock
from relayd.logs import LogEvent, get
from relayd.media.frames import SourceFrame
from relayd.media.slots import LatestSlot
from relayd.process.limits import start_thread
from relayd.source.share import EvenShare

_log = get("pacer")


@dataclass(slots=True)
class PacerCounters:
    """Counts since the pacer was created; they only grow, except `age` and `late`."""

    delivered: int = 0
    repeated: int = 0
    """Deliveries of the same picture as before, as no other one came in time."""
    dropped: int = 0
    """Pictures of the source that an even share of it does not need."""
    starved: int = 0
    """Ticks with nothing to deliver: no picture, or one too old."""
    skipped: int = 0
    """Ticks left out because the machine or `deliver` was too slow."""
    age: float = 0.0
    """s since the capture of the last delivered picture."""
    late: float = 0.0
    """s by which the last delivery was late."""


class Pacer:
    """Calls `deliver` with pictures at `fps` a second, in its own thread.

    Those that make an even share of the source are delivered when they arrive (EvenShare). A
    picture is repeated while it is younger than `max_age` seconds; after that, or while paused,
    nothing is delivered. `deliver` must take less than 1/fps seconds.
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
        self._wake = Event()
        """Set when there is something to look at: a picture, a resume, the stop."""
        self._seen = self._delivered = 0
        self._thread = Thread(target=self._run, name="relayd-pacer", daemon=True)
        self.counters = PacerCounters()
        slot.ring(self._wake)

    def start(self) -> None:
        """Start delivering; only once. Raises Unavailable if no thread can be started."""
        start_thread(self._thread)

    def stop(self) -> None:
        """Stop; returns when the last delivery is done."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def pause(self) -> None:
        """Deliver nothing until `resume`."""
        self._paused.set()

    def resume(self) -> None:
        """Deliver again."""
        self._paused.clear()
        self._wake.set()

    def _run(self) -> None:
        share = EvenShare(self._fps, self._clock.now())
        self._seen = self._delivered = self._slot.latest()[0]
        logged = ""
        while not self._stop.is_set():
            self._wake.clear()  # before looking, so that no picture is missed
            try:
                due = self._deliver_if_due(share)
            except Exception as fault:  # noqa: BLE001 - a session without pictures costs money
                if str(fault) != logged:  # 20 times a second would fill the disk
                    logged = str(fault)
                    _log.exception(LogEvent.SOURCE_TICK_FAILED)
            else:
                if due is not None:
                    self._clock.sleep_until(due, self._wake)

    def _deliver_if_due(self, share: EvenShare) -> float | None:
        """Deliver the newest picture if it is time for that; else return when it will be."""
        number, frame = self._slot.latest()
        now = self._clock.now()
        if frame is not None and number > self._seen:
            share.arrived(frame.captured_at, number - self._seen)
        self._seen = number
        is_deliverable = (
            frame is not None
            and not self._paused.is_set()
            and now - frame.captured_at <= self._max_age
        )
        due = share.moment() if is_deliverable else share.deadline
        if now < due:
            return due
        self.counters.late = now - due
        arrived, self._delivered = number - self._delivered, number
        if frame is None or not is_deliverable:
            self.counters.starved += 1
            self.counters.skipped += share.starved(now)
            return None
        self.counters.skipped += share.handed_on(now)
        self._count(arrived, now - frame.captured_at)
        self._deliver(frame)
        return None

    def _count(self, arrived: int, age: float) -> None:
        self.counters.delivered += 1
        self.counters.repeated += arrived == 0
        self.counters.dropped += max(0, arrived - 1)
        self.counters.age = age
