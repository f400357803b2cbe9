"""How long a source may take: the configured limits, and what it has shown itself to need.

A limit that is too short for a source would tear it down again and again. So two of them grow
with what was seen: `first_frame_timeout` with the distance of its key frames, `stall_timeout`
with that of its pictures.
"""

from dataclasses import dataclass
from typing import Final

from relayd.config.settings import SourceSettings

SLOW_SHARE: Final = 0.5
"""Share of the stall limit that a source's usual step must reach for it to count as slow."""
MOST_GROWTH: Final = 10.0
"""s up to which a stall limit is tried that no picture has justified yet."""
LONGEST_LEARNT: Final = 600.0
"""s: longer steps and key-frame intervals count as this long."""
NOTICEABLE: Final = 1.2
"""Factor by which a step or interval must exceed the longest one before: each change is logged."""
STEP_MARGIN: Final = 2.0
"""Stall limit in steps of a slow source."""
KEY_MARGIN: Final = 1.5
"""Wait for a first picture in key-frame intervals: one, and time to connect and decode."""
LONGEST_KEY_WAIT: Final = 60.0
"""s that a first picture is waited for while video arrives that needs a key frame first."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one connection has shown."""

    pictures: int
    """Different ones that were published."""
    waited: float
    """s that each but the first took to come, in all: one that is shown again and again on purpose
    is not waited for."""
    longest_step: float
    """s that one of them took to come."""
    key_interval: float
    """s between two key frames; 0.0 when unknown."""


class SourceLimits:
    """The limits of one source, over all its connections."""

    def __init__(self, settings: SourceSettings) -> None:
        self.open = settings.open_timeout
        """s until it is open."""
        self._first_frame = settings.first_frame_timeout
        self._stall = settings.stall_timeout
        self._tried = self._stall
        self._step = self._key_interval = 0.0

    @property
    def first_frame(self) -> float:
        """Seconds from open to the first picture."""
        return max(self._first_frame, self._stall, self._key_interval * KEY_MARGIN)

    @property
    def stall(self) -> float:
        """Seconds between two pictures."""
        learnt = self._step * STEP_MARGIN if self._step > self._stall else 0.0
        return max(self._stall, self._tried, learnt)

    @property
    def is_slow(self) -> bool:
        """Whether its pictures were seen to come less often than `stall_timeout` expects."""
        return self._step > self._stall

    def first_frame_reason(self) -> str:
        """Say why it waits longer for a first picture than configured; empty if it does not."""
        if self.first_frame <= max(self._first_frame, self._stall):
            return ""
        return f"its key frames are up to {self._key_interval:.1f} s apart"

    def learn(self, run: Run) -> bool:
        """Take over what a connection has shown so far; whether that changes a limit."""
        before = self.stall, self.first_frame
        if run.key_interval > self._key_interval * NOTICEABLE:
            self._key_interval = min(run.key_interval, LONGEST_LEARNT)
        if run.longest_step > max(self._stall, self._step * NOTICEABLE):
            self._step = min(run.longest_step, LONGEST_LEARNT)
            self._tried = self._stall
        return before != (self.stall, self.first_frame)

    def learn_from_stall(self, run: Run) -> None:
        """Try a longer stall limit if the source may just be slow, else the configured one."""
        longest = max(self._stall, MOST_GROWTH)
        if self.may_be_slow(run) and self.stall < longest:
            self._tried = min(self.stall * 2, longest)
        else:
            self._tried, self._step = self._stall, 0.0

    def may_be_slow(self, run: Run) -> bool:
        """Whether a connection that stalled may be of a source with few pictures."""
        if run.pictures <= 1:
            return run.pictures == 1
        return run.waited / (run.pictures - 1) >= self._stall * SLOW_SHARE
