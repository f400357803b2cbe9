"""Feeds events to the state machine on the test's own clock, and records its commands."""

from collections.abc import Iterable, Sequence

from relayd.akool.session import FaceChoice
from relayd.errors import (
    FaceRejected,
    JoinFailed,
    JoinRefused,
    LinkLost,
    LinkStalled,
    QuotaExhausted,
    RelaydError,
    ServiceUnreachable,
    SessionFailed,
)
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.commands import Command
from relayd.relay.events import Event
from relayd.relay.machine import Machine
from relayd.relay.policy import Policy
from relayd.relay.sessions import Session, Stage
from relayd.relay.status import RelayState

BEGAN = 1000.0  # monotonic s
CAMERA = "/dev/video0"
FACE = FaceChoice("http://service.example/a.png", "1,2:3,4:5,6:7,8")
OTHER_FACE = FaceChoice("http://service.example/b.png", "1,2:3,4:5,6:7,8")
THIRD_FACE = FaceChoice("http://service.example/c.png", "1,2:3,4:5,6:7,8")
ON_DEMAND = Policy(on_demand=True, grace=30.0)
ROTATING = Policy(session_max=2700.0)
LOST = LinkLost("the link broke")
STALLED = LinkStalled("no swapped picture for 3 s")
NOT_JOINED = JoinFailed("channel not joined within 15 s")
TOKEN_REFUSED = JoinRefused("the token is not valid")
ENDED = SessionFailed("the service gave it up")
NO_CREDIT = QuotaExhausted("no credit is left")
BAD_FACE = FaceRejected("no face is in the picture")
UNANSWERED = ServiceUnreachable("the answer was cut off")

_PASSIVE = do.Report, do.WakeAt, do.Freeze, do.Thaw, do.SteerSound


def state_of(play: "Play") -> RelayState:
    """Return the state; a call keeps mypy from assuming that it is as asserted before."""
    return play.state


class Play:
    """A machine, the time, and all its commands; waits are at the middle of their jitter."""

    def __init__(self, policy: Policy | None = None, *, doubts: Iterable[float] = ()) -> None:
        self.machine = Machine(policy or Policy(), FACE, doubts=doubts, jitter=lambda: 0.5)
        self.now = BEGAN
        self.wake_at: float | None = None
        self.history: list[tuple[float, Command]] = []

    def feed(self, *events: Event) -> list[Command]:
        """Feed events at this time; returns the commands for sessions, source and outputs."""
        commands_given: list[Command] = []
        for event in events:
            commands = self.machine.handle(event, self.now)
            self.history += [(self.now, command) for command in commands]
            for command in commands:
                if isinstance(command, do.WakeAt):
                    assert command.moment is None or command.moment > self.now
                    self.wake_at = command.moment
            commands_given += [each for each in commands if not isinstance(each, _PASSIVE)]
        return commands_given

    def advance(self, seconds: float) -> list[Command]:
        """Advance the time, firing each timer when it is due."""
        end, commands_given = self.now + seconds, list[Command]()
        while self.wake_at is not None and self.wake_at <= end:
            self.now, self.wake_at = self.wake_at, None
            commands_given += self.feed(on.TimerDue())
        self.now = end
        return commands_given

    def start(self) -> list[Command]:
        """Show pictures on the outputs, with a source that gives them."""
        return self.feed(on.SourceUp(), on.Started())

    def reach(self, stage: Stage, number: int = 1) -> list[Command]:
        """Bring a started session to this stage without a wait."""
        commands_given: list[Command] = []
        for reached, event in _WAY:
            if self.session(number).stage is stage:
                break
            if self.session(number).stage is reached:
                commands_given += self.feed(event(number))
        assert self.session(number).stage is stage
        return commands_given

    def go_live(self, number: int = 1) -> list[Command]:
        """Bring a started session to its first pictures."""
        return self.reach(Stage.LIVE, number)

    def live(self) -> "Play":
        """Begin with a live session, the first one."""
        self.start()
        if self.machine.conditions.readers.on_demand:
            self.feed(on.ReadersChanged(CAMERA, 1))
        self.go_live()
        return self

    def with_successor(self, stage: Stage = Stage.QUEUED) -> "Play":
        """Begin with a live session and its successor at this stage; wants a `session_max`."""
        self.live()
        self.advance(self.session(1).ends_at - self.now)
        self.reach(stage, 2)
        return self

    def fail(self, error: RelaydError = NO_CREDIT, number: int | None = None) -> list[Command]:
        """Let the newest session be refused, and its close be over."""
        newest = number or max(self.machine.sessions.by_number)
        if self.session(newest).stage is Stage.LOADING:
            self.feed(on.LinkReady(newest))
        return self.feed(on.SessionRefused(newest, error), on.SessionClosed(newest))

    def session(self, number: int) -> Session:
        """One session, as the machine sees it."""
        return self.machine.sessions.by_number[number]

    @property
    def numbers(self) -> list[int]:
        """All present sessions."""
        return list(self.machine.sessions.by_number)

    @property
    def state(self) -> RelayState:
        """The relay's state."""
        return self.machine.view(self.now).state

    @property
    def reason(self) -> str:
        """The reason of the state."""
        return self.machine.view(self.now).reason

    def times(self, kind: type[Command]) -> list[float]:
        """Return when it gave this command, in s from the beginning."""
        return [moment - BEGAN for moment, each in self.history if isinstance(each, kind)]

    def reports(self) -> list[do.Report]:
        """All reports, in order."""
        return [each for _, each in self.history if isinstance(each, do.Report)]


_WAY: Sequence[tuple[Stage, type[on.SessionEvent]]] = (
    (Stage.LOADING, on.LinkReady),
    (Stage.CREATING, on.SessionOpened),
    (Stage.QUEUED, on.SessionReady),
    (Stage.JOINING, on.LinkJoined),
    (Stage.WAITING, on.PicturesFlow),
)
