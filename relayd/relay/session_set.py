"""The sessions of a relay, and how they are added and removed."""

from collections.abc import Callable

from relayd.akool.session import FaceChoice
from relayd.errors import RelaydError
from relayd.logs import LogEvent
from relayd.relay import commands as do
from relayd.relay.commands import Command
from relayd.relay.holdoff import Holdoff
from relayd.relay.sessions import (
    CLOSE_TIMEOUT,
    READY_TIMEOUT,
    REJOIN_TIMEOUT,
    Session,
    Stage,
)


class SessionSet:
    """Sessions by number, oldest first; at most one of them is shown.

    The commands for each change are appended to `commands`.
    """

    def __init__(self, holdoff: Holdoff, commands: list[Command]) -> None:
        """Start empty; `holdoff` is informed of every end of a session."""
        self.by_number: dict[int, Session] = {}
        """Sessions that are open, being opened or being closed."""
        self.shown: int | None = None
        """The number of the session whose pictures are shown."""
        self.link_restarts = 0
        """Workers that replaced another one of the same session."""
        self.changes = 0
        """Sessions that were replaced by a successor, or failed."""
        self._holdoff, self._commands = holdoff, commands
        self._number = 0

    @property
    def working(self) -> list[Session]:
        """Sessions that are not being closed, oldest first."""
        return [session for session in self.by_number.values() if not session.is_closing]

    @property
    def shown_session(self) -> Session | None:
        """The shown session, unless it is being closed."""
        session = self.by_number.get(self.shown) if self.shown is not None else None
        return None if session is None or session.is_closing else session

    def open(self, face: FaceChoice, now: float) -> None:
        """Start another session with its worker, as it is billed from its creation on."""
        self._number += 1
        session = Session(self._number, face)
        session.enter(Stage.LOADING, now + READY_TIMEOUT)
        self.by_number[session.number] = session
        self._commands.append(do.StartLink(session.number))

    def rejoin(self, session: Session, error: RelaydError, now: float) -> None:
        """Start another worker for the session, or fail the session if that is pointless."""
        if not session.may_rejoin(error, now):
            self.fail(session, error, now)
            return
        session.rejoins += 1
        session.fault, session.flowing = str(error), False
        session.enter(Stage.LOADING, now + REJOIN_TIMEOUT)
        self.link_restarts += 1
        self._commands.append(do.StartLink(session.number))

    def fail(self, session: Session, error: RelaydError, now: float) -> None:
        """Fail a session; another one that is open or being opened goes on."""
        self.close(session, now)
        others = self.working
        if others and session.number > others[0].number:
            self._holdoff.on_successor_failure(now, retry_after=error.retry_after or 0.0)
            self._commands.append(do.LogWarning(LogEvent.SESSION_ROTATION_FAILED, str(error)))
            return
        self.changes += 1
        if others:
            self._holdoff.reset_after(session.lifetime(now))
        else:
            self._holdoff.on_failure(error, now, lifetime=session.lifetime(now))

    def close(self, session: Session, now: float) -> None:
        """Close a session in any stage."""
        session.enter(Stage.CLOSING, now + CLOSE_TIMEOUT)
        session.flowing = False
        self._commands.append(do.CloseSession(session.number))

    def close_unless(self, wanted: Callable[[Session], bool], now: float) -> None:
        """Close the sessions that are not wanted."""
        before = self.working
        for session in before:
            if not wanted(session):
                self.close(session, now)
        left = self.working
        if before and not left:
            self._holdoff.on_end(now, lifetime=max(session.lifetime(now) for session in before))
        elif len(left) < len(before):  # the successor was closed: the old one goes on
            self._holdoff.on_successor_failure(now)

    def forget(self, session: Session) -> None:
        """Remove a session whose close is over."""
        self.by_number.pop(session.number, None)

    def show_newest(self, now: float) -> None:
        """Show the newest session that has pictures, and close the older ones."""
        newest = max(
            (session.number for session in self.working if session.shows_pictures), default=None
        )
        if newest is None or newest == self.shown:
            if self.shown_session is None:
                self.shown = None
            return
        older = [session for session in self.working if session.number < newest]
        if older:
            self.changes += 1
            self._holdoff.on_takeover(lifetime=older[0].lifetime(now))
        for session in older:
            self.close(session, now)
        self.shown = newest
