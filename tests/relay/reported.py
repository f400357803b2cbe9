"""The conditions that were reported to the machine, and whether they allow a session."""

from relayd.relay import events as on
from relayd.relay.conditions import LONG_AGO, OUTPUT_LOSS_LIMIT, SOURCE_LOSS_LIMIT
from relayd.relay.events import Event
from relayd.relay.policy import Policy
from relayd.relay.sessions import Session, Stage


class ReportedConditions:
    """Conditions as reported by events, computed independently of the machine."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.counts: dict[str, int | None] = {}
        self.left_at = LONG_AGO
        self.source_lost: float | None = LONG_AGO
        self.source_failed = self.source_reopens = False
        self.outputs_lost: float | None = None
        self.flags: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Whether a program reads, or readers do not matter."""
        if not self.policy.on_demand:
            return True
        return any(count is None or count > 0 for count in self.counts.values())

    def record(self, event: Event, now: float, *, source_suspended: bool) -> None:
        """Record an event."""
        was_wanted = self.wanted
        match event:
            case on.ReadersChanged(device, count):
                self.counts[device] = count
            case on.PolicyChanged(policy):
                self.policy = policy
            case on.OutputsChanged(working):
                lost = now if self.outputs_lost is None else self.outputs_lost
                self.outputs_lost = None if working else lost
            case on.SourceUp() | on.SourceDown() | on.SourceEnded() if not source_suspended:
                self._record_source(event, now)
            case _:
                self._record_request(event)
        if was_wanted and not self.wanted:
            self.left_at = now

    def _record_request(self, event: Event) -> None:
        match event:
            case on.Stop():
                self.flags.add("stop")
            case on.Paused():
                self.flags.add("pause")
            case on.Resumed():
                self.flags.discard("pause")
            case on.SleepComing():
                self.flags.add("sleep")
            case on.WokeUp():
                self.flags.discard("sleep")
            case on.BudgetChanged(spent):
                (self.flags.add if spent else self.flags.discard)("spent")
            case _:
                pass

    def _record_source(self, event: Event, now: float) -> None:
        if isinstance(event, on.SourceDown):
            if self.source_lost is None:
                self.source_lost = LONG_AGO if self.source_reopens else now
        else:
            self.source_lost = None if isinstance(event, on.SourceUp) else LONG_AGO
        self.source_failed, self.source_reopens = isinstance(event, on.SourceDown), False

    def suspend_source(self) -> None:
        """Record that the source is released."""
        self.source_lost = LONG_AGO

    def resume_source(self) -> None:
        """Record that the source is reopened: it counts as alive unless it failed before."""
        self.source_reopens = not self.source_failed
        self.source_lost = None if self.source_reopens else LONG_AGO

    def forbids(self, session: Session, now: float) -> bool:
        """Whether this session must be closed by now."""
        if self.flags:
            return True
        if not self.wanted and (not session.opened or now >= self.left_at + self.policy.grace):
            return True
        outputs, source = self.outputs_lost, self.source_lost
        if session.stage is Stage.LOADING and not session.opened and outputs is not None:
            return True
        return (outputs is not None and now >= outputs + OUTPUT_LOSS_LIMIT) or (
            source is not None and now >= source + SOURCE_LOSS_LIMIT
        )
