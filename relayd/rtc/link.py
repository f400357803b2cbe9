"""What a real-time link is told, what it tells, and what it must be able to do.

Nothing here knows a transport: the relay process imports this module, the worker process
imports the link that `LinkTarget.kind` names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, Literal, Protocol

from relayd import errors
from relayd.errors import ConfigError, RelaydError
from relayd.frames import I420, Geometry
from relayd.templates import TEMPLATE_FIELDS, fill_url

LinkKind = Literal["agora", "webrtc"]


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """Where to, as whom, and what to send: all a link needs to join."""

    kind: LinkKind
    channel_id: str
    front_user_id: str
    """As whom the source is published."""
    algorithm_user_id: str
    """Whose swapped pictures are played."""
    token: str = field(repr=False)
    geometry: Geometry
    fps: float
    bitrate_kbit: int
    token_age: float = 0.0
    """s since the token was given."""
    session_id: str = ""
    app_id: str = ""
    """Agora only; where it is empty, the token names the project."""
    state_directory: str = ""
    """Agora only: an existing folder for the library's logs and caches."""
    publish_url: str = ""
    """WHIP endpoint, a template over TEMPLATE_FIELDS; webrtc only."""
    play_url: str = ""
    """WHEP endpoint, a template over TEMPLATE_FIELDS; webrtc only."""
    first_frame_timeout: float = 20.0
    """s from the join to the first swapped picture, before the link gives up."""
    recovery_timeout: float = 60.0
    """s that a link which was up may take to come back by itself, before it counts as lost."""

    def publish_endpoint(self) -> str:
        """Give the WHIP URL; ConfigError where the template is wrong."""
        return self._filled("rtc.publish_url", self.publish_url)

    def play_endpoint(self) -> str:
        """Give the WHEP URL; ConfigError where the template is wrong."""
        return self._filled("rtc.play_url", self.play_url)

    def _filled(self, key: str, template: str) -> str:
        try:
            return fill_url(template, {name: getattr(self, name) for name in TEMPLATE_FIELDS})
        except ValueError as fault:
            raise ConfigError([f"{key} = {template!r}: {fault}"]) from fault

    def to_json(self) -> dict[str, Any]:
        """Give plain data, the token included: for the pipe to the worker alone."""
        return {name: getattr(self, name) for name in _names(LinkTarget) if name != "geometry"} | {
            "width": self.geometry.width,
            "height": self.geometry.height,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LinkTarget":
        """Read what `to_json` gave."""
        known = {name: data[name] for name in _names(cls) if name in data}
        return cls(**known, geometry=Geometry(data["width"], data["height"]))


@dataclass(frozen=True, slots=True)
class LinkStats:
    """How a link does: counts of the connections in use, rates since the last report."""

    publish_kbit: float = 0.0
    play_kbit: float = 0.0
    publish_lost: int = 0
    """Packets, as the far side reports them."""
    play_lost: int = 0
    """Packets."""
    play_jitter: float = 0.0
    """s, interarrival jitter (RFC 3550 §6.4.1)."""
    round_trip: float | None = None
    """s, between us and the far side."""
    sent: int = 0
    """Pictures handed to the encoder."""
    dropped: int = 0
    """Pictures that a newer one replaced before the encoder was free."""
    received: int = 0
    """Swapped pictures decoded."""


class LinkEventKind(Enum):
    """What a link has to say."""

    READY = "ready"
    """The worker process has its RTC library loaded and can join."""
    JOINED = "joined"
    """The far side took us in; a way for the pictures out is there."""
    PUBLISHING = "publishing"
    """The first picture went out since the join."""
    FIRST_PICTURE = "first_picture"
    """The swapped user is there: its first picture since the join arrived."""
    DEGRADED = "degraded"
    """A connection broke; the link is mending it by itself. `reason` says which and why."""
    RECOVERED = "recovered"
    """What DEGRADED told of is mended."""
    TOKEN_EXPIRING = "token_expiring"  # noqa: S105 - an event's name
    """The token ends soon: a fresh one is wanted, or another session in time."""
    STATS = "stats"
    """Numbers, every few seconds; `stats` has them."""
    REFUSED = "refused"
    """The far side, or this machine, will not have it; `error` says why. The link is over."""
    LOST = "lost"
    """No connection came about, or it did not come back; `error` says why. The link is over."""
    LEFT = "left"
    """We left, as asked. The link is over."""
    DIED = "died"
    """The worker process ended by itself; `error` says how."""


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """One thing a link has to say."""

    kind: LinkEventKind
    reason: str = ""
    error: RelaydError | None = None
    stats: LinkStats | None = None

    def to_json(self) -> dict[str, Any]:
        """Give plain data for the pipe; the error as its class and its sentence."""
        data: dict[str, Any] = {"kind": self.kind.value, "reason": self.reason}
        if isinstance(self.error, RelaydError):
            data["error"] = {
                "class": type(self.error).__name__,
                "message": self.error.message,
                "mend": self.error.mend,
                "retry_after": self.error.retry_after,
            }
        if self.stats is not None:
            data["stats"] = asdict(self.stats)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LinkEvent":
        """Read what `to_json` gave."""
        stats = LinkStats(**data["stats"]) if "stats" in data else None
        error = _error_from_json(data["error"]) if "error" in data else None
        return cls(LinkEventKind(data["kind"]), data["reason"], error, stats)


class Link(Protocol):
    """A connection to the swap engine: pictures out, swapped pictures in.

    Made with a LinkTarget and two callbacks, which it calls from threads of its own:
    `on_picture(picture, received_at)` with a picture of any even size, valid during the call,
    and `on_event(event)`. A link is used once; after REFUSED, LOST or LEFT it is over.
    """

    def join(self) -> None:
        """Begin to join and return at once; events tell the rest."""

    def publish(self, picture: I420, captured_at: float) -> None:
        """Send `picture`, newest first; it may be reused when this returns. Never blocks."""

    def renew(self, token: str) -> None:
        """Use `token` from now on; returns at once. A link whose tokens do not end ignores it."""

    def leave(self, deadline: float) -> None:
        """Leave and free everything, by `deadline` (monotonic) at the latest; blocks."""


def _names(of: type[LinkTarget]) -> list[str]:
    return [each.name for each in fields(of)]


def _error_from_json(data: Mapping[str, Any]) -> RelaydError:
    kind = getattr(errors, data["class"])
    if kind is ConfigError:
        return ConfigError(data["message"].splitlines())
    error: RelaydError = kind(data["message"], mend=data["mend"])
    error.retry_after = data["retry_after"]
    return error
