"""What the hub knows of one member's sound: what it sent and how evenly, and whom it hears."""

from dataclasses import dataclass, field
from typing import Any, Self

from tests.agora.wire import Payload, encode

BYTES = 2
"""Of a sample."""
LATE = 0.1
"""s by which a block may follow the one before too late."""
BURST = 0.05
"""s of sound that the library may hold: more is latency that stays."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of sound as it was pushed."""

    rate: int
    channels: int
    pts_ms: int
    sent: float
    """When it was pushed, monotonic s of that machine."""
    payload: Payload

    @classmethod
    def silence(cls) -> Self:
        """10 ms of silence."""
        return cls(rate=48_000, channels=1, pts_ms=0, sent=0.0, payload=bytes(960))

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.payload) / (BYTES * self.channels * self.rate)

    def line(self, uid: str) -> bytes:
        """The line that brings it to a member."""
        words = (uid, self.rate, self.channels, round(self.sent * 1000))
        return encode("sound", *words, length=len(self.payload))


@dataclass(slots=True)
class SentSound:
    """How a member's blocks came: the library plays them out at their own pace."""

    count: int = 0
    late: int = 0
    """Blocks after which the library had had nothing to play for more than LATE."""
    bursts: int = 0
    """Blocks that found more than BURST of sound before them."""
    longest_queue: float = 0.0
    """s of sound, the most that waited in the library."""
    stamped: int = 0
    """Blocks with a time of their own."""
    last: Block | None = None
    _free_at: float = 0.0

    def note(self, block: Block) -> None:
        """Count a block."""
        if self.count:
            self.late += block.sent - self._free_at > LATE
            self.bursts += self._free_at - block.sent > BURST
        self._free_at = max(self._free_at, block.sent) + block.seconds
        self.longest_queue = max(self.longest_queue, self._free_at - block.sent - block.seconds)
        self.count += 1
        self.stamped += block.pts_ms != 0
        self.last = block

    def described(self) -> dict[str, Any]:
        """All of it, for JSON."""
        last = self.last
        return {
            "count": self.count,
            "late": self.late,
            "bursts": self.bursts,
            "longest_queue": self.longest_queue,
            "stamped": self.stamped,
            "rate": last.rate if last else 0,
            "channels": last.channels if last else 0,
            "samples": len(last.payload) // BYTES // last.channels if last else 0,
        }


@dataclass(slots=True)
class SoundFault:
    """What is wrong with the sound for a member."""

    needs_playout: bool = False
    """It gets none unless its connection plays sound out."""
    rate: int = 0
    """Of the blocks that it gets, if not their own."""
    sender: str = ""
    """Whose blocks they seem to be, if not their own."""


@dataclass(slots=True)
class Hearing:
    """Whose sound a member hears."""

    subscriptions: dict[str, bool] = field(default_factory=dict)
    """By user: whether a block came since it began."""
    profile: tuple[int, ...] = ()
    """PROFILE, SCENARIO of the sound that it publishes."""
    plays_out: bool = False
    heard: int = 0
    """Blocks that it was sent."""
