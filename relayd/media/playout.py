"""When to play what arrives in bursts: a sender's clock mapped to ours, and an adaptive buffer.

Pure arithmetic on stamps and arrival times, for pictures and for sound: nothing here waits, reads
a clock or knows what is played. All times are seconds; `at` and `now` are on the local clock.

A stamp becomes a media time (continuous, whatever the stamps do), and a media time is due at
`media + alignment`. The smallest `arrival - media` of the last seconds is the way of the fastest
packet; what others take longer is their lateness, and the largest lateness seen lately is the
delay that the buffer needs. The alignment follows that need: at once upwards when the buffer ran
dry, otherwise so slowly that nobody sees it.
"""

from collections import deque
from typing import Final

WINDOW: Final = 10.0
"""s in which the smallest `arrival - media` is looked for: longer than most segments, short
enough to follow the drift of two clocks (1 ms in 10 s at 100 ppm)."""
MEMORY: Final = 30.0
"""s that a late arrival is remembered, and the buffer kept large enough for the next one."""
LONGEST_PAUSE: Final = 10.0
"""s that stamps may step ahead of their arrival; a longer step is another time line."""
LONGEST_STEP_BACK: Final = 0.5
"""s that stamps may run back (pictures stored out of order); more is another time line."""
LONGEST_DELAY: Final = 20.0
"""s of delay at most; a source that stood for longer is taken up where it is."""
GROWTH: Final = 0.05
"""Share of the time by which the delay grows at most while nothing is late: slow motion by 5 %."""
SHRINKING: Final = 0.04
"""Share of the time by which the delay shrinks: one picture of 25 is left out."""
TOLERANCE: Final = 0.02
"""s by which the delay may differ from the need: less than a picture, so that it rests."""
LARGEST_SURPLUS: Final = 3.0
"""s (or the need, if larger) that are worn off slowly; more is given up at once, by a jump."""
SETTLING: Final = 3.0
"""s (and a burst) after the start in which surplus is given up at once: servers send what they
hold first, and the newest segment is of any age until the next one comes."""
SMALL_SURPLUS: Final = 0.3
"""s that are worn off even then: too little for a jump."""
FALL: Final = 0.01
"""s by which the smallest `arrival - media` has to fall for one packet to count: not by jitter."""
SETTLED: Final = 0.3
"""s without such a fall, after which what is held is all that was held back for us."""
HELD_FOR: Final = 10.0
"""s for which a sender that had to wait for us is left at its pace: it would send any amount."""
USUAL_STEP: Final = 0.04
"""s between two stamps until some were seen."""
_AVERAGING: Final = 0.1
"""Weight of the newest step in the average."""


class ClockMapping:
    """Maps a sender's stamps to media times, and media times to their earliest arrival.

    Media times continue over wraps, jumps and restarts of the stamps: what is no plausible
    continuation becomes the next step.
    """

    def __init__(self, window: float = WINDOW) -> None:
        """Look for the smallest `arrival - media` in the last `window` seconds."""
        self._window = window
        self._shift = 0.0
        self._step = USUAL_STEP
        self._stamp: float | None = None
        self._newest: float | None = None
        self._newest_at = 0.0
        self._smallest: deque[tuple[float, float]] = deque()  # (at, arrival - media), increasing
        self.lateness = 0.0
        """How much longer than the fastest packet before it the last one took, s."""
        self.fell_at = float("-inf")
        """When the smallest last fell: while it keeps falling, more is sent than is played."""

    @property
    def offset(self) -> float:
        """The smallest `arrival - media` of the window; 0.0 before the first arrival."""
        return self._smallest[0][1] if self._smallest else 0.0

    @property
    def newest(self) -> float | None:
        """The largest media time that has arrived; None before the first."""
        return self._newest

    def arrived(self, stamp: float | None, at: float) -> float:
        """Return the media time of what is stamped `stamp` and arrived at `at`.

        Without a stamp, or with the same one again, it is as much later than the last one as it
        arrived later: some cameras stamp everything with 0.
        """
        if self._newest is None:
            media = stamp if stamp is not None else at
        elif stamp is None or stamp == self._stamp:
            media = self._newest + max(0.0, at - self._newest_at)
        else:
            media = self._continued(stamp, at)
        self._stamp = stamp
        self._note(media, at)
        return media

    def _continued(self, stamp: float, at: float) -> float:
        assert self._newest is not None
        media = stamp + self._shift
        step = media - self._newest
        ahead = step - (at - self._newest_at)
        if step < -LONGEST_STEP_BACK or (step > 0 and ahead > LONGEST_PAUSE):
            media = self._newest + self._step
            self._shift = media - stamp
        elif 0 < step < 1.0:
            self._step += (step - self._step) * _AVERAGING
        return media

    def _note(self, media: float, at: float) -> None:
        way = at - media
        self.lateness = max(0.0, way - self.offset) if self._smallest else 0.0
        if not self._smallest or way < self.offset - FALL:
            self.fell_at = at
        while self._smallest and self._smallest[-1][1] >= way:
            self._smallest.pop()
        self._smallest.append((at, way))
        while at - self._smallest[0][0] > self._window:
            self._smallest.popleft()
        if self._newest is None or media >= self._newest:
            self._newest, self._newest_at = media, at


class AdaptiveBuffer:
    """Says when each item is due, as soon as may be without a pause.

    Call `arrived` with each item as it arrives and `due` with each in the order of playing; both
    by one thread at a time.
    """

    def __init__(self, *, burst: float = 0.0, margin: float = 0.05) -> None:
        """Start with the delay for bursts of `burst` s each, if the source is known to send such.

        `margin` s are kept beyond the need that was seen.
        """
        self._burst, self._margin = burst, margin
        self._memory = max(MEMORY, 4 * burst)
        self._longest = max(LONGEST_DELAY, 2 * burst)
        self.mapping = ClockMapping(max(WINDOW, 2 * burst))
        self._late: deque[tuple[float, float]] = deque()  # (at, lateness), decreasing
        self._first_at = self._first_way = self._first_burst = 0.0
        self._started_at: float | None = None
        self._controlled_at = 0.0
        self._held_at = self._given_up = float("-inf")
        self._alignment = 0.0
        self.underruns = 0
        """Times that an item arrived after it was due."""

    @property
    def delay(self) -> float:
        """Seconds that the fastest item waits: what smoothness costs. 0.0 before the start."""
        if self._started_at is None:
            return 0.0
        return max(0.0, self._alignment - self.mapping.offset)

    @property
    def need(self) -> float:
        """Seconds of delay that the arrivals seen lately ask for."""
        seen = self._late[0][1] if self._late else 0.0
        return min(seen + self._margin, self._longest)

    @property
    def burst(self) -> float:
        """Seconds that may arrive at once, and so for how long nothing may arrive after them."""
        seen = self._late[0][1] if self._late else self._burst
        return min(max(seen, self._first_burst), self._longest)

    def arrived(self, stamp: float | None, at: float, *, held: bool = False) -> float:
        """Note an arrival; return its media time.

        `held` says that the receiver had no room before: the arrival tells nothing of the sender.
        """
        if held:
            self._held_at = at
        media = self.mapping.arrived(stamp, at)
        if not self._late:
            self._late.append((at, self._burst))
            self._first_at, self._first_way = at, at - media
        is_first = at - self._first_at < self._memory
        self._first_burst = self._first_way - self.mapping.offset if is_first else 0.0
        lateness = self.mapping.lateness
        while self._late and self._late[-1][1] <= lateness:
            self._late.pop()
        self._late.append((at, lateness))
        while at - self._late[0][0] > self._memory:
            self._late.popleft()
        return media

    def is_given_up(self, media: float) -> bool:
        """Whether an item of this media time was given up on purpose, to be less old."""
        return media < self._given_up

    def end(self) -> None:
        """Play the rest at its own speed: nothing more arrives, so nothing gets older by it."""
        self._held_at = float("inf")

    def due(self, media: float, arrived_at: float, now: float) -> float:
        """Return when the item of this media time, which arrived at `arrived_at`, is due.

        A moment in the past asks for the item at once, or to leave it out for a later one.
        """
        if self._started_at is None:
            self._started_at = now
            self._controlled_at = now + self._margin
            self._alignment = now + self._margin - media
            return now + self._margin
        self._control(now)
        if arrived_at > media + self._alignment and not self.is_given_up(media):
            self._ran_dry(arrived_at - media)
        return media + self._alignment

    def _ran_dry(self, alignment: float) -> None:
        """Continue where the item is that came too late, up to the longest delay."""
        self.underruns += 1
        self._alignment = max(self._alignment, min(alignment, self.mapping.offset + self._longest))

    def _control(self, now: float) -> None:
        """Let the alignment follow the need, for the time since the last call."""
        assert self._started_at is not None
        elapsed = max(0.0, now - self._controlled_at)
        self._controlled_at = max(now, self._controlled_at)
        surplus = self._alignment - (self.mapping.offset + self.need)
        if surplus < -TOLERANCE:
            self._alignment += min(-surplus, GROWTH * elapsed)
        elif surplus > TOLERANCE and now - self._held_at > HELD_FOR:
            if self._is_given_up(surplus, now):
                self._alignment -= surplus
                self._given_up = now - self._alignment
            else:
                self._alignment -= min(surplus, SHRINKING * elapsed)

    def _is_given_up(self, surplus: float, now: float) -> bool:
        """Whether a surplus is too large to be worn off, or was there from the start."""
        assert self._started_at is not None
        if now - self.mapping.fell_at < SETTLED:
            return False
        settles = now - self._started_at < SETTLING + self._burst
        return surplus > (SMALL_SURPLUS if settles else max(LARGEST_SURPLUS, self.need))
