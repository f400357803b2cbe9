"""The output clock: what every output shows, and when.

A swapped picture is shown when it arrives, within the limits of an even rate (Cadence). Where none
comes in time, the clock fills in: the last one while it is recent, else what the privacy policy
says.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from threading import Event, Lock, Thread
from typing import Final

from relayd.clock import Clock, MonotonicClock
from relayd.logs import LogEvent, get
from relayd.media.frames import OutputFrame, SourceFrame, StandbyFrame, SwappedFrame, expose_source
from relayd.media.slots import LatestSlot
from relayd.output.base import Output, OutputEvent
from relayd.output.cadence import Cadence
from relayd.output.kept import KeptOutput
from relayd.process.limits import start_thread

_log = get("screen")

HOLD_FOR: Final = 3.0
"""s that the last swapped picture stays: the default of rtc.stall_timeout. A short interruption
is then a freeze without flicker; standby appears as soon as the link is found lost."""
GAP_BOUNDS: Final = (
    *(0.02, 0.035, 0.04, 0.045, 0.05, 0.055, 0.06, 0.065),
    *(0.075, 0.1, 0.15, 0.25, 0.5, 1.0),
)
"""Upper bounds in seconds, inclusive; dense around 1/20, with the 35 to 65 ms that an undisturbed
machine keeps to, and the promised 0.1."""


class Fallback(Enum):
    """What is shown when the last swapped picture is old: `[privacy] fallback`."""

    STANDBY = "standby"
    """The standby picture."""
    HOLD = "hold"
    """The last swapped picture without a time limit; standby before the first."""
    RAW = "raw"
    """The source's own picture, which shows the real face; standby when there is none."""


class Shown(Enum):
    """What kind of picture was shown."""

    FRESH = "fresh"
    """A swapped picture for the first time."""
    REPEATED = "repeated"
    """The last swapped picture again."""
    STANDBY = "standby"
    """The standby picture."""
    RAW = "raw"
    """The source's picture, as `fallback = "raw"` allows."""


@dataclass(slots=True)
class GapHistogram:
    """How long an output's viewers waited between two pictures."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(GAP_BOUNDS) + 1))
    """Gaps in the bucket below each of GAP_BOUNDS, then those above all of them."""
    total: float = 0.0
    """s, the sum of all gaps."""
    longest: float = 0.0
    """s."""

    def add(self, gap: float) -> None:
        """Count one gap of `gap` seconds."""
        self.counts[bisect_left(GAP_BOUNDS, gap)] += 1
        self.total += gap
        self.longest = max(self.longest, gap)

    def copy(self) -> "GapHistogram":
        """Return a snapshot."""
        return GapHistogram(list(self.counts), self.total, self.longest)


@dataclass(frozen=True, slots=True)
class OutputClockStats:
    """Counts since the start."""

    shown: dict[Shown, int]
    skipped: int
    """Ticks left out because the machine (or an output) delayed the thread."""
    gaps: GapHistogram
    lost: tuple[str, ...]
    """Names of the outputs that are broken now."""


class OutputClock:
    """The actor that shows `fps` pictures a second; runs in the thread `relayd-output-clock`.

    The caller opens the outputs before start() and closes them after stop(); they stay open as
    long as they work. One that raises, or could not be opened (`mark_lost`), is closed, reported
    and reopened by a thread of its own, so that the others never wait for it.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        swapped: LatestSlot[SwappedFrame],
        standby: StandbyFrame,
        *,
        fps: float,
        policy: Fallback = Fallback.STANDBY,
        source: LatestSlot[SourceFrame] | None = None,
        hold_for: float = HOLD_FOR,
        clock: Clock | None = None,
        on_shown: Callable[[OutputFrame, Shown, float], None] | None = None,
        on_event: Callable[[OutputEvent], None] | None = None,
    ) -> None:
        """Prepare to show `swapped` on `outputs`; `source` is used only if the policy is RAW.

        `on_shown(frame, kind, at)` is called after each picture is shown; `on_event` from
        any thread of the clock. Neither may block.
        """
        self._swapped = swapped
        self._source = source if policy is Fallback.RAW else None
        self._standby = standby
        self._policy = policy
        self._hold_for = hold_for
        self._fps = fps
        self._clock = clock or MonotonicClock()
        self._on_shown = on_shown or (lambda _frame, _kind, _at: None)
        self._stop, self._wake = Event(), Event()
        self._kept = [
            KeptOutput(
                output,
                stop=self._stop,
                clock=self._clock,
                on_event=on_event or (lambda _event: None),
            )
            for output in outputs
        ]
        swapped.notify(self._wake)
        self._thread: Thread | None = None
        self._arrived = self._number = 0
        self._shown_at: float | None = None
        self._lock = Lock()
        self._counts = dict.fromkeys(Shown, 0)
        self._skipped = 0
        self._gaps = GapHistogram()

    def set_standby(self, frame: StandbyFrame) -> None:
        """Use this standby picture from the next one shown on."""
        self._standby = frame

    def mark_lost(self, output: Output, fault: Exception) -> None:
        """Record, before start(), that `output` could not be opened; it is retried."""
        self._find(output).mark_lost(fault)

    def trouble(self, output: Output) -> str:
        """Why `output` is lost, as in its latest event; empty while it works."""
        return self._find(output).trouble

    def _find(self, output: Output) -> KeptOutput[Output]:
        return next(kept for kept in self._kept if kept.output is output)

    def start(self) -> None:
        """Start showing; raises Unavailable if no thread can be started."""
        thread = Thread(target=self.run, name="relayd-output-clock", daemon=True)
        start_thread(thread)
        self._thread = thread

    def stop(self) -> None:
        """Stop showing and all reopening; the outputs are left as they are."""
        self._stop.set()
        self._wake.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        for kept in self._kept:
            kept.join()

    def stats(self) -> OutputClockStats:
        """Return the counts so far."""
        with self._lock:
            return OutputClockStats(
                dict(self._counts),
                self._skipped,
                self._gaps.copy(),
                tuple(kept.output.name for kept in self._kept if kept.lost),
            )

    def run(self) -> None:
        """Show pictures until stop(); start() does this in a thread."""
        cadence = Cadence(self._fps, self._clock.now())
        reported = ""
        while self._wait(cadence):
            try:
                self._tick(cadence)
            except Exception as fault:  # noqa: BLE001 - the ticks must go on
                if str(fault) != reported:  # 20 times a second would fill the disk
                    reported = str(fault)
                    _log.exception(LogEvent.OUTPUT_TICK_FAILED)

    def _wait(self, cadence: Cadence) -> bool:
        """Wait until the next picture is due; False when the clock was stopped meanwhile."""
        while not self._stop.is_set():
            self._wake.clear()  # before looking, so that no picture is missed
            number, swapped = self._swapped.latest()
            now = self._clock.now()
            if number != self._arrived:
                self._arrived = number
                cadence.arrived(now)
            is_new = number != self._number and swapped is not None and self._fits(swapped)
            due = cadence.due(is_new=is_new)
            if now >= due:
                return True
            self._clock.sleep_until(due, self._wake)
        return False

    def _tick(self, cadence: Cadence) -> None:
        """Show one picture, and have the next one planned."""
        now = self._clock.now()
        try:
            self._show_at(now)
        finally:  # not before the outputs have it: planning may take some ms
            skipped = cadence.shown(now)
            with self._lock:
                self._skipped += skipped

    def _show_at(self, now: float) -> None:
        frame, kind = self._choose(now)
        for kept in self._kept:
            kept.use(lambda output: output.show(frame))
        shown_at = self._clock.now()
        with self._lock:
            self._counts[kind] += 1
            if self._shown_at is not None:
                self._gaps.add(shown_at - self._shown_at)
        self._shown_at = shown_at
        self._on_shown(frame, kind, shown_at)

    def _choose(self, now: float) -> tuple[OutputFrame, Shown]:
        number, swapped = self._swapped.latest()
        if swapped is not None and self._fits(swapped):
            is_new, self._number = number != self._number, number
            is_recent = now - swapped.received_at <= self._hold_for
            if is_new and is_recent:
                return swapped, Shown.FRESH
            if is_recent or self._policy is Fallback.HOLD:
                return swapped, Shown.REPEATED
        if self._source is not None:
            _, raw = self._source.latest()
            if raw is not None and now - raw.captured_at <= self._hold_for:
                exposed = expose_source(raw)
                if self._fits(exposed):
                    return exposed, Shown.RAW
        return self._standby, Shown.STANDBY

    def _fits(self, frame: SwappedFrame) -> bool:
        """Whether it has the size that the outputs were opened with, which never changes."""
        return frame.i420.shape == self._standby.i420.shape
