"""Publishes the sound of a source beside its pictures, without ever holding them up.

`LiveHearing` hands sound on as it arrives. `TimedHearing` is for sources that are read ahead: it
keeps the sound until shortly before it is due, so that none is heard after a pause.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Final, Self

from relayd.clock import Clock
from relayd.errors import Unavailable
from relayd.media.sound import SoundPiece
from relayd.process.limits import start_thread
from relayd.sound.blocks import RATE, OwnSound
from relayd.source.sound_blocks import BlockMaker, clipped
from relayd.source.sound_times import LiveTimes, ScheduledTimes

LEAD: Final = 0.15
"""s before it is due that sound is handed on."""
STEP: Final = 0.1
"""s between looks at what is due."""
MOST_AHEAD: Final = 60.0
"""s of sound that are kept; more is left out, and not even decoded (5.8 MB)."""
MOST_LATE: Final = 2.0
"""s after its time at which sound is left out: nobody waits for it any more."""

Publish = Callable[[OwnSound], None]


class LiveHearing:
    """For live sources; sound may come in another thread than pictures."""

    is_full = False

    def __init__(self, publish: Publish, clock: Clock) -> None:
        self._publish, self._clock = publish, clock
        self._times, self._blocks = LiveTimes(), BlockMaker()
        self._lock = Lock()

    def note_picture(self, pts: float | None, at: float) -> None:
        """Note that a picture of this stamp is published at `at`."""
        if pts is not None:
            with self._lock:
                self._times.note(pts, at)

    def put(self, piece: SoundPiece) -> None:
        """Publish a piece; before the first picture nobody knows where it belongs."""
        length = len(piece.samples) / RATE
        with self._lock:
            at = self._times.at(piece.pts, self._clock.now(), length)
        if at is not None:
            for block in self._blocks.put(piece.samples, at):
                self._publish(block)


@dataclass(slots=True)
class _Round:
    """One run through a recording, or all of a stream."""

    start: float = 0.0
    """When it begins, on the clock."""
    end: float | None = None
    """When the next one begins; None while that is not known."""
    times: ScheduledTimes = field(default_factory=ScheduledTimes)


class TimedHearing:
    """For sources whose pictures are published by a schedule; a context manager.

    Sound is handed on by a thread of its own, which is started when there is some.
    """

    def __init__(self, publish: Publish, clock: Clock) -> None:
        self._publish, self._clock = publish, clock
        self._lock = Lock()
        self._queue: deque[tuple[_Round, SoundPiece]] = deque()
        self._seconds = 0.0
        self._round = _Round()
        self._shift = 0.0
        self._blocks = BlockMaker()
        self._expected: float | None = None
        """When what was handed on last ends."""
        self._stop = Event()
        self._thread = Thread(target=self._run, name="relayd-source-sound", daemon=True)
        self.left_out = 0
        """Pieces that came too late, or too many at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """End the thread; what is not due yet is dropped."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def is_full(self) -> bool:
        """Whether further sound would be left out."""
        return self._seconds >= MOST_AHEAD or self._stop.is_set()

    def put(self, piece: SoundPiece) -> None:
        """Keep a piece until it is due."""
        with self._lock:
            if piece.pts is None or self.is_full:
                self.left_out += 1
                return
            self._seconds += len(piece.samples) / RATE
            self._queue.append((self._round, SoundPiece(piece.samples, piece.pts + self._shift)))
        if self._thread.ident is None:
            self._start()

    def shift(self, seconds: float) -> None:
        """Add so much to the stamps of what is put from now on, as was done to the pictures'."""
        self._shift = seconds

    def note_picture(self, pts: float | None, due: float) -> None:
        """Note when the picture of this stamp is published, at best before that."""
        if pts is not None:
            with self._lock:
                self._round.times.note(pts, due)

    def next_round(self, start: float) -> None:
        """End the present round at `start`; what is put and noted from now on is of the next."""
        with self._lock:
            self._round.end = start
            self._round = _Round(start)

    def _start(self) -> None:
        try:
            start_thread(self._thread)
        except Unavailable:  # then there are pictures without sound
            self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            now = self._clock.now()
            for block in self._due(now):
                self._publish(block)
            self._clock.sleep_until(now + STEP, self._stop)

    def _due(self, now: float) -> list[OwnSound]:
        """Take what is due from the queue, as blocks."""
        blocks: list[OwnSound] = []
        with self._lock:
            while self._queue:
                of, piece = self._queue[0]
                at = of.times.at(piece.pts, self._expected) if piece.pts is not None else None
                if at is None or now + LEAD < at < now + MOST_AHEAD + LEAD:
                    break
                self._queue.popleft()
                self._seconds = max(0.0, self._seconds - len(piece.samples) / RATE)
                self._expected = at + len(piece.samples) / RATE
                samples, begins = clipped(piece.samples, at, of.start, of.end)
                if at > now + LEAD or at < now - MOST_LATE:
                    self.left_out += 1
                elif len(samples):
                    blocks += self._blocks.put(samples, begins)
        return blocks
