"""The events and counters of a source reader."""

from dataclasses import dataclass

from relayd.errors import SourceError


@dataclass(frozen=True, slots=True)
class SourceOpened:
    """Pictures arrive; sent with the first one of each connection."""

    width: int
    height: int
    fps: float
    """As announced by the stream; 0.0 when unknown."""
    codec: str
    kind: str
    """What the source was found to be: the value of a `SourceKind`."""


@dataclass(frozen=True, slots=True)
class SourceDown:
    """No more pictures arrive, or none ever did; the reader tries again by itself."""

    error: SourceError
    """Its `retryable` says whether a retry may succeed without a user's help."""
    retry_in: float
    """Seconds until the next attempt."""


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """A recording that is not looped ended."""


SourceEvent = SourceOpened | SourceDown | SourceEnded


@dataclass(slots=True)
class SourceCounters:
    """Counts since the reader was created; they only grow."""

    frames: int = 0
    """Pictures published."""
    late: int = 0
    """Pictures of a recording dropped because decoding was behind."""
    corrupt: int = 0
    """Packets that could not be decoded."""
    reconnects: int = 0
    """Connections that delivered pictures, not counting the first one after a start or resume."""
    stalls: int = 0
    """Times that nothing arrived within the time limit."""
