"""Notices that decoding is too slow, and decides how much to leave undecoded."""

import math
from typing import Final

from relayd import logs
from relayd.logs import LogEvent
from relayd.media.skipping import SkipLevel

NOTICED: Final = 1.0
"""s behind that count as too slow: more than any buffer on the way causes."""
CAUGHT_UP: Final = 0.25
"""s behind that count as caught up."""
PATIENCE: Final = 0.5
"""s that it has to last: one slow picture is none."""
LEAP: Final = 3.0
"""s behind from which on the pictures up to the newest key picture are left out."""
SETTLE: Final = 2.0
"""s that a level gets to show whether it is enough."""
FIRST_TRIAL: Final = 10.0
"""s without delay until it is tried to decode everything again."""
LONGEST_TRIAL: Final = 300.0
"""s until that is tried again on a machine that was too slow each time."""
RELAPSE: Final = 30.0
"""s after such a try in which being slow again shows that it came too early."""
WAITING: Final = 0.1
"""Share of the time spent in waiting for data from which on decoding is fast enough."""
_SHARE_OVER: Final = 1.0
"""s over which that share is averaged."""
_DRIFT: Final = 0.0002
"""s a second by which a sender's clock may be slow or fast without a picture being late: twice
what usual quartz clocks differ by."""
_LONGEST_STEP: Final = 10.0
"""s between two pictures; a longer one is a new clock of the sender."""
_LOGGED_EVERY: Final = 60.0
"""s between two warnings while it lasts."""

_log = logs.get("source")


class WaitingShare:
    """The share of the time that is spent in waiting for data."""

    def __init__(self) -> None:
        self._average = 0.0
        self._noted_at: float | None = None
        self._waited = 0.0

    def note(self, waited: float, now: float) -> float:
        """Return the share since the last call, from all the seconds `waited` so far.

        It is at most that of the last second: a thread that the machine keeps waiting for a
        moment does not wait for data.
        """
        newest = 0.0
        if self._noted_at is not None and now > self._noted_at:
            span = now - self._noted_at
            newest = min(1.0, (waited - self._waited) / span)
            self._average += (newest - self._average) * (1 - math.exp(-span / _SHARE_OVER))
        self._noted_at, self._waited = now, waited
        return min(newest, self._average)


class LiveEdge:
    """How far a live stream's pictures are behind those that its sender has already made.

    The smallest difference between arrival and time stamp stands for the edge. Whoever has to
    wait for data is at the edge too, so a sender that stops for a while moves it.
    """

    def __init__(self) -> None:
        self._edge: float | None = None
        self._pts: float | None = None
        self._noted_at = 0.0

    def behind(self, pts: float | None, now: float, *, waiting: bool) -> float:
        """Return the seconds that a picture with this stamp is behind, decoded `now`."""
        if pts is None:
            return 0.0
        delay = now - pts
        if self._edge is not None and self._pts is not None:
            step, passed = pts - self._pts, now - self._noted_at
            if not -_LONGEST_STEP < step < _LONGEST_STEP:
                self._edge -= step  # the sender's clock was set: as late as before
            self._edge = min(delay, self._edge + passed * _DRIFT)
        if self._edge is None or waiting:
            self._edge = delay
        self._pts, self._noted_at = pts, now
        return delay - self._edge


class DecodingLoad:
    """Decides the level of skipping from how far the pictures are behind."""

    def __init__(self) -> None:
        self.level = SkipLevel.NOTHING
        self._level_since = float("-inf")
        self._slow_since: float | None = None
        self._good_since: float | None = None
        self._trial = FIRST_TRIAL
        self._tried_at = float("-inf")

    def note(self, behind: float, now: float, *, waiting: bool = False) -> SkipLevel:
        """Return the level for a source that is `behind` seconds late.

        While decoding is `waiting` for data it is not to blame, and the level is not raised.
        """
        is_slow = behind >= NOTICED and not waiting
        self._slow_since = self._since(self._slow_since, now, holds=is_slow)
        self._good_since = self._since(self._good_since, now, holds=behind <= CAUGHT_UP)
        level = self._next_level(behind, now)
        if level is not self.level:
            self._note_change(level, now)
        return self.level

    def leave_out(self, now: float) -> SkipLevel:
        """Return the level after pictures up to a key picture had to be left out undecoded."""
        if self.level is SkipLevel.NOTHING:
            self._note_change(SkipLevel.UNREFERENCED, now)
        self._good_since = None
        return self.level

    def _next_level(self, behind: float, now: float) -> SkipLevel:
        slow_for = 0.0 if self._slow_since is None else now - self._slow_since
        good_for = 0.0 if self._good_since is None else now - self._good_since
        settled = now - self._level_since >= SETTLE
        match self.level:
            case SkipLevel.NOTHING if slow_for >= PATIENCE:
                return SkipLevel.UNREFERENCED
            case SkipLevel.UNREFERENCED if behind >= LEAP and slow_for >= PATIENCE and settled:
                return SkipLevel.ALL_BUT_KEYS
            case SkipLevel.UNREFERENCED if good_for >= self._trial:
                return SkipLevel.NOTHING
            case SkipLevel.ALL_BUT_KEYS if behind <= CAUGHT_UP:
                return SkipLevel.UNREFERENCED
        return self.level

    def _note_change(self, level: SkipLevel, now: float) -> None:
        if level is SkipLevel.NOTHING:
            self._tried_at = now
        elif self.level is SkipLevel.NOTHING:
            relapsed = now - self._tried_at < RELAPSE
            self._trial = min(self._trial * 2, LONGEST_TRIAL) if relapsed else FIRST_TRIAL
        self.level, self._level_since = level, now

    @staticmethod
    def _since(earlier: float | None, now: float, *, holds: bool) -> float | None:
        if not holds:
            return None
        return now if earlier is None else earlier


class DecodingWatch:
    """Watches one connection's decoding, and says in the log when it is too slow.

    `note` and `is_waiting` are for the decoding thread, the rest for any.
    """

    def __init__(self) -> None:
        self._load, self._share = DecodingLoad(), WaitingShare()
        self._logged_at = float("-inf")
        self.behind = 0.0
        """Seconds that the newest picture was behind."""

    @property
    def text(self) -> str:
        """What to tell the user; empty while decoding keeps up."""
        return slowness_text(self.behind, self._load.level)

    def is_waiting(self, waited: float, now: float) -> bool:
        """Whether decoding waits for data, having spent `waited` seconds on that so far."""
        return self._share.note(waited, now) >= WAITING

    def note(self, behind: float, now: float, *, waiting: bool = False) -> SkipLevel:
        """Return how much to leave undecoded when a picture is `behind` seconds late.

        `waiting` as for DecodingLoad.
        """
        was = self._load.level
        level = self._load.note(behind, now, waiting=waiting)
        self.behind = 0.0 if waiting and level is SkipLevel.NOTHING else behind
        self._log(was, level, now)
        return level

    def note_left_out(self, behind: float, now: float) -> SkipLevel:
        """Return the level after the player itself left out what comes before a key picture."""
        was, self.behind = self._load.level, behind
        level = self._load.leave_out(now)
        self._log(was, level, now)
        return level

    def _log(self, was: SkipLevel, level: SkipLevel, now: float) -> None:
        if level > SkipLevel.NOTHING and now - self._logged_at >= _LOGGED_EVERY:
            self._logged_at = now
            behind = round(self.behind, 1)
            _log.warning(LogEvent.SOURCE_TOO_SLOW, behind=behind, reason=self.text)
        elif was > SkipLevel.NOTHING and level is SkipLevel.NOTHING:
            _log.info(LogEvent.SOURCE_KEEPS_UP)


def slowness_text(behind: float, level: SkipLevel) -> str:
    """Return what to tell the user; empty while decoding keeps up."""
    if level is SkipLevel.NOTHING:
        return ""
    if behind >= NOTICED:
        return f"decoding is too slow: {behind:.0f} s behind"
    return "decoding is too slow: some pictures are left out"
