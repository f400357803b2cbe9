"""What the machine was told of its surroundings, and whether a session is of use by that."""

from relayd.relay import events as on
from relayd.relay.conditions import LONG_AGO, OUTPUT_LOSS_LIMIT, SOURCE_LOSS_LIMIT
from relayd.relay.events import Event
from relayd.relay.policy import Policy
from relayd.relay.sessions import Session, Stage


class Told:
    """What the machine was told of its surroundings, kept in another way than the machine does."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.counts: dict[str, int | None] = {}
        self.left_at = LONG_AGO
        self.source_gone: float | None = LONG_AGO
        self.source_failed = self.source_wakes = False
        self.outputs_gone: float | None = None
        self.flags: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Somebody looks, or that does not matter."""
        if not self.policy.on_demand:
            return True
        return any(count is None or count > 0 for count in self.counts.values())

    def take(self, event: Event, now: float, *, asleep_source: bool) -> None:
        """Take an event in."""
        was_wanted = self.wanted
        match event:
            case on.ReadersChanged(device, count):
                self.counts[device] = count
            case on.PolicyChanged(policy):
                self.policy = policy
            case on.OutputsChanged(working):
                gone = now if self.outputs_gone is None else self.outputs_gone
                self.outputs_gone = None if working else gone
            case on.SourceUp() | on.SourceDown() | on.SourceEnded() if not asleep_source:
                self._take_source(event, now)
            case _:
                self._take_order(event)
        if was_wanted and not self.wanted:
            self.left_at = now

    def _take_order(self, event: Event) -> None:
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

    def _take_source(self, event: Event, now: float) -> None:
        if isinstance(event, on.SourceDown):
            if self.source_gone is None:
                self.source_gone = LONG_AGO if self.source_wakes else now
        else:
            self.source_gone = None if isinstance(event, on.SourceUp) else LONG_AGO
        self.source_failed, self.source_wakes = isinstance(event, on.SourceDown), False

    def let_go(self) -> None:
        """Take in that the source is let go of."""
        self.source_gone = LONG_AGO

    def open_again(self) -> None:
        """Take in that the source is opened again: it counts as there unless it failed before."""
        self.source_wakes = not self.source_failed
        self.source_gone = None if self.source_wakes else LONG_AGO

    def forbids(self, session: Session, now: float) -> bool:
        """Whether this session has to be closed by now."""
        if self.flags:
            return True
        if not self.wanted and (not session.opened or now >= self.left_at + self.policy.grace):
            return True
        outputs, source = self.outputs_gone, self.source_gone
        if session.stage is Stage.LOADING and not session.opened and outputs is not None:
            return True
        return (outputs is not None and now >= outputs + OUTPUT_LOSS_LIMIT) or (
            source is not None and now >= source + SOURCE_LOSS_LIMIT
        )
