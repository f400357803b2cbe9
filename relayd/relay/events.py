"""Events that the relay's state machine handles.

Events of one session carry its `number`, which the machine assigned. A late event of a session
that is gone is ignored, except a lost answer, which always counts.
"""

from dataclasses import dataclass

from relayd.akool.session import FaceChoice
from relayd.errors import RelaydError
from relayd.relay.policy import Policy


@dataclass(frozen=True, slots=True)
class Event:
    """Base class of all events."""


# From the user, the readers, the source and outputs, and the computer.


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The outputs show pictures: the relay may start sessions."""


@dataclass(frozen=True, slots=True)
class Stop(Event):
    """The relay is being stopped: close every session and open none."""


@dataclass(frozen=True, slots=True)
class TimerDue(Event):
    """The time of the last `WakeAt` has come."""


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """The user wants no session until `Resumed`."""


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """The user ends a pause, and any wait for the next try."""


@dataclass(frozen=True, slots=True)
class FaceChosen(Event):
    """The user chose another face."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class PolicyChanged(Event):
    """A reload brought other settings."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class ReadersChanged(Event):
    """The number of programs that read a camera changed; None: it cannot be counted."""

    device: str
    count: int | None


@dataclass(frozen=True, slots=True)
class ListenersChanged(Event):
    """The number of programs that read a microphone changed; None: it cannot be counted."""

    microphone: str
    count: int | None


@dataclass(frozen=True, slots=True)
class OutputsChanged(Event):
    """At least one output works, or none does."""

    working: bool
    reason: str = ""
    """Why none does, for the user."""


@dataclass(frozen=True, slots=True)
class SourceUp(Event):
    """The source delivers pictures."""


@dataclass(frozen=True, slots=True)
class SourceDown(Event):
    """The source delivers no pictures; its reader tries again."""

    reason: str


@dataclass(frozen=True, slots=True)
class SourceEnded(Event):
    """A recording that is not looped has ended."""


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


# From one session.


@dataclass(frozen=True, slots=True)
class SessionEvent(Event):
    """Base class of events of one session."""

    number: int


@dataclass(frozen=True, slots=True)
class SessionOpened(SessionEvent):
    """The service opened it and bills it from now on."""


@dataclass(frozen=True, slots=True)
class SessionReady(SessionEvent):
    """Its turn has come: it can be joined."""


@dataclass(frozen=True, slots=True)
class SessionRefused(SessionEvent):
    """It was certainly not opened."""

    error: RelaydError


@dataclass(frozen=True, slots=True)
class SessionDoubtful(SessionEvent):
    """The answer was lost: the service may have opened it, under an id that nobody knows."""

    error: RelaydError


@dataclass(frozen=True, slots=True)
class SessionEnded(SessionEvent):
    """The service ended it, or keeps it in its queue too long."""

    error: RelaydError


@dataclass(frozen=True, slots=True)
class SessionClosed(SessionEvent):
    """Its close is over: confirmed, or left to the journal."""


# From the link of a session.


@dataclass(frozen=True, slots=True)
class LinkReady(SessionEvent):
    """The worker process has loaded its library and can join."""


@dataclass(frozen=True, slots=True)
class LinkJoined(SessionEvent):
    """The channel is joined."""


@dataclass(frozen=True, slots=True)
class PicturesFlow(SessionEvent):
    """Swapped pictures arrive: the first one, or the first one after they had stopped."""


@dataclass(frozen=True, slots=True)
class PicturesStopped(SessionEvent):
    """No swapped picture arrived for `rtc.stall_timeout`, though pictures are sent."""

    error: RelaydError
    last_at: float
    """When the last one arrived, monotonic s."""


@dataclass(frozen=True, slots=True)
class LinkDegraded(SessionEvent):
    """A connection broke, and the link is repairing it by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class LinkRecovered(SessionEvent):
    """The fault that `LinkDegraded` reported is repaired."""


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
    """The session uses this face now."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class FaceRefused(SessionEvent):
    """The session refused this face."""

    face: FaceChoice
    error: RelaydError
