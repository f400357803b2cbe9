"""The states of a relay, and what a relay tells of itself at any moment."""

from dataclasses import dataclass, field
from enum import Enum

from relayd.media.delay import Spread


class RelayState(Enum):
    """Where a relay stands; each is a metric label, a log event and systemd's STATUS line."""

    STARTING = "starting"
    """Opening outputs; nothing is shown yet."""
    STANDBY = "standby"
    """Outputs show the standby picture and no session is wanted: nobody looks, a person paused it,
    or the source is away."""
    OPENING = "opening"
    """Asking the service for a session."""
    QUEUED = "queued"
    """The session exists and waits for its turn at the service."""
    JOINING = "joining"
    """Connecting to the session's channel."""
    WAITING = "waiting"
    """Joined and sending; no swapped frame came yet."""
    LIVE = "live"
    """Swapped frames flow."""
    DEGRADED = "degraded"
    """Live until a moment ago: the link or the source is away, the session is kept."""
    ROTATING = "rotating"
    """Live, while a new session is made ready to take over."""
    BACKOFF = "backoff"
    """Something failed; waiting before the next try."""
    BLOCKED = "blocked"
    """Refused for good (credentials, quota, face): a person is needed."""
    CLOSING = "closing"
    """Ending: sessions are being closed."""
    STOPPED = "stopped"
    """All is closed."""

    @property
    def text(self) -> str:
        """The state as a person would say it."""
        return _TEXTS[self]

    def on_picture(self, reason: str, *, details: bool = False) -> tuple[str, str]:
        """Title and detail of the standby picture, which the other side of a call sees.

        Unless `details` are asked for, it is one of a few fixed sentences about the camera, and
        nothing of the reason: that may name addresses, files and accounts.
        """
        if not details:
            return _NEUTRAL_TEXTS[self], ""
        if self in _FIRST_STEPS:
            return "Starting the face swap …", reason or self.text
        return self.text, reason


_TEXTS = {
    RelayState.STARTING: "Starting",
    RelayState.STANDBY: "Standing by",
    RelayState.OPENING: "Opening a face swap session",
    RelayState.QUEUED: "Waiting in the service's queue",
    RelayState.JOINING: "Connecting to the swap engine",
    RelayState.WAITING: "Waiting for the first swapped frame",
    RelayState.LIVE: "Live",
    RelayState.DEGRADED: "Reconnecting",
    RelayState.ROTATING: "Live, changing to a new session",
    RelayState.BACKOFF: "Will try again shortly",
    RelayState.BLOCKED: "Needs attention",
    RelayState.CLOSING: "Closing",
    RelayState.STOPPED: "Stopped",
}


_NEUTRAL_TEXTS = {
    RelayState.STARTING: "Camera is starting",
    RelayState.STANDBY: "Camera paused",
    RelayState.OPENING: "Camera is starting",
    RelayState.QUEUED: "Camera is starting",
    RelayState.JOINING: "Camera is starting",
    RelayState.WAITING: "Camera is starting",
    RelayState.LIVE: "Camera is reconnecting",
    RelayState.DEGRADED: "Camera is reconnecting",
    RelayState.ROTATING: "Camera is reconnecting",
    RelayState.BACKOFF: "Camera is reconnecting",
    RelayState.BLOCKED: "Camera is off",
    RelayState.CLOSING: "Camera is off",
    RelayState.STOPPED: "Camera is off",
}
"""What strangers may read in each state. A live relay shows it between two swapped pictures."""

_FIRST_STEPS = {RelayState.OPENING, RelayState.QUEUED, RelayState.JOINING, RelayState.WAITING}


class DemandState(Enum):
    """Where a relay stands between a camera that nobody reads and a live session."""

    OFF = "off"
    """Sessions do not depend on readers: not asked for, or readers cannot be seen."""
    IDLE = "idle"
    """Nobody looks: no session, no RTC worker, the source is let go of."""
    OPENING = "opening"
    """Somebody looks; source and session are being opened, or will be tried again."""
    LIVE = "live"
    """Somebody looks, and the session is live."""
    GRACE = "grace"
    """Nobody looks since a moment ago; what is open is kept for who comes back."""
    CLOSING = "closing"
    """Nobody came back: the session is being closed."""


OUTPUT_OK = "ok"
"""What is told of an output that works."""
OUTPUT_PENDING = "not connected yet"
"""What is told of an output that nothing got through to so far, and that did not fail either."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """A snapshot of a relay, for page, API, metrics, STATUS line and summary."""

    name: str
    state: RelayState
    reason: str
    """Why it is in that state, in words; empty where the state says it all."""
    since: float
    """Seconds that it has been in that state."""
    uptime: float
    source: str
    """The source URL, redacted."""
    source_alive: bool
    session_id: str | None
    sessions_open: int
    fps: float
    """Frames a second that outputs were given, over the last seconds."""
    delay: Spread
    """From a source frame's decoding to its swapped picture on the outputs."""
    own_delay: Spread
    """relayd's own share of it."""
    longest_gap: float
    """Longest time between two frames on the outputs, seconds."""
    frames: dict[str, int] = field(default_factory=dict)
    """Frames by stage: source, sent, swapped, shown, repeated, standby."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames dropped by stage and reason, `stage.reason`."""
    reconnects: dict[str, int] = field(default_factory=dict)
    """Reconnects by part: source, link, session, output."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Each output and how it is: OUTPUT_OK, OUTPUT_PENDING, or why it is lost."""
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The files of each recording that got pictures in this run, the newest last."""
    healthy: bool = False
    """Frames flow as configured, and to every output."""
    paused: bool = False
    """A person paused it; it stands by until resumed."""
    session_seconds: float = 0.0
    """Time that sessions were open in this run, summed: what the service may bill."""
    credit: float | None = None
    """Credit that the service last reported; None where it reports none."""
    readers: dict[str, int | None] = field(default_factory=dict)
    """How many programs read each camera; None where that cannot be seen."""
    on_demand: DemandState = DemandState.OFF
    """Where sessions on demand stand."""
    sessions_doubtful: int = 0
    """Creates whose answer was lost: sessions may be open that nobody knows of."""
    spent_today: float = 0.0
    """Seconds that sessions on this journal were open since local midnight, summed."""
    daily_limit: float = 0.0
    """Seconds a day that they may be open; 0 where there is no limit."""
    budget: str = ""
    """How the day's limit stands, in words, when it is near or used up; else empty."""

    @property
    def lost_outputs(self) -> dict[str, str]:
        """Each output that does not work, and why."""
        return {name: how for name, how in self.outputs.items() if how != OUTPUT_OK}
