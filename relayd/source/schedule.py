"""When each picture of a recording is due."""

from typing import Final

LONGEST_STEP: Final = 10.0
"""s between two pictures that are believed; a longer jump is a fault in the time stamps."""
SHORTEST_STEP: Final = 0.001
"""s between two pictures that are believed; less would have a file played as fast as it decodes."""
LATE_LIMIT: Final = 1.0
"""s behind after which the lost time is given up (the machine slept, or decodes too slowly)."""
MOST_LEFT_OUT: Final = 3
"""Late pictures left out in a row; then one is shown, however late."""
USUAL_RATE: Final = 25.0
"""Frames per second assumed where neither stream nor time stamps tell."""
_AVERAGING: Final = 0.1
"""Weight of the newest step in the average."""


class PlaybackSchedule:
    """Turns time stamps into moments, each counted from the one before.

    Stamps that are missing, stand still, run backwards or leap are replaced by the average
    step, so a seam or a damaged stretch costs no gap and no rush. Deadlines are absolute:
    what a picture came late is not added to the next.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1.0 / rate if rate > 0 else 1.0 / USUAL_RATE
        self._due: float | None = None
        self._pts: float | None = None
        self._left_out = 0

    def due(self, pts: float | None, now: float) -> float:
        """Return the moment at which the next picture, stamped `pts`, is to be shown.

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
        """Whether the picture last asked for is so late that it is not worth fitting."""
        late = self._due is not None and now - self._due > self._step
        self._left_out = self._left_out + 1 if late and self._left_out < MOST_LEFT_OUT else 0
        return self._left_out > 0

    def _step_to(self, pts: float | None) -> float:
        step = None if pts is None or self._pts is None else pts - self._pts
        if step is None or not SHORTEST_STEP <= step <= LONGEST_STEP:
            return self._step
        self._step += (step - self._step) * _AVERAGING
        return step
