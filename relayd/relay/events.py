"""What happens to a relay: everything its state machine is told.

Events of one session carry its `number`, which the machine gave when it asked for it. One that
comes late, for a session that is gone, is ignored; but a lost answer counts whenever it is told.
"""

from dataclasses import dataclass

from relayd.akool.session import FaceChoice
from relayd.errors import RelaydError
from relayd.relay.policy import Policy


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events."""


# What people, readers and the machine around the relay do.


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The outputs show pictures: the relay may begin."""


@dataclass(frozen=True, slots=True)
class Stop(Event):
    """The relay ends: close every session and open none."""


@dataclass(frozen=True, slots=True)
class TimerDue(Event):
    """The moment of the last `WakeAt` has come."""


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """A person wants no session until it is resumed."""


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A person ends a pause, and any wait for the next try."""


@dataclass(frozen=True, slots=True)
class FaceChosen(Event):
    """A person chose the face to put on."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class PolicyChanged(Event):
    """A reload brought other settings."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class ReadersChanged(Event):
    """Another number of programs reads a camera; None: that cannot be seen."""

    device: str
    count: int | None


@dataclass(frozen=True, slots=True)
class OutputsChanged(Event):
    """Some output works, or none does."""

    working: bool
    reason: str = ""
    """Why none does, in words."""


@dataclass(frozen=True, slots=True)
class SourceUp(Event):
    """The source gives pictures."""


@dataclass(frozen=True, slots=True)
class SourceDown(Event):
    """The source gives no pictures; it is tried again."""

    reason: str


@dataclass(frozen=True, slots=True)
class SourceEnded(Event):
    """A recording came to its end and is not looped."""


@dataclass(frozen=True, slots=True)
class BudgetChanged(Event):
    """The day's limit was reached, or a new day began."""

    spent: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SleepComing(Event):
    """The machine is about to be suspended: close every session before that."""


@dataclass(frozen=True, slots=True)
class WokeUp(Event):
    """The machine runs again after a suspend."""


# What becomes of a session.


@dataclass(frozen=True, slots=True)
class SessionEvent(Event):
    """Something happened to one session."""

    number: int


@dataclass(frozen=True, slots=True)
class SessionOpened(SessionEvent):
    """The service opened it: from now on it bills."""


@dataclass(frozen=True, slots=True)
class SessionReady(SessionEvent):
    """Its turn has come: it can be joined."""


@dataclass(frozen=True, slots=True)
class SessionRefused(SessionEvent):
    """It certainly was not opened."""

    error: RelaydError


@dataclass(frozen=True, slots=True)
class SessionDoubtful(SessionEvent):
    """The answer was lost: the service may have opened it, under an id that nobody knows."""

    error: RelaydError


@dataclass(frozen=True, slots=True)
class SessionEnded(SessionEvent):
    """The service gave it up, or keeps it in its queue too long."""

    error: RelaydError


@dataclass(frozen=True, slots=True)
class SessionClosed(SessionEvent):
    """Its close is over: confirmed, or left to the journal."""


# What becomes of the link of a session.


@dataclass(frozen=True, slots=True)
class LinkReady(SessionEvent):
    """The worker process has its library loaded and can join."""


@dataclass(frozen=True, slots=True)
class LinkJoined(SessionEvent):
    """The channel took us in."""


@dataclass(frozen=True, slots=True)
class PicturesFlow(SessionEvent):
    """Swapped pictures come: the first one, or the first one after they had stopped."""


@dataclass(frozen=True, slots=True)
class PicturesStopped(SessionEvent):
    """No swapped picture came for `rtc.stall_timeout`, though pictures are sent."""

    error: RelaydError
    last_at: float
    """When the last one came, monotonic s."""


@dataclass(frozen=True, slots=True)
class LinkDegraded(SessionEvent):
    """A connection broke, and the link repairs it by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class LinkRecovered(SessionEvent):
    """What `LinkDegraded` told of is repaired."""


@dataclass(frozen=True, slots=True)
class LinkLost(SessionEvent):
    """The link is over: refused, lost, or its worker process died."""

    error: RelaydError


@dataclass(frozen=True, slots=True)
class TokenExpiring(SessionEvent):
    """The token that the channel was joined with ends soon."""


@dataclass(frozen=True, slots=True)
class TokenFinal(SessionEvent):
    """The service has no newer token: the session ends with the one it has."""


@dataclass(frozen=True, slots=True)
class FaceApplied(SessionEvent):
    """The session wears this face now."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class FaceRefused(SessionEvent):
    """The session did not take this face."""

    face: FaceChoice
    error: RelaydError
