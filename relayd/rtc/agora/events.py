"""The SDK's events of a connection, as plain values that may leave its threads."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connected:
    """We joined the channel."""


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection broke; the SDK repairs it by itself."""

    reason: int


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The SDK repaired the connection."""


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """Ten seconds without success; the SDK goes on trying, for twenty minutes."""


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The SDK gave up."""

    reason: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """We left the channel, as asked, or were removed."""

    reason: int


@dataclass(frozen=True, slots=True)
class UserJoined:
    """Another user joined the channel."""

    user_id: str


@dataclass(frozen=True, slots=True)
class UserLeft:
    """Another user left, or was dropped."""

    user_id: str


@dataclass(frozen=True, slots=True)
class TokenEnding:
    """The server reports that the token expires soon."""


@dataclass(frozen=True, slots=True)
class TokenEnded:
    """The token expired; the server removes us."""


@dataclass(frozen=True, slots=True)
class SdkError:
    """An error that the SDK reports; many are temporary."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class TransportStats:
    """Rates of the last seconds."""

    publish_kbit: float
    play_kbit: float
    round_trip_ms: float


@dataclass(frozen=True, slots=True)
class SoundOffered:
    """The swapped user's sound began to come, or ended: muted, unpublished, gone."""

    user_id: str
    is_on: bool


@dataclass(frozen=True, slots=True)
class PictureCame:
    """A picture of the swapped user arrived that was awaited."""


SdkEvent = (
    Connected
    | Reconnecting
    | Reconnected
    | ConnectionLost
    | ConnectionFailed
    | Disconnected
    | UserJoined
    | UserLeft
    | TokenEnding
    | TokenEnded
    | SdkError
    | TransportStats
    | SoundOffered
    | PictureCame
)


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """One decoded picture as the SDK delivers it: three planes, whose rows may be padded."""

    width: int
    height: int
    strides: tuple[int, int, int]
    """Bytes from row to row of Y, U and V."""
    planes: tuple[bytes | None, bytes | None, bytes | None]
    rotation: int
    """Degrees to turn it clockwise until it is upright."""
    received_at: float
    """Monotonic s."""


@dataclass(frozen=True, slots=True)
class ReceivedBlock:
    """One block of sound as the SDK delivers it."""

    rate: int
    channels: int
    pcm: bytearray
    """16 bit; the wrapper's copy."""
    received_at: float
    """Monotonic s."""
