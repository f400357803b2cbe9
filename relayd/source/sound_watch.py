"""Where a reader's sound goes, and whether it comes while there are pictures."""

from typing import Final

from relayd import logs
from relayd.clock import Clock
from relayd.logs import LogEvent
from relayd.media.sound import SoundFormat
from relayd.sound.blocks import OwnSound
from relayd.sound.ring import SoundRing

MISSING: Final = 1.0
"""s of pictures without sound after which it counts as lost."""

_log = logs.get("source")


class SourceSound:
    """The sound of one source, through all its connections.

    The reader calls the methods with its lock held; any thread may read the attributes.
    """

    def __init__(self, ring: SoundRing[OwnSound] | None, clock: Clock) -> None:
        """Without a ring no sound is wanted."""
        self._ring, self._clock = ring, clock
        self._heard_at: float | None = None
        self.format: SoundFormat | None = None
        """What is read now; None while there is none."""
        self.is_lost = False
        """Whether pictures come and sound does not, though there should be some."""
        self._is_missing = False
        """Whether the connection has pictures alone."""
        self.blocks = 0
        """Blocks handed on so far."""
        self.losses = 0
        """Times that it was lost."""

    @property
    def is_wanted(self) -> bool:
        """Whether the source is to be opened with its sound."""
        return self._ring is not None

    @property
    def is_heard(self) -> bool:
        """Whether sound comes now."""
        return self.format is not None and not self.is_lost

    @property
    def trouble(self) -> str:
        """Why none comes while there are pictures; empty while it comes, or none is wanted."""
        if self.is_lost:
            return "the source's sound stopped"
        return "the source has no sound" if self._is_missing else ""

    def opened(self, found: SoundFormat | None) -> None:
        """Note what a connection has found; before its first picture."""
        self.format = found
        if not self.is_wanted:
            return
        self._is_missing = found is None
        if found is None:
            _log.info(LogEvent.SOUND_NONE)
        else:
            stated = {"codec": found.codec, "rate": found.rate, "channels": found.channels}
            _log.info(LogEvent.SOUND_OPENED, **stated)

    def closed(self) -> None:
        """Note that there is no connection: nothing is missed until there are pictures again."""
        self._heard_at, self.is_lost, self.format = None, False, None
        self._is_missing = False

    def note_picture(self, now: float) -> None:
        """Note a picture: sound belongs to it, if there is any."""
        if self.format is None:
            return
        if self._heard_at is None:
            self._heard_at = now
        if not self.is_lost and now - self._heard_at >= MISSING:
            self.is_lost = True
            self.losses += 1
            _log.warning(LogEvent.SOUND_LOST)

    def put(self, block: OwnSound) -> None:
        """Hand a block on."""
        if self._ring is None:
            return
        self._ring.put(block)
        self.blocks += 1
        self._heard_at = self._clock.now()
        if self.is_lost:
            self.is_lost = False
            _log.info(LogEvent.SOUND_BACK)

    def clear(self) -> None:
        """Drop what nobody took: after a pause nothing is heard of before it."""
        if self._ring is not None:
            self._ring.clear()
