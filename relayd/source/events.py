"""What a source reader tells."""

from dataclasses import dataclass

from relayd.errors import SourceError


@dataclass(frozen=True, slots=True)
class SourceOpened:
    """Pictures come: told with the first one of each connection."""

    width: int
    height: int
    fps: float
    """As announced by the stream; 0.0 when unknown."""
    codec: str


@dataclass(frozen=True, slots=True)
class SourceDown:
    """No pictures come any more, or none ever came; the reader tries again by itself."""

    error: SourceError
    """Its `retryable` says whether another try may help without a person."""
    retry_in: float
    """Seconds to the next try."""


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """A recording that is not looped came to its end."""


SourceEvent = SourceOpened | SourceDown | SourceEnded


@dataclass(slots=True)
class SourceCounters:
    """Counts since the reader was made; they only grow."""

    frames: int = 0
    """Pictures handed on."""
    late: int = 0
    """Pictures of a recording left out because decoding was behind."""
    corrupt: int = 0
    """Packets that could not be decoded."""
    reconnects: int = 0
    """Connections that gave pictures, after the first one of each time that it was wanted."""
    stalls: int = 0
    """Times that nothing came within the limit."""
