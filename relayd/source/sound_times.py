"""When sound belongs, by the stamps of the pictures that were published beside it.

Pure arithmetic: a picture of the stamp `pts` belongs to a moment `at` on the local clock, and so
does the sound of the same stamp. All times are seconds.
"""

from collections import deque
from statistics import median
from typing import Final

KEPT: Final = 5.0
"""s for which the place of a picture is remembered."""
_SAME: Final = 0.001
"""s by which two pictures' places may differ and count as one."""
_EVERY: Final = 0.25
"""s after which a picture's place is remembered all the same."""
_NEAR: Final = 0.3
"""s by which a picture's stamp may be farther than the nearest one, and count as near: a little
more than lies between the places that are remembered."""
_AWAY: Final = 0.1
"""s from where sound would go on that lead away from there."""
WINDOW: Final = 2.0
"""s of pictures whose median counts for a live source: more than a few late ones."""
SLEW: Final = 0.005
"""Share of the time by which that median is followed: nobody hears half a percent."""
JUMP: Final = 0.06
"""s from which on it is followed at once, as lips would be seen to be off for too long."""
OTHER_LINE: Final = 2.0
"""s by which a picture's offset may differ from the median; more is another line of stamps."""
BACKLOG: Final = 0.1
"""s by which pictures at the start may be later than a newer one: they were held back while the
stream was opened, and count no longer."""
MOST_EARLY: Final = 3.0
"""s before its arrival that live sound may belong: more is a stamp that cannot be used."""
MOST_LATE: Final = 1.5
"""s after its arrival that live sound may belong: containers write a second of it at once."""


class ScheduledTimes:
    """Of pictures that are published by a schedule, known some time before.

    Where the schedule did not believe a stamp, or gave lost time up, the sound takes the same
    step: a picture with a near stamp counts.
    """

    def __init__(self) -> None:
        self._places: deque[tuple[float, float]] = deque()  # (pts, at)
        self._newest: tuple[float, float] | None = None

    def note(self, pts: float, at: float) -> None:
        """Note that the picture of this stamp is due at `at`."""
        places, self._newest = self._places, (pts, at)
        is_new = not places or abs((at - pts) - (places[-1][1] - places[-1][0])) > _SAME
        if is_new or at - places[-1][1] >= _EVERY:
            places.append(self._newest)
        while places[0][1] < at - KEPT:
            places.popleft()

    def at(self, pts: float, expected: float | None = None) -> float | None:
        """Return when sound of this stamp belongs; None before the first picture.

        The picture with the nearest stamp counts, unless that leads away from `expected` and one
        that is about as near does not: the same stamps may come again.
        """
        if self._newest is None:
            return None
        places = [*self._places, self._newest]
        stamp, at = min(places, key=lambda place: abs(place[0] - pts))
        found = pts + at - stamp
        if expected is None or abs(found - expected) <= _AWAY:
            return found
        farthest = abs(stamp - pts) + _NEAR
        near = (pts + at - stamp for stamp, at in places if abs(stamp - pts) <= farthest)
        return min(near, key=lambda at: abs(at - expected))


class LiveTimes:
    """Of pictures that are published as they arrive, and so a little early or late."""

    def __init__(self) -> None:
        self._offsets: deque[tuple[float, float]] = deque()  # (at, at - pts)
        self._first_at: float | None = None
        self._offset: float | None = None
        self._moved_at = 0.0

    def note(self, pts: float, at: float) -> None:
        """Note that the picture of this stamp arrived at `at`."""
        offsets, offset = self._offsets, at - pts
        if self._first_at is None:
            self._first_at = at
        if offsets and abs(offset - self._median) > OTHER_LINE:
            offsets.clear()
        while offsets and at - self._first_at < WINDOW and offsets[0][1] > offset + BACKLOG:
            offsets.popleft()
        offsets.append((at, offset))
        while offsets[0][0] < at - WINDOW:
            offsets.popleft()

    def at(self, pts: float | None, arrived_at: float, seconds: float) -> float | None:
        """Return when sound belongs that is so long and arrived just now.

        By its arrival where its stamp is missing or cannot be that of the pictures. None before
        the first picture.
        """
        if not self._offsets:
            return None
        at = pts + self._followed(arrived_at) if pts is not None else None
        if at is None or not -MOST_EARLY < at - arrived_at < MOST_LATE:
            return arrived_at - seconds
        return at

    @property
    def _median(self) -> float:
        return median(offset for _, offset in self._offsets)

    def _followed(self, now: float) -> float:
        wanted = self._median
        if self._offset is None or abs(wanted - self._offset) > JUMP:
            self._offset = wanted
        else:
            most = max(0.0, now - self._moved_at) * SLEW
            self._offset += min(max(wanted - self._offset, -most), most)
        self._moved_at = now
        return self._offset
