"""What must hold outside for a session to be of use: readers, source, outputs, person, budget.

Plain records that the state machine fills from events and asks with the time; they decide
nothing by themselves and wait for nothing.
"""

from dataclasses import dataclass, field

from relayd.relay.status import DemandState

NEVER = float("inf")
LONG_AGO = float("-inf")
SOURCE_LOSS_LIMIT = 30.0
"""s that a session is kept, and paid, while the source is away; then it is closed."""
OUTPUT_LOSS_LIMIT = 30.0
"""s that a session is kept while no output works: a device that is plugged in again is back in 5 s,
a stream's receiver that is restarted in some more."""
NOBODY_LOOKS = "nobody looks at the camera"
STILL_CLOSING = "the last session is being closed"
WAITING_FOR_SOURCE = "waiting for the source's first picture"
PAUSED = "paused"
ASLEEP = "the machine is being suspended"


@dataclass(slots=True)
class Readers:
    """Who reads the cameras, and so whether anybody wants a session."""

    on_demand: bool
    grace: float
    """s that a session is kept after the last reader left."""
    counts: dict[str, int | None] = field(default_factory=dict)
    """Readers of each camera; None where they cannot be counted."""
    left_at: float = LONG_AGO
    """When the last one left whom a session was wanted for."""

    @property
    def are_ignored(self) -> bool:
        """Sessions do not depend on readers: not asked for, or they cannot be counted."""
        return not self.on_demand or None in self.counts.values()

    @property
    def has_reader(self) -> bool:
        """Somebody is known to read a camera."""
        return any(self.counts.values())

    @property
    def want_session(self) -> bool:
        """A session may be opened for them."""
        return self.are_ignored or self.has_reader

    def may_keep_session(self, now: float) -> bool:
        """Whether one that is open is kept for them: also for who may come back in a moment."""
        return self.want_session or now < self.left_at + self.grace

    def set_count(self, device: str, count: int | None, now: float) -> None:
        """Take in how many read a camera."""
        wanted = self.want_session
        self.counts[device] = count
        self._note_leaving(now, wanted=wanted)

    def set_policy(self, now: float, *, on_demand: bool, grace: float) -> None:
        """Take in other settings."""
        wanted = self.want_session
        self.on_demand, self.grace = on_demand, grace
        self._note_leaving(now, wanted=wanted)

    def _note_leaving(self, now: float, *, wanted: bool) -> None:
        if wanted and not self.want_session:
            self.left_at = now

    def state(self, now: float, *, live: bool, closing: bool) -> DemandState:
        """Say where sessions on demand stand, given whether one is live or being closed."""
        if self.are_ignored:
            return DemandState.OFF
        if closing:
            return DemandState.CLOSING
        if self.has_reader:
            return DemandState.LIVE if live else DemandState.OPENING
        return DemandState.GRACE if now < self.left_at + self.grace else DemandState.IDLE


@dataclass(slots=True)
class Source:
    """Whether the source gives pictures, since when not, and why not."""

    alive: bool = False
    reason: str = WAITING_FOR_SOURCE
    """Why it gives none; empty while it does."""
    suspended: bool = False
    _down_since: float = LONG_AGO
    _open_failed: bool = False
    _is_reopening: bool = False

    @property
    def counts_as_alive(self) -> bool:
        """It gives pictures, or is being opened again and did not fail so far."""
        return self.alive or self._is_reopening

    def keep_session_until(self) -> float:
        """When it has been away for longer than a session is kept for it.

        Long ago before its first picture, and after the end of a recording that is not looped.
        """
        return NEVER if self.counts_as_alive else self._down_since + SOURCE_LOSS_LIMIT

    def suspend(self) -> None:
        """It is let go of; what its reader still tells is of the past."""
        self.suspended, self._is_reopening = True, False
        self.alive, self._down_since = False, LONG_AGO

    def resume(self) -> None:
        """It is being opened again.

        Unless it failed the last time it counts as there, so that a session can be opened
        meanwhile: until its first picture, or the first failure.
        """
        self.suspended, self._is_reopening = False, not self._open_failed
        if self._is_reopening:
            self.reason = WAITING_FOR_SOURCE

    def on_up(self) -> None:
        """It gives pictures."""
        if not self.suspended:
            self.alive, self.reason = True, ""
            self._is_reopening = self._open_failed = False

    def on_down(self, reason: str, now: float) -> None:
        """It gives none, and is tried again."""
        if not self.suspended:
            self._is_reopening, self._open_failed = False, True
            self._mark_down(reason, now)

    def on_end(self) -> None:
        """It came to its end."""
        if not self.suspended:
            self._is_reopening = self._open_failed = False
            self._mark_down("the source came to its end", LONG_AGO)

    def _mark_down(self, reason: str, since: float) -> None:
        if self.alive or since == LONG_AGO:
            self._down_since = since
        self.alive, self.reason = False, reason


@dataclass(slots=True)
class Conditions:
    """All that a session depends on."""

    readers: Readers
    source: Source = field(default_factory=Source)
    paused: bool = False
    asleep: bool = False
    stopping: bool = False
    outputs_lost_since: float | None = None
    outputs_reason: str = ""
    budget_spent: bool = False
    budget_reason: str = ""

    def obstacle(self) -> str | None:
        """Say why no session may be opened; None where one may."""
        for holds, reason in (
            (self.stopping, ""),
            (self.paused, PAUSED),
            (self.asleep, ASLEEP),
            (self.budget_spent, self.budget_reason),
            (not self.readers.want_session, NOBODY_LOOKS),
            (self.outputs_lost_since is not None, self.outputs_reason),
            (not self.source.counts_as_alive, self.source.reason),
        ):
            if holds:
                return reason
        return None

    def may_keep_session(self, now: float, *, opened: bool) -> bool:
        """Whether a session is kept: one that is `opened`, also for who may come back."""
        if self.stopping or self.paused or self.asleep or self.budget_spent:
            return False
        readers = self.readers
        if not (readers.may_keep_session(now) if opened else readers.want_session):
            return False
        return now < min(self.source.keep_session_until(), self._outputs_keep_session_until())

    def deadlines(self) -> tuple[float, ...]:
        """Return the moments at which time alone changes one of the answers."""
        return (
            self.readers.left_at + self.readers.grace,
            self.source.keep_session_until(),
            self._outputs_keep_session_until(),
        )

    def _outputs_keep_session_until(self) -> float:
        since = self.outputs_lost_since
        return NEVER if since is None else since + OUTPUT_LOSS_LIMIT
