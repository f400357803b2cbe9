"""When each picture of a recording is due."""

from typing import Final

LONGEST_STEP: Final = 10.0
"""s between two pictures that are trusted; a longer jump is an error in the time stamps."""
SHORTEST_STEP: Final = 0.001
"""s between two pictures that are trusted; less would play a file as fast as it decodes."""
LATE_LIMIT: Final = 1.0
"""s behind after which the lost time is given up (the machine slept, or decodes too slowly)."""
MOST_LEFT_OUT: Final = 3
"""Late pictures dropped in a row; then one is shown, however late."""
USUAL_RATE: Final = 25.0
"""Frames per second assumed if neither the stream nor its time stamps define it."""
_AVERAGING: Final = 0.1
"""Weight of the newest step in the average."""


class PlaybackSchedule:
    """Turns time stamps into display times, each counted from the one before.

    Stamps that are missing, repeat, run backwards or jump are replaced by the average step, so
    a loop point or a damaged section causes neither a gap nor a burst. Deadlines are absolute:
    the lateness of one picture is not added to the next.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1.0 / rate if rate > 0 else 1.0 / USUAL_RATE
        self._due: float | None = None
        self._pts: float | None = None
        self._left_out = 0

    def due(self, pts: float | None, now: float) -> float:
        """Return the time at which the next picture, stamped `pts`, is to be shown.

        The first one is due at once.
        """
        if self._due is None:
            self._due = now
        else:
            self._due += self._step_to(pts)
            if now - self._due > LATE_LIMIT:
                self._due = now
        self._pts = pts
        return self._due

    def left_out(self, now: float) -> bool:
        """Whether the picture of the last `due` call is so late that it should be dropped."""
        late = self._due is not None and now - self._due > self._step
        self._left_out = self._left_out + 1 if late and self._left_out < MOST_LEFT_OUT else 0
        return self._left_out > 0

    def _step_to(self, pts: float | None) -> float:
        step = None if pts is None or self._pts is None else pts - self._pts
        if step is None or not SHORTEST_STEP <= step <= LONGEST_STEP:
            return self._step
        self._step += (step - self._step) * _AVERAGING
        return step
