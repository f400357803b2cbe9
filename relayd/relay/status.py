"""The states of a relay, and the snapshot of its status."""

from dataclasses import dataclass, field
from enum import Enum

from relayd.media.delay import Spread


class RelayState(Enum):
    """The state of a relay; used as metric label, in the log and in systemd's STATUS line."""

    STARTING = "starting"
    """Opening outputs; nothing is shown yet."""
    STANDBY = "standby"
    """Outputs show the standby picture and no session is wanted: no program reads the camera, the
    user paused it, or the source is away."""
    OPENING = "opening"
    """Asking the service for a session."""
    QUEUED = "queued"
    """The session exists and waits for its turn at the service."""
    JOINING = "joining"
    """Connecting to the session's channel."""
    WAITING = "waiting"
    """Joined and sending; no swapped frame has arrived yet."""
    LIVE = "live"
    """Swapped frames arrive."""
    DEGRADED = "degraded"
    """Was live: the link or the source is away, the session is kept."""
    ROTATING = "rotating"
    """Live, while a new session is prepared to take over."""
    BACKOFF = "backoff"
    """Something failed; waiting before the next try."""
    BLOCKED = "blocked"
    """Refused permanently (credentials, quota, face): a person must act."""
    CLOSING = "closing"
    """Ending: sessions are being closed."""
    STOPPED = "stopped"
    """Everything is closed."""

    @property
    def text(self) -> str:
        """The state as text for the user."""
        return _TEXTS[self]

    def on_picture(self, reason: str, *, details: bool = False) -> tuple[str, str]:
        """Return title and detail of the standby picture, which others in a call see.

        Without `details` it is one of a few fixed sentences about the camera and contains nothing
        of the reason, which may name addresses, files and accounts.
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
"""Texts that strangers may read. A live relay shows one if swapped pictures stop for a moment."""

_FIRST_STEPS = {RelayState.OPENING, RelayState.QUEUED, RelayState.JOINING, RelayState.WAITING}


class DemandState(Enum):
    """The state of sessions on demand."""

    OFF = "off"
    """Sessions do not depend on readers: on demand is off, or readers cannot be counted."""
    IDLE = "idle"
    """No readers: no session, no RTC worker, the source is released."""
    OPENING = "opening"
    """A program reads; source and session are being opened, or will be retried."""
    LIVE = "live"
    """A program reads, and the session is live."""
    GRACE = "grace"
    """The last reader left; session and source are kept for the grace time."""
    CLOSING = "closing"
    """No reader came back: the session is being closed."""


@dataclass(frozen=True, slots=True)
class SoundStatus:
    """What the sound does now, and counts since the start."""

    muted: bool
    """A person muted it."""
    silent_for: tuple[str, ...]
    """Why nothing may be heard, `Silence` by value; empty while it may."""
    delay: float
    """s from capture until it is heard; 0.0 while nothing is played."""
    target: float
    """s that it should be, as the picture; 0.0 before that is known, and for returned sound."""
    level: float
    """dBFS of the last 100 ms that were played; -100 is digital silence."""
    rate_ppm: float
    """How much faster than it was spoken sound is played now, in millionths."""
    blocks: dict[str, int]
    """10 ms blocks by stage: captured, sent (to the service), played."""
    dropped: dict[str, int]
    """Blocks left out by stage and reason, `stage.reason`."""
    gaps: float
    """Total s of silence put into holes of the source's sound."""
    cuts: dict[str, int]
    """Cuts by kind: pause, speech, skip, resync."""
    listeners: dict[str, int | None] = field(default_factory=dict)
    """Programs that read each microphone; None if they cannot be counted."""
    trouble: str = ""
    """Why no sound comes from where the user's voice is captured; empty while it comes, and while
    it is not wanted."""


OUTPUT_OK = "ok"
"""Status text of an output that works."""
OUTPUT_PENDING = "not connected yet"
"""Status text of an output that has delivered nothing so far and has not failed either."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """A snapshot of a relay, for page, API, metrics, STATUS line and summary."""

    name: str
    state: RelayState
    reason: str
    """Why it is in that state, as text; empty if the state says enough."""
    since: float
    """Seconds in that state."""
    uptime: float
    source: str
    """The source URL, redacted."""
    source_alive: bool
    session_id: str | None
    sessions_open: int
    fps: float
    """Frames per second on the outputs, over the last seconds."""
    delay: Spread
    """From decoding a source frame to showing its swapped picture."""
    own_delay: Spread
    """relayd's own share of that delay."""
    longest_gap: float
    """Longest time between two frames on the outputs, seconds."""
    frames: dict[str, int] = field(default_factory=dict)
    """Frames by stage: source, sent, swapped, shown, repeated, standby."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames dropped by stage and reason, `stage.reason`."""
    reconnects: dict[str, int] = field(default_factory=dict)
    """Reconnects by part: source, link, session, output."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Status by output: OUTPUT_OK, OUTPUT_PENDING, or why it is lost."""
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The files of each recording that got pictures in this run, newest last."""
    healthy: bool = False
    """Frames flow as configured to every output."""
    paused: bool = False
    """The user paused it; it stands by until resumed."""
    session_seconds: float = 0.0
    """Total seconds that sessions were open in this run: what the service may bill."""
    credit: float | None = None
    """Credit that the service last reported; None if it reports none."""
    readers: dict[str, int | None] = field(default_factory=dict)
    """Programs that read each camera; None if they cannot be counted."""
    on_demand: DemandState = DemandState.OFF
    """The state of sessions on demand."""
    sessions_doubtful: int = 0
    """Creates whose answer was lost: unknown sessions may be open."""
    spent_today: float = 0.0
    """Total seconds that sessions on this journal were open since local midnight."""
    source_buffer: float = 0.0
    """Seconds that pictures of the source wait, so that one that sends in bursts plays evenly."""
    daily_limit: float = 0.0
    """Seconds a day that they may be open; 0: no limit."""
    budget: str = ""
    """The state of the daily limit, as text, when it is near or used up; else empty."""
    source_behind: float = 0.0
    """Seconds that the source's pictures are late because decoding is too slow."""
    source_slow: str = ""
    """That decoding is too slow, as text; empty while it keeps up."""
    sound: SoundStatus | None = None
    """The sound; None where none is wanted."""

    @property
    def lost_outputs(self) -> dict[str, str]:
        """Each output that does not work, and why."""
        return {name: how for name, how in self.outputs.items() if how != OUTPUT_OK}
