"""The one place where a voice becomes audible, or does not."""

from enum import Enum
from threading import Lock
from typing import Final, Protocol

from relayd.sound.blocks import AudibleSound, OwnSound, ReturnedSound, Samples, silence
from relayd.sound.timeline import EDGE, faded_out


class Silence(Enum):
    """Why nothing may be heard."""

    MUTED = "muted"
    """A person asked for it."""
    PAUSED = "paused"
    """The relay is paused."""
    NOT_LIVE = "not_live"
    """No live picture yet: nobody knows the delay, and viewers see that it is starting."""
    STANDBY = "standby"
    """The swap is away, and `[sound] standby` is "mute"."""


_UNHEARD: Final = frozenset({Silence.MUTED, Silence.PAUSED})
"""Reasons for which the service gets no voice either."""


class Line(Protocol):
    """What delays sound: relayd.sound.line, or relayd.sound.returned."""

    def push(self, samples: Samples, at: float) -> None:
        """Add a block that was captured or received at `at`."""

    def pull(self, now: float) -> Samples:
        """Return the block to be played at `now`."""

    def clear(self) -> None:
        """Overwrite what waits."""


class SoundGate:
    """Lets sound through a line while there is no reason for silence.

    Closing fades out within 5 ms and overwrites what waits in the line. What was captured while
    it was closed is never heard, not even when it arrives after the opening. `push` and `pull`
    are for one thread, the rest for any.
    """

    def __init__(self, line: Line, *reasons: Silence) -> None:
        """Start closed for `reasons`, if there are any."""
        self._line = line
        self._lock = Lock()
        self._reasons = {*reasons}
        self._opened_at = float("-inf")
        self._voiced_at = float("-inf")
        """When the last reason to send nothing to the service went."""
        self._closings = 0
        self._seen_closings = 0
        self._holds_sound = False

    @property
    def reasons(self) -> frozenset[Silence]:
        """Why nothing can be heard now; empty while it is open."""
        return frozenset(self._reasons)

    def close(self, reason: Silence) -> None:
        """Let nothing through from the next block on, until each reason is gone."""
        with self._lock:
            self._reasons.add(reason)
            self._closings += 1

    def open(self, reason: Silence, now: float) -> None:
        """Drop a reason at `now`, monotonic s; only sound captured from then on may be heard."""
        with self._lock:
            if reason not in self._reasons:
                return
            self._reasons.discard(reason)
            if not self._reasons:
                self._opened_at = now
            if reason in _UNHEARD and not self._reasons & _UNHEARD:
                self._voiced_at = now

    def may_send(self, sound: OwnSound) -> bool:
        """Whether the service may have this block: not what was said while muted or paused."""
        with self._lock:
            return not self._reasons & _UNHEARD and sound.at >= self._voiced_at

    def push(self, sound: OwnSound | ReturnedSound) -> None:
        """Put a block into the line, if it may be heard later."""
        with self._lock:
            admits = not self._reasons and sound.at >= self._opened_at
        if admits:
            self._holds_sound = True
            self._line.push(sound.samples, sound.at)

    def pull(self, now: float, at: float) -> AudibleSound:
        """Return the block to be played at `now`, marked as belonging to `at`."""
        with self._lock:
            is_open, was_closed = not self._reasons, self._closings != self._seen_closings
            self._seen_closings = self._closings
        if is_open and not was_closed:
            return AudibleSound(self._line.pull(now), at)
        samples = silence()
        if self._holds_sound:
            samples[:EDGE] = faded_out(self._line.pull(now)[:EDGE])
            self._line.clear()
            self._holds_sound = False
        return AudibleSound(samples, at)
