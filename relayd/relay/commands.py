"""Commands of a relay's state machine; the runner carries them out."""

from dataclasses import dataclass

from relayd.akool.session import FaceChoice
from relayd.logs import LogEvent
from relayd.relay.status import DemandState, RelayState
from relayd.sound.gate import Silence


@dataclass(frozen=True, slots=True)
class Command:
    """Base class of all commands."""


@dataclass(frozen=True, slots=True)
class WakeAt(Command):
    """Send `TimerDue` at this time (monotonic s), in place of any earlier timer; None: never."""

    moment: float | None


@dataclass(frozen=True, slots=True)
class Report(Command):
    """Publish the relay's state."""

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
    """Show the pictures of this session only; None: of no session."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Freeze(Command):
    """Block swapped pictures: the source is away, and those still arriving show its past."""


@dataclass(frozen=True, slots=True)
class Thaw(Command):
    """Show the shown session's pictures again."""


@dataclass(frozen=True, slots=True)
class SteerSound(Command):
    """Say why nothing may be heard; no reason: the voice may be."""

    silent_for: frozenset[Silence]
    voice_alone: bool
    """There is no picture to be late for: the voice is played as early as possible."""


@dataclass(frozen=True, slots=True)
class SuspendSource(Command):
    """Close the source until `ResumeSource`."""


@dataclass(frozen=True, slots=True)
class ResumeSource(Command):
    """Open the source again."""


@dataclass(frozen=True, slots=True)
class SteerVoice(Command):
    """Open or close the device that captures the voice beside the source."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class SessionCommand(Command):
    """Base class of commands for one session."""

    number: int


@dataclass(frozen=True, slots=True)
class StartLink(SessionCommand):
    """Start its worker process; one that it already has is replaced."""


@dataclass(frozen=True, slots=True)
class OpenSession(SessionCommand):
    """Create it at the service, then wait for its turn in the queue."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class JoinLink(SessionCommand):
    """Join its channel."""


@dataclass(frozen=True, slots=True)
class UpdateFace(SessionCommand):
    """Switch to another face within the session."""

    face: FaceChoice


@dataclass(frozen=True, slots=True)
class RenewToken(SessionCommand):
    """Ask the service for a newer token and hand it to the link."""


@dataclass(frozen=True, slots=True)
class CloseSession(SessionCommand):
    """Close it at the service and stop its worker in parallel, whatever it is doing.

    Always answered by `SessionClosed`.
    """
