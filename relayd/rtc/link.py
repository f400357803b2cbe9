"""The interface of a real-time link: its target, its events and its methods.

Nothing here depends on a transport: the relay process imports this module, the worker process
imports the link that `LinkTarget.kind` names.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, Literal, Protocol

from relayd import errors, logs
from relayd.errors import ConfigError, LinkLost, RelaydError
from relayd.logs import LogEvent
from relayd.media.frames import I420, Geometry
from relayd.sound.blocks import Samples
from relayd.urls.safe import MediaUrl
from relayd.urls.templates import TEMPLATE_FIELDS, fill_url

LinkKind = Literal["agora", "webrtc"]

LARGEST_PACKET = 64 * 1024
"""Bytes of one order to the worker, or of one event from it."""
LONGEST_TEXT = 1000
"""Characters of a reason, message or hint sent to the parent. They may contain a server's text;
three of them, escaped as JSON, stay well below LARGEST_PACKET."""

_log = logs.get("rtc")


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """All a link needs to join: the channel, the users, the token and what to send."""

    kind: LinkKind
    channel_id: str
    front_user_id: str
    """The user that publishes the source."""
    algorithm_user_id: str
    """The user whose swapped pictures are played."""
    token: str = field(repr=False)
    geometry: Geometry
    fps: float
    bitrate_kbit: int
    token_age: float
    """s since the token was issued."""
    session_id: str
    """The service's id of the session."""
    app_id: str
    """Agora only; if empty, the token names the project."""
    state_directory: str
    """Agora only: an existing folder for the library's logs and caches."""
    publish_url: str = field(repr=False)
    """WHIP endpoint, a template over TEMPLATE_FIELDS; webrtc only."""
    play_url: str = field(repr=False)
    """WHEP endpoint, a template over TEMPLATE_FIELDS; webrtc only."""
    first_frame_timeout: float = 20.0
    """s from the join to the first swapped picture, before the link gives up."""
    recovery_timeout: float = 60.0
    """s that a link which was up may take to reconnect by itself, before it counts as lost."""
    publish_sound: bool = False
    """Send the user's voice as well."""
    return_sound: bool = False
    """Receive the swapped user's sound as well."""
    engine: str = "auto"
    """webrtc only: "auto", or the name of the WebRTC engine to use."""

    def publish_endpoint(self) -> str:
        """Return the WHIP URL; ConfigError if the template is wrong."""
        return self._filled("rtc.publish_url", self.publish_url)

    def play_endpoint(self) -> str:
        """Return the WHEP URL; ConfigError if the template is wrong."""
        return self._filled("rtc.play_url", self.play_url)

    def _filled(self, key: str, template: str) -> str:
        try:
            return fill_url(template, {name: getattr(self, name) for name in TEMPLATE_FIELDS})
        except ValueError as fault:
            raise ConfigError([f"{key} = {str(MediaUrl(template))!r}: {fault}"]) from fault

    def to_json(self) -> dict[str, Any]:
        """Return plain data, the token included: only for the pipe to the worker."""
        return {name: getattr(self, name) for name in _names(LinkTarget) if name != "geometry"} | {
            "width": self.geometry.width,
            "height": self.geometry.height,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LinkTarget":
        """Read what `to_json` returned."""
        known = {name: data[name] for name in _names(cls) if name in data}
        return cls(**known, geometry=Geometry(data["width"], data["height"]))


@dataclass(frozen=True, slots=True)
class LinkStats:
    """A link's figures: counts of the current connections, rates since the last report."""

    publish_kbit: float = 0.0
    play_kbit: float = 0.0
    publish_lost: int = 0
    """Packets, as the peer reports them."""
    play_lost: int = 0
    """Packets."""
    play_jitter: float = 0.0
    """s, interarrival jitter (RFC 3550 §6.4.1)."""
    round_trip: float | None = None
    """s, between us and the peer."""
    sent: int = 0
    """Pictures handed to the encoder."""
    dropped: int = 0
    """Pictures that a newer one replaced before the encoder was free."""
    received: int = 0
    """Swapped pictures decoded."""
    publish_target_kbit: float = 0.0
    """What the encoder aims at, after the estimate of the path."""
    publish_jitter: float = 0.0
    """s, as the peer reports it."""
    play_freezes: int = 0
    """Times that the received picture stood still for much longer than usual."""
    publish_codec: str = ""
    """Such as "VP8"; empty where the library does not say."""
    play_codec: str = ""
    publish_path: str = ""
    """Kinds of both ends of the path and its protocol: "host/srflx udp"; empty if unknown."""
    play_path: str = ""
    publish_engine: str = ""
    """webrtc only: the engine of the connection."""
    play_engine: str = ""


class LinkEventKind(Enum):
    """What a link reports."""

    READY = "ready"
    """The worker process has its RTC library loaded and can join."""
    JOINED = "joined"
    """We joined the channel; pictures can be sent."""
    PUBLISHING = "publishing"
    """The first picture since the join was sent."""
    FIRST_PICTURE = "first_picture"
    """The first picture of the swapped user since the join arrived."""
    DEGRADED = "degraded"
    """A connection broke; the link repairs it by itself. `reason` says which and why."""
    RECOVERED = "recovered"
    """What DEGRADED reported is repaired."""
    TOKEN_EXPIRING = "token_expiring"  # noqa: S105 - an event's name
    """The token expires soon: a new token or another session is needed in time."""
    STATS = "stats"
    """Figures, every few seconds, in `stats`."""
    REFUSED = "refused"
    """The peer, or this machine, refuses the link; `error` says why. The link is over."""
    LOST = "lost"
    """No connection was made, or it did not come back; `error` says why. The link is over."""
    LEFT = "left"
    """We left, as asked. The link is over."""
    DIED = "died"
    """The worker process ended by itself; `error` says how."""


FINAL_KINDS = frozenset(
    {LinkEventKind.REFUSED, LinkEventKind.LOST, LinkEventKind.LEFT, LinkEventKind.DIED}
)
"""After one of these the link is over."""


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """One report of a link."""

    kind: LinkEventKind
    reason: str = ""
    error: RelaydError | None = None
    stats: LinkStats | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the pipe; the error as its class, message and hint.

        Texts are redacted, then cut to LONGEST_TEXT.
        """
        data: dict[str, Any] = {"kind": self.kind.value, "reason": _cut(self.reason)}
        if isinstance(self.error, RelaydError):
            data["error"] = {
                "class": type(self.error).__name__,
                "message": _cut(self.error.message),
                "hint": _cut(self.error.hint),
                "retry_after": self.error.retry_after,
            }
        if self.stats is not None:
            data["stats"] = asdict(self.stats)
        return data

    @classmethod
    def from_json(cls, data: object) -> "LinkEvent | None":
        """Read what `to_json` returned; None for a kind that is not known.

        Upgrading relayd while a relay runs gives that relay newer workers: unknown fields and
        kinds are ignored. Raises ValueError for what no version of the worker sends.
        """
        parts = _mapping(data)
        kind, reason = _text(parts, "kind"), _text(parts, "reason")
        if kind not in {known.value for known in LinkEventKind}:
            return None
        error = _error_from_json(parts["error"]) if "error" in parts else None
        stats = _stats_from_json(parts["stats"]) if "stats" in parts else None
        return cls(LinkEventKind(kind), reason, error, stats)


class Link(Protocol):
    """A connection to the swap engine: pictures out, swapped pictures in.

    Made with a LinkTarget and three callbacks, which it calls from its own threads:
    `on_picture(picture, received_at)` with a picture of any even size, valid during the call,
    `on_event(event)`, and `on_sound(samples, received_at)` with one block of 480 samples, only
    when the target has `return_sound`. A link is used once; after REFUSED, LOST or LEFT it is over.
    """

    def join(self) -> None:
        """Begin to join and return at once; events report the rest."""

    def publish(self, picture: I420, captured_at: float) -> None:
        """Send `picture`, newest first; it may be reused when this returns. Never blocks."""

    def publish_sound(self, samples: Samples, at: float) -> None:
        """Send one block, in order; only when the target has `publish_sound`. Never blocks."""

    def renew(self, token: str) -> None:
        """Use `token` from now on; returns at once. Ignored where tokens do not expire."""

    def leave(self, deadline: float) -> None:
        """Leave and free everything, by `deadline` (monotonic) at the latest; blocks."""


def _names(of: type[LinkTarget]) -> list[str]:
    return [each.name for each in fields(of)]


def _cut(text: str) -> str:
    return logs.excerpt(text, LONGEST_TEXT)


def _error_from_json(data: object) -> RelaydError:
    parts = _mapping(data)
    name, message, hint = (_text(parts, key) for key in ("class", "message", "hint"))
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, RelaydError)):
        _log.warning(LogEvent.WORKER_UNKNOWN_ERROR, name=name)
        kind = LinkLost
    if kind is ConfigError:
        return ConfigError(message.splitlines())
    error: RelaydError = kind(message, hint=hint)
    if parts.get("retry_after") is not None:
        wait = _number("retry_after", parts["retry_after"])
        if not math.isfinite(wait) or wait < 0:
            raise ValueError("retry_after is out of range")
        error.retry_after = wait
    return error


def _stats_from_json(data: object) -> LinkStats:
    """Read the known figures; those missing, null or infinite get the default."""
    sent = _mapping(data)
    known = [each for each in fields(LinkStats) if sent.get(each.name) is not None]
    values: dict[str, Any] = {}
    for each in known:
        if each.type is str:
            values[each.name] = _text(sent, each.name)
        elif math.isfinite(number := _number(each.name, sent[each.name])):
            values[each.name] = number
    return LinkStats(**values)


def _mapping(data: object) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError("an object is missing")  # noqa: TRY004 - JSON of another shape
    return data


def _text(data: Mapping[str, Any], key: str) -> str:
    if not isinstance(text := data.get(key), str):
        raise ValueError(f"{key} is no text")  # noqa: TRY004 - JSON of another shape
    return text


def _number(name: str, value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is no number")  # noqa: TRY004 - JSON of another shape
    return value
