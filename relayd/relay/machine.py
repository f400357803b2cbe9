"""The relay's state machine: events and the time in, commands out.

It owns a set of sessions of which at most one is shown. There are never more than two, and two
only while one takes over from the other; rotation, a token that ends, a rejoin and sessions on
demand are transitions of that set. Each event first updates the state; then a few rules derive
commands from the whole state. The machine waits for nothing, reads no clock and does no I/O: the
runner carries out its commands and answers with events.

    StartLink → LinkReady → OpenSession → SessionOpened → SessionReady → JoinLink → LinkJoined
    → PicturesFlow → Show … CloseSession → SessionClosed
"""

import random
from collections.abc import Callable, Iterable
from functools import singledispatchmethod

from relayd.akool.session import FaceChoice
from relayd.errors import FaceRejected
from relayd.logs import LogEvent
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.audible import Audible
from relayd.relay.commands import Command
from relayd.relay.conditions import LONG_AGO, NEVER, Conditions, Readers
from relayd.relay.events import Event
from relayd.relay.holdoff import Holdoff
from relayd.relay.policy import Policy
from relayd.relay.session_set import SessionSet
from relayd.relay.sessions import (
    CLOSE_TIMEOUT,
    CREATE_TIMEOUT,
    FACE_RETRY,
    FACE_TRIES,
    JOIN_TIMEOUT,
    QUEUE_TIMEOUT,
    Session,
    Stage,
)
from relayd.relay.status import RelayState
from relayd.relay.view import View, describe


class Machine:
    """Decides everything about a relay's sessions; not thread-safe."""

    def __init__(
        self,
        policy: Policy,
        face: FaceChoice,
        *,
        doubts: Iterable[float] = (),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Start without a session; `doubts` are times of earlier lost answers (monotonic s)."""
        self.face = face
        """The face to put on."""
        self.conditions = Conditions(
            Readers(policy.on_demand, policy.grace),
            voice_apart=policy.voice_apart,
            voice_recorded=policy.voice_recorded,
        )
        self.doubtful = 0
        """Creates of this run whose answer was lost."""
        self._commands: list[Command] = []
        self._policy = policy
        self._holdoff = Holdoff(doubts, jitter=jitter)
        self.sessions = SessionSet(self._holdoff, self._commands)
        self._started = False
        self._now = LONG_AGO
        self._reported_shown: int | None = None
        self._reported_frozen = False
        self._reported_view: View | None = None
        self._audible = Audible(policy.sound_standby)
        self._reported_sound: do.SteerSound | None = None
        self._has_voice = True
        """Whether the voice's device was last asked to be open: it is started so."""
        self._wake_at: float | None = None

    def handle(self, event: Event, now: float) -> list[Command]:
        """Handle an event at `now` (monotonic s); returns the commands, in order."""
        self._now = now
        self._commands.clear()
        was_over = self.is_over
        if isinstance(event, on.SessionDoubtful):  # counts even if the session is gone
            self.doubtful += 1
            self._holdoff.on_lost_answer(now)
        if isinstance(event, on.SessionEvent):
            if session := self.sessions.by_number.get(event.number):
                self._on_session(event, session)
        else:
            self._on(event)
        if self._started and not was_over:
            self._end_late_stages()
            self._close_unwanted()
            self._steer_source()
            self._steer_voice()
            self.sessions.show_newest(now)
            self._open_wanted()
            self._open_successor()
            self._apply_face()
            self._report_changes()
            self._schedule()
        return list(self._commands)

    def view(self, now: float) -> View:
        """Return the relay's state, reason and demand."""
        return describe(self.sessions, self.conditions, self._holdoff, now)

    @property
    def is_over(self) -> bool:
        """Whether it was stopped and no session is left."""
        return self.conditions.stopping and not self.sessions.by_number

    # Events that belong to no session.

    @singledispatchmethod
    def _on(self, event: Event) -> None:
        """Handle an event that belongs to no session."""
        raise NotImplementedError(event)

    @_on.register
    def _(self, _: on.TimerDue) -> None:
        self._wake_at = None

    @_on.register
    def _(self, _: on.Started) -> None:
        self._started = True

    @_on.register
    def _(self, _: on.Stop) -> None:
        self._started = self.conditions.stopping = True

    @_on.register
    def _(self, _: on.Paused) -> None:
        self.conditions.paused = True

    @_on.register
    def _(self, _: on.Resumed) -> None:
        self.conditions.paused = False
        self._holdoff.on_user_action(account_checked=True)

    @_on.register
    def _(self, event: on.FaceChosen) -> None:
        self.face = event.face
        self._holdoff.on_user_action(account_checked=False)
        for session in self.sessions.by_number.values():
            session.face_tries, session.face_not_before = 0, LONG_AGO

    @_on.register
    def _(self, event: on.PolicyChanged) -> None:
        self._policy = policy = event.policy
        self._audible.standby = policy.sound_standby
        readers = self.conditions.readers
        readers.set_policy(self._now, on_demand=policy.on_demand, grace=policy.grace)

    @_on.register
    def _(self, event: on.ReadersChanged) -> None:
        readers = self.conditions.readers
        wanted = readers.want_session
        readers.set_count(event.device, event.count, self._now)
        if readers.want_session and not wanted and not self.sessions.working:
            self._holdoff.on_arrival()

    @_on.register
    def _(self, event: on.ListenersChanged) -> None:
        self.conditions.listeners[event.microphone] = event.count

    @_on.register
    def _(self, event: on.OutputsChanged) -> None:
        conditions = self.conditions
        conditions.outputs_reason = event.reason
        if event.working:
            conditions.outputs_lost_since = None
        elif conditions.outputs_lost_since is None:
            conditions.outputs_lost_since = self._now

    @_on.register
    def _(self, _: on.SourceUp) -> None:
        self.conditions.source.on_up()

    @_on.register
    def _(self, event: on.SourceDown) -> None:
        self.conditions.source.on_down(event.reason, self._now)

    @_on.register
    def _(self, _: on.SourceEnded) -> None:
        self.conditions.source.on_end()

    @_on.register
    def _(self, event: on.BudgetChanged) -> None:
        self.conditions.budget_spent = event.spent
        self.conditions.budget_reason = event.reason

    @_on.register
    def _(self, _: on.SleepComing) -> None:
        self.conditions.asleep = True

    @_on.register
    def _(self, _: on.WokeUp) -> None:
        self.conditions.asleep = False

    # Events of one session.

    @singledispatchmethod
    def _on_session(self, event: on.SessionEvent, session: Session) -> None:
        """Handle an event of one session."""
        raise NotImplementedError(event)

    @_on_session.register
    def _(self, _: on.LinkReady, session: Session) -> None:
        if session.stage is not Stage.LOADING:
            return
        if session.opened:
            session.enter(Stage.JOINING, session.deadline)
            self._emit(do.JoinLink(session.number))
        else:
            session.face = self.face
            session.enter(Stage.CREATING, self._now + CREATE_TIMEOUT)
            self._emit(do.OpenSession(session.number, self.face))

    @_on_session.register
    def _(self, _: on.SessionOpened, session: Session) -> None:
        session.opened = True
        if session.stage is Stage.CREATING:
            session.enter(Stage.QUEUED, self._now + QUEUE_TIMEOUT)

    @_on_session.register
    def _(self, _: on.SessionReady, session: Session) -> None:
        if session.stage is Stage.QUEUED:
            session.enter(Stage.JOINING, self._now + JOIN_TIMEOUT)
            self._emit(do.JoinLink(session.number))

    @_on_session.register
    def _(
        self, event: on.SessionRefused | on.SessionDoubtful | on.SessionEnded, session: Session
    ) -> None:
        if not session.is_closing:
            self.sessions.fail(session, event.error, self._now)

    @_on_session.register
    def _(self, _: on.SessionClosed, session: Session) -> None:
        self.sessions.forget(session)

    @_on_session.register
    def _(self, _: on.LinkJoined, session: Session) -> None:
        if session.stage is Stage.JOINING:
            session.enter(Stage.WAITING, self._now + self._policy.first_frame_timeout)

    @_on_session.register
    def _(self, _: on.PicturesFlow, session: Session) -> None:
        if session.stage in {Stage.JOINING, Stage.WAITING, Stage.LIVE}:
            session.on_pictures(self._now, self._policy.session_max)

    @_on_session.register
    def _(self, event: on.PicturesStopped, session: Session) -> None:
        if session.stage is not Stage.LIVE:
            return
        if session.flowing:
            session.on_pictures_stopped(event.last_at, self._now)
        if not session.fault:
            self.sessions.rejoin(session, event.error, self._now)

    @_on_session.register
    def _(self, event: on.LinkDegraded, session: Session) -> None:
        if session.stage is Stage.LIVE:
            session.on_degraded(event.reason or "the link is being repaired")

    @_on_session.register
    def _(self, _: on.LinkRecovered, session: Session) -> None:
        if session.stage is Stage.LIVE:
            session.on_recovered(self._now, self._policy.stall_timeout)

    @_on_session.register
    def _(self, event: on.LinkLost, session: Session) -> None:
        if not session.is_closing:
            self.sessions.rejoin(session, event.error, self._now)

    @_on_session.register
    def _(self, _: on.TokenExpiring, session: Session) -> None:
        if not session.is_closing:
            self._emit(do.RenewToken(session.number))

    @_on_session.register
    def _(self, _: on.TokenFinal, session: Session) -> None:
        session.set_ending_early(self._now)

    @_on_session.register
    def _(self, event: on.FaceApplied, session: Session) -> None:
        session.face_pending, session.face_tries = False, 0
        session.face = event.face

    @_on_session.register
    def _(self, event: on.FaceRefused, session: Session) -> None:
        session.face_pending = False
        if event.face != self.face:
            return  # another one has been chosen since
        is_live = session.stage is Stage.LIVE
        if is_live and isinstance(event.error, FaceRejected):
            self.face = session.face  # keep the usable face
        session.face_tries += is_live
        retry = session.face_tries < FACE_TRIES
        session.face_not_before = self._now + FACE_RETRY if is_live and retry else NEVER

    # The rules, in the order in which they are applied after each event.

    def _end_late_stages(self) -> None:
        for session in list(self.sessions.by_number.values()):
            if self._now < session.deadline:
                continue
            if session.is_closing:
                self.sessions.forget(session)
                self._emit(
                    do.LogWarning(
                        LogEvent.SESSION_CLOSE_GIVEN_UP, f"not over in {CLOSE_TIMEOUT:g} s"
                    )
                )
            else:
                error = session.timeout_error(self._policy.first_frame_timeout)
                self.sessions.rejoin(session, error, self._now)

    def _close_unwanted(self) -> None:
        conditions, may_open = self.conditions, self.conditions.obstacle() is None

        def wanted(session: Session) -> bool:
            if session.stage is Stage.LOADING and not session.opened:
                return may_open  # it costs nothing yet
            return conditions.may_keep_session(self._now, opened=session.opened)

        self.sessions.close_unless(wanted, self._now)

    def _steer_source(self) -> None:
        source = self.conditions.source
        needed = self.conditions.needs_source(self._now)
        if self.conditions.stopping or source.suspended is not needed:
            return
        if needed:
            source.resume()
            self._emit(do.ResumeSource())
        else:
            source.suspend()
            self._emit(do.SuspendSource())

    def _steer_voice(self) -> None:
        conditions = self.conditions
        needed = conditions.needs_voice(self._now)
        if conditions.voice_apart and not conditions.stopping and needed is not self._has_voice:
            self._has_voice = needed
            self._emit(do.SteerVoice(needed))

    def _open_wanted(self) -> None:
        if (
            not self.sessions.by_number
            and self.conditions.obstacle() is None
            and self._holdoff.allows(self._now)
        ):
            self._holdoff.on_open()
            self.sessions.open(self.face, self._now)

    def _open_successor(self) -> None:
        shown = self.sessions.shown_session
        if (
            shown is not None
            and len(self.sessions.by_number) == 1
            and shown.stage is Stage.LIVE
            and self._now >= shown.ends_at
            and self.conditions.obstacle() is None
            and self._holdoff.allows_successor(self._now)
        ):
            self.sessions.open(self.face, self._now)

    def _apply_face(self) -> None:
        for session in self.sessions.working:
            if (
                session.can_change_face
                and session.face != self.face
                and not session.face_pending
                and self._now >= session.face_not_before
            ):
                session.face_pending = True
                self._emit(do.UpdateFace(session.number, self.face))

    def _report_changes(self) -> None:
        if self.sessions.shown != self._reported_shown:
            self._reported_shown = self.sessions.shown
            self._emit(do.Show(self.sessions.shown))
        frozen = not self.conditions.source.alive
        if frozen is not self._reported_frozen:
            self._reported_frozen = frozen
            self._emit(do.Freeze() if frozen else do.Thaw())
        view = self.view(self._now)
        if view != self._reported_view:
            self._reported_view = view
            self._emit(do.Report(view.state, view.reason, view.demand))
        if self._policy.sound:
            self._report_sound(view.state)

    def _report_sound(self, state: RelayState) -> None:
        conditions = self.conditions
        voice_alone = conditions.is_voice_alone(self._now)
        silent_for = self._audible.silent_for(state, conditions, voice_alone=voice_alone)
        sound = do.SteerSound(silent_for, voice_alone=voice_alone)
        if sound != self._reported_sound:
            self._reported_sound = sound
            self._emit(sound)

    def _schedule(self) -> None:
        moments = [*self.conditions.deadlines(), *self._holdoff.deadlines()]
        for session in self.sessions.by_number.values():
            moments += session.deadline, session.ends_at, session.face_not_before
        coming = [moment for moment in moments if self._now < moment < NEVER]
        wake_at = None if self.is_over else min(coming, default=None)
        if wake_at != self._wake_at:
            self._wake_at = wake_at
            self._emit(do.WakeAt(wake_at))

    def _emit(self, command: Command) -> None:
        self._commands.append(command)
