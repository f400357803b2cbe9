"""Conditions for having a session: readers, source, outputs, the user's pause, budget, sleep.

Plain records that the state machine fills from events and queries with the current time. They
read no clock and start nothing by themselves.
"""

from dataclasses import dataclass, field

from relayd.relay.status import DemandState

NEVER = float("inf")
LONG_AGO = float("-inf")
SOURCE_LOSS_LIMIT = 30.0
"""s that a session is kept, and billed, while the source is away; then it is closed."""
OUTPUT_LOSS_LIMIT = 30.0
"""s that a session is kept while no output works: a device that is plugged in again is back within
5 s, a restarted receiver of a stream takes a little longer."""
NO_READERS = "no program reads the camera"
STILL_CLOSING = "the last session is being closed"
WAITING_FOR_SOURCE = "waiting for the source's first picture"
PAUSED = "paused"
ASLEEP = "the machine is being suspended"


@dataclass(slots=True)
class Readers:
    """How many programs read the cameras, and whether they want a session."""

    on_demand: bool
    grace: float
    """s that a session is kept after the last reader left."""
    counts: dict[str, int | None] = field(default_factory=dict)
    """Readers of each camera; None where they cannot be counted."""
    left_at: float = LONG_AGO
    """When readers last stopped wanting a session."""

    @property
    def are_ignored(self) -> bool:
        """Sessions do not depend on readers: on demand is off, or they cannot be counted."""
        return not self.on_demand or None in self.counts.values()

    @property
    def has_reader(self) -> bool:
        """At least one program is known to read a camera."""
        return any(self.counts.values())

    @property
    def want_session(self) -> bool:
        """A session may be opened for them."""
        return self.are_ignored or self.has_reader

    def may_keep_session(self, now: float) -> bool:
        """Whether an open session is kept, also during the grace time after the last reader."""
        return self.want_session or now < self.left_at + self.grace

    def set_count(self, device: str, count: int | None, now: float) -> None:
        """Record how many programs read a camera."""
        wanted = self.want_session
        self.counts[device] = count
        self._note_leaving(now, wanted=wanted)

    def set_policy(self, now: float, *, on_demand: bool, grace: float) -> None:
        """Apply other settings."""
        wanted = self.want_session
        self.on_demand, self.grace = on_demand, grace
        self._note_leaving(now, wanted=wanted)

    def _note_leaving(self, now: float, *, wanted: bool) -> None:
        if wanted and not self.want_session:
            self.left_at = now

    def state(self, now: float, *, live: bool, closing: bool) -> DemandState:
        """Return the state of sessions on demand, given whether one is live or being closed."""
        if self.are_ignored:
            return DemandState.OFF
        if closing:
            return DemandState.CLOSING
        if self.has_reader:
            return DemandState.LIVE if live else DemandState.OPENING
        return DemandState.GRACE if now < self.left_at + self.grace else DemandState.IDLE


@dataclass(slots=True)
class Source:
    """Whether the source delivers pictures; if not, since when and why."""

    alive: bool = False
    reason: str = WAITING_FOR_SOURCE
    """Why it delivers none; empty while it does."""
    suspended: bool = False
    _down_since: float = LONG_AGO
    _open_failed: bool = False
    _is_reopening: bool = False

    @property
    def counts_as_alive(self) -> bool:
        """It delivers pictures, or is being reopened and has not failed so far."""
        return self.alive or self._is_reopening

    def keep_session_until(self) -> float:
        """Return the time until which a session is kept although the source is away.

        LONG_AGO before its first picture, and after the end of a recording that is not looped.
        """
        return NEVER if self.counts_as_alive else self._down_since + SOURCE_LOSS_LIMIT

    def suspend(self) -> None:
        """Mark it closed on purpose; late events of its reader are ignored."""
        self.suspended, self._is_reopening = True, False
        self.alive, self._down_since = False, LONG_AGO

    def resume(self) -> None:
        """Mark it as being reopened.

        Unless it failed the last time it counts as alive until its first picture or failure, so
        that a session can be opened in parallel.
        """
        self.suspended, self._is_reopening = False, not self._open_failed
        if self._is_reopening:
            self.reason = WAITING_FOR_SOURCE

    def on_up(self) -> None:
        """Record that it delivers pictures."""
        if not self.suspended:
            self.alive, self.reason = True, ""
            self._is_reopening = self._open_failed = False

    def on_down(self, reason: str, now: float) -> None:
        """Record that it delivers none; its reader tries again."""
        if not self.suspended:
            self._is_reopening, self._open_failed = False, True
            self._mark_down(reason, now)

    def on_end(self) -> None:
        """Record that it has ended."""
        if not self.suspended:
            self._is_reopening = self._open_failed = False
            self._mark_down("the source has ended", LONG_AGO)

    def _mark_down(self, reason: str, since: float) -> None:
        if self.alive or since == LONG_AGO:
            self._down_since = since
        self.alive, self.reason = False, reason


@dataclass(slots=True)
class Conditions:
    """Everything that a session depends on."""

    readers: Readers
    listeners: dict[str, int | None] = field(default_factory=dict)
    """Programs that read each microphone; None where they cannot be counted. They need the voice,
    but no session."""
    voice_apart: bool = False
    """The voice has a device of its own, so that whoever needs only it needs no pictures."""
    voice_recorded: bool = False
    """The voice is wanted wherever pictures are, not only by listeners."""
    source: Source = field(default_factory=Source)
    paused: bool = False
    asleep: bool = False
    stopping: bool = False
    outputs_lost_since: float | None = None
    outputs_reason: str = ""
    budget_spent: bool = False
    budget_reason: str = ""

    def obstacle(self) -> str | None:
        """Return why no session may be opened; None if one may."""
        for holds, reason in (
            (self.stopping, ""),
            (self.paused, PAUSED),
            (self.asleep, ASLEEP),
            (self.budget_spent, self.budget_reason),
            (not self.readers.want_session, NO_READERS),
            (self.outputs_lost_since is not None, self.outputs_reason),
            (not self.source.counts_as_alive, self.source.reason),
        ):
            if holds:
                return reason
        return None

    @property
    def has_listener(self) -> bool:
        """A program reads a microphone, or may do so."""
        return any(count is None or count > 0 for count in self.listeners.values())

    def is_voice_alone(self, now: float) -> bool:
        """Whether only a microphone is read: the voice goes out, and no session is open."""
        return self.has_listener and not self.readers.may_keep_session(now)

    def needs_source(self, now: float) -> bool:
        """Whether the source is kept open. A pause closes it: the camera's light goes out.

        A microphone's reader needs it only where the voice comes with the pictures.
        """
        if self.paused:
            return False
        return self.readers.may_keep_session(now) or (self.has_listener and not self.voice_apart)

    def needs_voice(self, now: float) -> bool:
        """Whether the voice's own device is kept open.

        Cameras whose readers cannot be counted do not open it: who may listen is known besides.
        """
        if self.paused or not self.voice_apart:
            return False
        is_wanted = self.voice_recorded or not self.readers.on_demand
        return self.has_listener or (is_wanted and self.readers.may_keep_session(now))

    def may_keep_session(self, now: float, *, opened: bool) -> bool:
        """Whether a session is kept; one that is `opened` is kept for the grace time, too."""
        if self.stopping or self.paused or self.asleep or self.budget_spent:
            return False
        readers = self.readers
        if not (readers.may_keep_session(now) if opened else readers.want_session):
            return False
        return now < min(self.source.keep_session_until(), self._outputs_keep_session_until())

    def deadlines(self) -> tuple[float, ...]:
        """Return the times at which one of the results changes without an event."""
        return (
            self.readers.left_at + self.readers.grace,
            self.source.keep_session_until(),
            self._outputs_keep_session_until(),
        )

    def _outputs_keep_session_until(self) -> float:
        since = self.outputs_lost_since
        return NEVER if since is None else since + OUTPUT_LOSS_LIMIT
