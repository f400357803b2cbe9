"""What a relay's state machine asks for; the runner carries it out."""

from dataclasses import dataclass

from relayd.akool.session import FaceChoice
from relayd.logs import LogEvent
from relayd.relay.status import DemandState, RelayState


@dataclass(frozen=True, slots=True)
class Command:
    """The root of all commands."""


@dataclass(frozen=True, slots=True)
class WakeAt(Command):
    """Send `TimerDue` at this moment (monotonic s) and not at an earlier one; None: never."""

    moment: float | None


@dataclass(frozen=True, slots=True)
class Report(Command):
    """Tell everybody where the relay stands."""

    state: RelayState
    reason: str
    demand: DemandState


@dataclass(frozen=True, slots=True)
class LogWarning(Command):
    """Write a warning to the log."""

    event: LogEvent
    reason: str


@dataclass(frozen=True, slots=True)
class Show(Command):
    """Show the pictures of this session, and of no other; None: of none."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Freeze(Command):
    """Let no swapped picture pass: the source is away, what still comes is an echo of it."""


@dataclass(frozen=True, slots=True)
class Thaw(Command):
    """Let the shown session's pictures pass again."""


@dataclass(frozen=True, slots=True)
class SuspendSource(Command):
    """Let go of the source."""


@dataclass(frozen=True, slots=True)
class ResumeSource(Command):
    """Open the source again."""


@dataclass(frozen=True, slots=True)
class SessionCommand(Command):
    """Something is to be done with one session."""

    number: int


@dataclass(frozen=True, slots=True)
class StartLink(SessionCommand):
    """Start its worker process, in place of the one it has, if any."""


@dataclass(frozen=True, slots=True)
class OpenSession(SessionCommand):
    """Ask the service for it, then wait for its turn."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class JoinLink(SessionCommand):
    """Join its channel."""


@dataclass(frozen=True, slots=True)
class UpdateFace(SessionCommand):
    """Put another face on, within the session."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class RenewToken(SessionCommand):
    """Ask the service for a newer token and hand it to the link."""


@dataclass(frozen=True, slots=True)
class CloseSession(SessionCommand):
    """Close it at the service and stop its worker, side by side, whatever it was doing.

    Answered by `SessionClosed` in any case.
    """
