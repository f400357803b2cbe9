"""The sessions of a relay as its state machine sees them: how far each is, and till when."""

from dataclasses import dataclass
from enum import Enum

from relayd.akool.session import FaceChoice
from relayd.errors import JoinFailed, LinkStalled, RelaydError, SessionFailed
from relayd.relay.conditions import LONG_AGO, NEVER

READY_TIMEOUT = 20.0
"""s for a worker to load its library; half a second is usual, a cold disk takes a few."""
CREATE_TIMEOUT = 90.0
"""s for the service to open a session, with the face looked at, repeats and their waits; each call
has limits of its own, so this one only guards them."""
QUEUE_TIMEOUT = 120.0
"""s that a session may wait for its turn; starts of 5 to 15 s are usual."""
JOIN_TIMEOUT = 15.0
"""s from the order to join until the channel is joined."""
REJOIN_TIMEOUT = 18.0
"""s for the same in a new worker: the old one may take 2 s to leave, the new one 1 s to load."""
RECOVERY_TIMEOUT = 15.0
"""s that a link may repair itself before a new worker is tried: some five rejoins."""
CLOSE_TIMEOUT = 45.0
"""s after which a close counts as over whatever became of it: the journal keeps the session. A
create in flight is waited for (10 s), closing is tried for 10 s, stopping the worker takes 3."""
REJOIN_TRIES = 2
"""Tries to bring a new worker into a session before a new session is asked for."""
MAX_SHORT_LINKS = 3
"""Links in a row that break soon after they came up, before the session is given up."""
STABLE_AFTER = 10.0
"""s that a link stays up after which its end counts as the first again."""
MIN_LIFETIME = 20.0
"""s that a session lives at least, even if it is said to end early: whatever says so of each new
one, no loop of billed sessions comes of it."""
FACE_TRIES = 3
"""Times that a session is asked to wear another face before the next session has to."""
FACE_RETRY = 5.0
"""s between them."""


class Stage(Enum):
    """How far a session is."""

    LOADING = "loading"
    """Its worker process starts and loads its library."""
    CREATING = "creating"
    """The service is asked for it."""
    QUEUED = "queued"
    """It is open, and waits for its turn."""
    JOINING = "joining"
    """Its worker joins the channel."""
    WAITING = "waiting"
    """Joined; no picture came yet."""
    LIVE = "live"
    """Pictures came, and the link is not known to be over."""
    CLOSING = "closing"
    """It is being closed; all that is waited for is `SessionClosed`."""


@dataclass(slots=True)
class Session:
    """One session and its link."""

    number: int
    face: FaceChoice
    """What it was told to wear last."""
    stage: Stage = Stage.LOADING
    deadline: float = NEVER
    """When this stage has taken too long."""
    opened: bool = False
    """The service bills it."""
    live_since: float | None = None
    """When its first picture came."""
    ends_at: float = NEVER
    """When a successor is due."""
    ends_early: bool = False
    """It will end before its time."""
    fault: str = ""
    """What is wrong with its link, which is being repaired or replaced; empty while well."""
    flowing: bool = False
    """Pictures come."""
    stopped_at: float = LONG_AGO
    """When they stopped last."""
    repair_until: float = LONG_AGO
    """How long its link may repair itself since then."""
    link_up_at: float = LONG_AGO
    """When the first picture of its present link came."""
    rejoins: int = 0
    """New workers tried since the last picture."""
    short_links: int = 0
    """Links in a row that ended soon after they had come up."""
    face_pending: bool = False
    """An answer to `UpdateFace` is on its way."""
    face_tries: int = 0
    face_not_before: float = LONG_AGO

    @property
    def is_closing(self) -> bool:
        """Nothing more is expected of it."""
        return self.stage is Stage.CLOSING

    @property
    def shows_pictures(self) -> bool:
        """Its pictures can be shown now."""
        return self.stage is Stage.LIVE and self.flowing

    @property
    def can_change_face(self) -> bool:
        """Whether it can be asked to wear another face."""
        return self.opened and not self.is_closing

    def lifetime(self, now: float) -> float:
        """Seconds since its first picture; 0 before."""
        return now - self.live_since if self.live_since is not None else 0.0

    def enter(self, stage: Stage, deadline: float = NEVER) -> None:
        """Reach a stage that may last until `deadline`."""
        self.stage, self.deadline = stage, deadline

    def on_pictures(self, now: float, session_max: float) -> None:
        """Its first picture, or the first one after a gap."""
        if self.live_since is None:
            self.live_since = now
            self.ends_at = now + session_max if session_max else NEVER
            if self.ends_early:
                self.set_ending_early(now)
        if self.stage is not Stage.LIVE:
            self.link_up_at = now
            self.fault, self.rejoins = "", 0
            self.face_not_before = LONG_AGO  # it may have been too early for another face
            self.enter(Stage.LIVE)
        self.flowing, self.deadline = True, NEVER

    def on_pictures_stopped(self, last_at: float, now: float) -> None:
        """None comes any more; the last one came at `last_at`."""
        self.flowing, self.stopped_at = False, last_at
        self.deadline = self.repair_until = now + RECOVERY_TIMEOUT

    def on_degraded(self, reason: str) -> None:
        """Its link repairs itself: without a limit while pictures come."""
        self.fault = reason
        if not self.flowing:
            self.deadline = max(self.deadline, self.repair_until)

    def on_recovered(self, now: float, stall_timeout: float) -> None:
        """Its link is repaired: now pictures have to come."""
        self.fault = ""
        if not self.flowing:
            self.deadline = min(now, self.repair_until) + stall_timeout

    def set_ending_early(self, now: float) -> None:
        """It will end before its time: a successor is due as soon as it has lived a little."""
        self.ends_early = True
        if self.live_since is not None:
            self.ends_at = min(self.ends_at, max(now, self.live_since + MIN_LIFETIME))

    def may_rejoin(self, error: RelaydError, now: float) -> bool:
        """Take in that its link broke; whether another worker is worth a try."""
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
        """Say what it means that its stage took too long."""
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
