"""When each picture of a recording is due."""

from dataclasses import dataclass
from typing import Final

LONGEST_STEP: Final = 10.0
"""s between two pictures that are trusted everywhere; in a container whose stamps may jump
(MPEG-TS, MPEG-PS) a longer one that leads to a key picture is a splice."""
LONGEST_PAUSE: Final = 3600.0
"""s that one picture may stand in any other container, as in ffplay: a recording of a desktop on
which nothing moves has no pictures for minutes."""
LONGEST_UNCHECKED: Final = 600.0
"""s that one picture may stand in a container that does not tell its length, or guesses it from
its stamps as MPEG-TS does."""
LENGTH_SLACK: Final = 1.0
"""s by which the pictures may exceed the container's length: it is often rounded, and may leave
out the duration of the last one."""
SHORTEST_STEP: Final = 0.001
"""s between two pictures that are trusted; less would play a file as fast as it decodes."""
LATE_LIMIT: Final = 1.0
"""s between two calls after which the lost time is given up: the machine slept, or nothing could
be read."""
MOST_BEHIND: Final = 10.0
"""s behind after which they are given up in any case: decoding has not caught up by then."""
MOST_LEFT_OUT: Final = 1
"""Late pictures dropped in a row; then one is shown, however late."""
USUAL_RATE: Final = 25.0
"""Frames per second assumed if neither the stream nor its time stamps define it."""
_AVERAGING: Final = 0.1
"""Weight of the newest step in the average."""
_LONGEST_AVERAGED: Final = 1.0
"""s of a step that count in the average: one long pause says nothing about the usual step."""
_DISORDER_WEIGHT: Final = 0.1
"""Weight of the newest step in the share of steps that lead back: about ten pictures count."""
_MOST_DISORDER: Final = 0.2
"""Share of steps that lead back from which on the stamps are those of another order, and useless;
a splice leads back once."""
_DURATION_TOLERANCE: Final = 0.25
"""Share by which a picture's duration may differ from the step that followed it to be believed:
some AVI say half of it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What a container says about its time stamps."""

    rate: float = 0.0
    """Frames per second as announced; 0.0 when unknown."""
    length: float = 0.0
    """Seconds from the first picture to the end; 0.0 when unknown."""
    may_jump: bool = False
    """Whether its format allows jumps in the stamps."""


class PlaybackSchedule:
    """Turns time stamps into display times, each counted from the one before.

    A step is trusted if it fits into the length that the container tells: a picture that stands
    for minutes is kept, a jump by an error is not.

    Stamps that are missing, repeat, run backwards or jump are replaced by the picture's own
    duration or the average step, so a damaged section causes neither a gap nor a burst. Deadlines
    are absolute: the lateness of one picture is not added to the next.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._step = 1.0 / timing.rate if timing.rate > 0 else 1.0 / USUAL_RATE
        self._due: float | None = None
        self._called_at = 0.0
        self._pts: float | None = None
        self._duration: float | None = None
        self._durations_hold = True
        self._played = 0.0
        self._disorder = 0.0
        self._starts_round = False
        self._left_out = 0
        self._given_up = 0.0

    def due(
        self,
        pts: float | None,
        now: float,
        duration: float | None = None,
        *,
        is_key: bool = True,
    ) -> float:
        """Return the time at which the next picture, stamped `pts`, is to be shown.

        The first one is due at once. `duration` is how long it should be shown, if it says so;
        `is_key` says that it may be the first one of another recording, spliced to the last.
        """
        if self._due is None:
            self._due = now
        else:
            self._due += self._step_to(pts, is_key=is_key)
            self._give_up_lost_time(now)
        self._called_at = now
        self._pts, self._duration = pts, duration
        return self._due

    def end_round(self) -> float:
        """Return when the last picture has been shown for its duration: the next is due then."""
        if self._due is None:
            raise ValueError("a round without a picture has no end")
        self._due += self._own_step()
        self._starts_round = True
        return self._due

    def start_round(self, timing: Timing) -> None:
        """Start the next round, which may be that of another file, with stamps of its own."""
        if timing != self._timing and timing.rate > 0:
            self._step = 1.0 / timing.rate
        self._timing = timing
        self._pts, self._played, self._disorder = None, 0.0, 0.0

    def left_out(self, now: float) -> bool:
        """Whether the picture of the last `due` call is so late that it should be dropped."""
        late = self._due is not None and now - self._due > self._step
        self._left_out = self._left_out + 1 if late and self._left_out < MOST_LEFT_OUT else 0
        return self._left_out > 0

    def behind(self, now: float) -> float:
        """Return by how many seconds the pictures are late, with what was given up meanwhile."""
        late = 0.0 if self._due is None else max(0.0, now - self._due)
        return self._given_up + late

    def _step_to(self, pts: float | None, *, is_key: bool) -> float:
        if self._starts_round:
            self._starts_round = False
            return 0.0
        step = None if pts is None or self._pts is None else pts - self._pts
        self._note_order(step)
        if step is None or not self._is_trusted(step, is_key=is_key):
            step = self._own_step()
        else:
            if self._duration is not None:
                off = abs(step - self._duration)
                self._durations_hold = off <= _DURATION_TOLERANCE * self._duration
            self._step += (min(step, _LONGEST_AVERAGED) - self._step) * _AVERAGING
        self._played += step
        return step

    def _note_order(self, step: float | None) -> None:
        leads_back = step is not None and step < 0
        self._disorder += (leads_back - self._disorder) * _DISORDER_WEIGHT

    def _is_trusted(self, step: float, *, is_key: bool) -> bool:
        if self._disorder > _MOST_DISORDER and self._timing.rate > 0:
            return False
        return SHORTEST_STEP <= step <= max(LONGEST_STEP, self._longest_pause(is_key=is_key))

    def _longest_pause(self, *, is_key: bool) -> float:
        if self._timing.may_jump:
            return LONGEST_STEP if is_key else LONGEST_UNCHECKED
        if self._timing.length > 0:
            return min(LONGEST_PAUSE, self._timing.length + LENGTH_SLACK - self._played)
        return LONGEST_UNCHECKED

    def _own_step(self) -> float:
        """Return how long the latest picture is shown where stamps do not tell."""
        if self._disorder > _MOST_DISORDER and self._timing.rate > 0:
            return 1.0 / self._timing.rate
        duration = self._duration or 0.0
        if self._durations_hold and SHORTEST_STEP <= duration <= LONGEST_PAUSE:
            return duration
        return self._step

    def _give_up_lost_time(self, now: float) -> None:
        assert self._due is not None
        late = now - self._due
        if late <= 0:
            self._given_up = 0.0
        elif late > MOST_BEHIND or (late > LATE_LIMIT and now - self._called_at > LATE_LIMIT):
            self._given_up += late
            self._due = now
