"""Sessions as the state machine sees them: the stage of each, and its deadline."""

from dataclasses import dataclass
from enum import Enum

from relayd.akool.session import FaceChoice
from relayd.errors import JoinFailed, LinkStalled, RelaydError, SessionFailed
from relayd.relay.conditions import LONG_AGO, NEVER

READY_TIMEOUT = 20.0
"""s for a worker to load its library; half a second is usual, a cold disk takes a few."""
CREATE_TIMEOUT = 90.0
"""s for the service to check the face and open a session, with retries and their waits; each call
has its own limits, and this one is only a safeguard."""
QUEUE_TIMEOUT = 120.0
"""s that a session may wait in the queue; 5 to 15 s are usual."""
JOIN_TIMEOUT = 15.0
"""s from the command to join until the channel is joined."""
REJOIN_TIMEOUT = 18.0
"""s for the same in a new worker: the old one may take 2 s to leave, the new one 1 s to load."""
RECOVERY_TIMEOUT = 15.0
"""s that a link may repair itself before a new worker is tried: about five rejoins."""
CLOSE_TIMEOUT = 45.0
"""s after which a close counts as over, whatever happened to it: the journal keeps the session. A
create in flight is awaited for 10 s, the close is tried for 10 s, stopping the worker takes 3 s."""
REJOIN_TRIES = 2
"""New workers tried in a session before a new session is opened."""
MAX_SHORT_LINKS = 3
"""Links in a row that may break soon after they came up, before the session fails."""
STABLE_AFTER = 10.0
"""s of a working link after which its end counts as the first again."""
MIN_LIFETIME = 20.0
"""s that a session lives at least, even if its token ends early, so that short-lived tokens cause
no endless loop of billed sessions."""
FACE_TRIES = 3
"""Tries to switch the face of a live session; then only the next session gets it."""
FACE_RETRY = 5.0
"""s between them."""


class Stage(Enum):
    """The stage of a session."""

    LOADING = "loading"
    """Its worker process starts and loads its library."""
    CREATING = "creating"
    """It is being created at the service."""
    QUEUED = "queued"
    """It is open and waits for its turn."""
    JOINING = "joining"
    """Its worker joins the channel."""
    WAITING = "waiting"
    """Joined; no picture has arrived yet."""
    LIVE = "live"
    """Pictures have arrived, and the link is not known to be over."""
    CLOSING = "closing"
    """It is being closed; only `SessionClosed` is awaited."""


@dataclass(slots=True)
class Session:
    """One session and its link."""

    number: int
    face: FaceChoice
    """The face that it uses, as far as is known."""
    stage: Stage = Stage.LOADING
    deadline: float = NEVER
    """When this stage times out."""
    opened: bool = False
    """The service bills it."""
    live_since: float | None = None
    """When its first picture arrived."""
    ends_at: float = NEVER
    """When a successor is due."""
    ends_early: bool = False
    """Its token ends before `session_max`."""
    fault: str = ""
    """Why its link is being repaired or replaced; empty while it works."""
    flowing: bool = False
    """Pictures arrive."""
    stopped_at: float = LONG_AGO
    """When they last stopped."""
    repair_until: float = LONG_AGO
    """Until when its link may repair itself after that."""
    link_up_at: float = LONG_AGO
    """When the first picture of its present link arrived."""
    rejoins: int = 0
    """New workers tried since the last picture."""
    short_links: int = 0
    """Links in a row that ended soon after they came up."""
    face_pending: bool = False
    """An `UpdateFace` has not been answered yet."""
    face_tries: int = 0
    face_not_before: float = LONG_AGO

    @property
    def is_closing(self) -> bool:
        """Whether it is being closed."""
        return self.stage is Stage.CLOSING

    @property
    def shows_pictures(self) -> bool:
        """Whether its pictures can be shown now."""
        return self.stage is Stage.LIVE and self.flowing

    @property
    def can_change_face(self) -> bool:
        """Whether it can be asked to switch to another face."""
        return self.opened and not self.is_closing

    def lifetime(self, now: float) -> float:
        """Return the seconds since its first picture; 0 before."""
        return now - self.live_since if self.live_since is not None else 0.0

    def enter(self, stage: Stage, deadline: float = NEVER) -> None:
        """Enter a stage that may last until `deadline`."""
        self.stage, self.deadline = stage, deadline

    def on_pictures(self, now: float, session_max: float) -> None:
        """Handle its first picture, or the first one after a gap."""
        if self.live_since is None:
            self.live_since = now
            self.ends_at = now + session_max if session_max else NEVER
            if self.ends_early:
                self.set_ending_early(now)
        if self.stage is not Stage.LIVE:
            self.link_up_at = now
            self.fault, self.rejoins = "", 0
            self.face_not_before = LONG_AGO  # it may have been too early to switch
            self.enter(Stage.LIVE)
        self.flowing, self.deadline = True, NEVER

    def on_pictures_stopped(self, last_at: float, now: float) -> None:
        """Handle a stall; the last picture arrived at `last_at`."""
        self.flowing, self.stopped_at = False, last_at
        self.deadline = self.repair_until = now + RECOVERY_TIMEOUT

    def on_degraded(self, reason: str) -> None:
        """Let its link repair itself, without a limit while pictures arrive."""
        self.fault = reason
        if not self.flowing:
            self.deadline = max(self.deadline, self.repair_until)

    def on_recovered(self, now: float, stall_timeout: float) -> None:
        """Note that its link is repaired: now pictures must arrive."""
        self.fault = ""
        if not self.flowing:
            self.deadline = min(now, self.repair_until) + stall_timeout

    def set_ending_early(self, now: float) -> None:
        """Note that its token is final: a successor is due after MIN_LIFETIME."""
        self.ends_early = True
        if self.live_since is not None:
            self.ends_at = min(self.ends_at, max(now, self.live_since + MIN_LIFETIME))

    def may_rejoin(self, error: RelaydError, now: float) -> bool:
        """Record that its link broke; returns whether another worker is worth a try."""
        if self.stage is Stage.LIVE:
            lasted = (now if self.flowing else self.stopped_at) - self.link_up_at
            self.short_links = self.short_links + 1 if lasted < STABLE_AFTER else 0
        return (
            self.live_since is not None
            and error.retryable
            and self.short_links <= MAX_SHORT_LINKS
            and self.rejoins < REJOIN_TRIES
        )

    def timeout_error(self, first_frame_timeout: float) -> RelaydError:
        """Return the error for a stage that timed out."""
        match self.stage:
            case Stage.LOADING if not self.opened:
                return JoinFailed(f"the RTC library does not load within {READY_TIMEOUT:g} s")
            case Stage.CREATING:
                return SessionFailed(f"no session was opened within {CREATE_TIMEOUT:g} s")
            case Stage.QUEUED:
                return SessionFailed(f"the session is still queued after {QUEUE_TIMEOUT:g} s")
            case Stage.WAITING:
                return LinkStalled(f"no swapped picture within {first_frame_timeout:g} s")
            case Stage.LIVE:
                return LinkStalled(f"{self.fault or 'no swapped picture'}, and not back in time")
            case _:
                return JoinFailed(f"channel not joined within {JOIN_TIMEOUT:g} s")
