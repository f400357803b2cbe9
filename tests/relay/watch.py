"""Checks the invariants of the relay's state machine after each event of a simulation."""

from bisect import bisect
from itertools import pairwise

from relayd.logs import LogEvent
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.commands import Command
from relayd.relay.events import Event
from relayd.relay.holdoff import BLOCKED_RETRY, DOUBT_MEMORY, DOUBT_WAIT, MAX_DOUBTS, Hold
from relayd.relay.policy import Policy
from relayd.relay.sessions import (
    CLOSE_TIMEOUT,
    MAX_SHORT_LINKS,
    MIN_LIFETIME,
    QUEUE_TIMEOUT,
    REJOIN_TRIES,
    STABLE_AFTER,
)
from tests.relay.reported import ReportedConditions
from tests.relay.world import Chances, Record, World

LONGEST_DARK = 300.0  # s that an open session may show nothing: its way there, or three rejoins
INSTANT = 1e-6  # s, shorter than any wait
FAILURES = on.LinkLost | on.SessionEnded | on.SessionRefused | on.SessionDoubtful
ANY_HOUR = 420  # creates: each half minute a good session, and after each six failures at once


class Watched(World):
    """A simulation that checks the machine's invariants after each event."""

    def __init__(
        self, policy: Policy, chances: Chances, seed: int, doubts: tuple[float, ...]
    ) -> None:
        super().__init__(policy, chances, seed, doubts)
        self.reported = ReportedConditions(policy)
        self.report: do.Report | None = None
        self.creates: list[float] = []
        self.doubts: list[float] = []
        self.asked: list[float] = []
        self.shown: int | None = None
        self.over = False
        self.played: list[tuple[float, Event, list[Command]]] = []

    def play(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while (moment := self.next_moment()) is not None and moment <= end:
            if event := self.next_event():
                self.send(event)
        self.now = max(self.now, end)

    def send(self, event: Event) -> None:
        """Send an event to the machine, carry out its commands, and check all invariants."""
        if self.played and self.played[-1][0] < self.now - INSTANT and not self.over:
            self._check_view_is_reported(self.now - INSTANT)  # no change without an event
        self._before(event)
        commands = self.machine.handle(event, self.now)
        self.played.append((self.now, event, commands))
        self.events += 1
        assert not (self.over and commands), "a command after the end"
        for command in commands:
            self._check(command, event)
            self.carry_out(command)
        self._check_invariants()
        if self.random.random() < 0.1:
            again = self.machine.handle(on.TimerDue(), self.now)
            self.played.append((self.now, on.TimerDue(), again))
            assert [each for each in again if each != do.WakeAt(self.wake_at)] == []

    def _before(self, event: Event) -> None:
        source = self.machine.conditions.source
        self.reported.record(event, self.now, source_suspended=source.suspended)
        match event:
            case on.Resumed():
                self.asked.append(self.now)
                self.doubts.clear()
            case on.FaceChosen():
                self.asked.append(self.now)
            case on.SessionDoubtful():
                self.doubts.append(self.now)
                recent = [each for each in self.doubts if each > self.now - DOUBT_MEMORY]
                assert len(recent) <= MAX_DOUBTS
            case _:
                pass
        if isinstance(event, on.SessionEvent) and event.number in self.records:
            self._note(event, self.records[event.number])

    def _note(self, event: on.SessionEvent, record: Record) -> None:
        match event:
            case on.LinkReady():
                record.link_ready = True
            case on.SessionOpened():
                record.opened = True
                record.dark_since = self.now
                if record.close_ordered is None:
                    self.opened(record.number)
            case on.SessionReady():
                record.ready = True
            case on.PicturesFlow() if record.join_ordered:
                record.flowing, record.dark_since, record.rejoins = True, None, 0
                record.live_since = self.now if record.live_since is None else record.live_since
                record.link_up_at = self.now if record.link_up_at is None else record.link_up_at
            case on.PicturesStopped() | on.LinkLost() if record.flowing:
                record.flowing, record.dark_since = False, self.now
            case on.TokenFinal():
                record.token_final = True
            case on.FaceApplied() | on.FaceRefused():
                record.face_pending = False
            case on.SessionClosed():
                record.over = True
            case _:
                pass

    def _check(self, command: Command, event: Event) -> None:
        """Each command comes at the right time, once, and for an existing session."""
        match command:
            case do.WakeAt(moment):
                assert moment is None or moment > self.now
            case do.SuspendSource():
                self.reported.suspend_source()
            case do.ResumeSource():
                self.reported.resume_source()
            case do.Report():
                assert command != self.report
                self.report = command
            case do.LogWarning(LogEvent.SESSION_CLOSE_GIVEN_UP):
                self._note_given_up()
            case do.StartLink(number) if number not in self.records:
                self._check_new(number)
            case do.Show(number):
                assert number != self.shown
                self.shown = number
                if number is not None:
                    self.records[number].was_shown = True
            case do.SessionCommand(number):
                record = self.records[number]
                assert not record.over
                assert record.close_ordered is None
                self._check_order(command, record, event)
            case _:
                pass

    def _note_given_up(self) -> None:
        for number, record in self.records.items():
            if not record.over and number not in self.machine.sessions.by_number:
                assert record.close_ordered is not None
                assert self.now >= record.close_ordered + CLOSE_TIMEOUT
                record.over = True

    def _check_new(self, number: int) -> None:
        assert number == len(self.records) + 1
        others = [each for each in self.records.values() if not each.over]
        assert len(others) <= 1, "a third session"
        for other in others:
            assert other.number == self.machine.sessions.shown, "two without a takeover"
            assert other.close_ordered is None
            assert other.live_since is not None
            life = min(other_life for other_life in self._lives(other))
            assert self.now >= other.live_since + life, "a successor that is not due"
        self._check_not_doubted()
        self.records[number] = Record(number, link=1)

    def _lives(self, record: Record) -> list[float]:
        session = self.machine.sessions.by_number[record.number]
        assert record.live_since is not None
        return [MIN_LIFETIME] * record.token_final + [session.ends_at - record.live_since]

    def _check_not_doubted(self) -> None:
        if self.doubts:
            recent = [each for each in self.doubts if each > self.doubts[-1] - DOUBT_MEMORY]
            assert self.now >= self.doubts[-1] + DOUBT_WAIT * 2 ** (len(recent) - 1)

    def _check_order(self, command: Command, record: Record, event: Event) -> None:
        match command:
            case do.StartLink():
                assert record.live_since is not None, "a rejoin of a session that was never live"
                assert not record.flowing, "a link with pictures is replaced"
                record.link, record.link_ready, record.join_ordered = record.link + 1, False, False
                self._count_rejoin(record)
            case do.OpenSession():
                assert record.link_ready
                assert not record.create_ordered
                record.create_ordered, record.face = True, command.face
                self.creates.append(self.now)
                self._check_not_doubted()
            case do.JoinLink():
                assert record.link_ready
                assert record.ready
                assert not record.join_ordered
                record.join_ordered = True
            case do.UpdateFace():
                assert record.opened
                assert not record.face_pending
                record.face_pending = True
            case do.CloseSession():
                record.close_ordered = self.now
                newer = self.shown is not None or self.machine.sessions.shown != record.number
                failed = isinstance(event, FAILURES)
                session = self.machine.sessions.by_number[record.number]
                cause = failed or newer or self.reported.forbids(session, self.now)
                assert cause or not record.flowing, "a session with pictures is closed"
                record.flowing = False
            case _:
                pass

    def _count_rejoin(self, record: Record) -> None:
        if record.link_up_at is not None:
            assert record.dark_since is not None
            short = record.dark_since - record.link_up_at < STABLE_AFTER
            record.short_links = record.short_links + 1 if short else 0
            record.link_up_at = None
        record.rejoins += 1
        assert record.short_links <= MAX_SHORT_LINKS
        assert record.rejoins <= REJOIN_TRIES

    def _check_invariants(self) -> None:
        """Check what must hold between any two events."""
        sessions = self.machine.sessions
        assert set(sessions.by_number) == {
            number for number, record in self.records.items() if not record.over
        }
        assert len(sessions.by_number) <= 2
        for session in sessions.working:
            assert not self.reported.forbids(session, self.now), "it is not wanted"
            dark = self.records[session.number].dark_since
            assert dark is None or self.now - dark <= LONGEST_DARK, "it shows nothing"
        self._check_newest_is_shown()
        self._check_progress()
        if self.report and not self.over:
            self._check_view_is_reported(self.now)
        self.over = self.machine.is_over
        if self.over:
            assert self.wake_at is None
            assert self.shown is None

    def _check_newest_is_shown(self) -> None:
        working = {session.number for session in self.machine.sessions.working}
        flowing = [number for number in working if self.records[number].flowing]
        assert self.shown == self.machine.sessions.shown
        if flowing:
            assert self.shown == max(flowing)
            assert min(working) == self.shown, "an older one is kept"
        else:
            assert self.shown is None or self.shown in working

    def _check_progress(self) -> None:
        """Check that nothing waits without a limit, except for the conditions."""
        sessions, machine = self.machine.sessions, self.machine
        soonest = self.now + BLOCKED_RETRY
        waits = [each for each in sessions.by_number.values() if not each.shows_pictures]
        if waits:
            soonest = self.now + QUEUE_TIMEOUT
        elif (
            self.report is None  # not started yet
            or sessions.by_number
            or machine.conditions.obstacle() is not None
            or machine._holdoff.hold(self.now) is Hold.DOUBTFUL
        ):
            return
        assert self.wake_at is not None
        assert self.wake_at <= soonest

    def _check_view_is_reported(self, now: float) -> None:
        view, report = self.machine.view(now), self.report
        assert report is not None
        assert (view.state, view.reason, view.demand) == (
            report.state, report.reason, report.demand,
        )  # fmt: skip

    def check_history(self, max_per_hour: int = ANY_HOUR) -> None:
        """Check at the end: no flood of creates, and a replay gives the same commands."""
        for index, begin in enumerate(self.creates):
            within = bisect(self.creates, begin + 3600.0) - index
            asked = bisect(self.asked, begin + 3600.0) - bisect(self.asked, begin - 3600.0)
            assert within <= max_per_hour + 8 * asked
        twin = self.new_machine()
        for moment, event, commands in self.played:
            assert twin.handle(event, moment) == commands
        assert all(one[0] <= other[0] for one, other in pairwise(self.played))
