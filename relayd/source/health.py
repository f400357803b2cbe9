"""How the source is, out of what its reader tells."""

from relayd.logs import get
from relayd.source.events import SourceDown, SourceEnded, SourceEvent, SourceOpened

_WAITING = "waiting for the source's first picture"

_log = get("source")


class SourceHealth:
    """Whether pictures come, since when not, and why not."""

    def __init__(self) -> None:
        self.alive = False
        """Pictures come."""
        self.reason = _WAITING
        """Why not, in words; empty while they do."""
        self._gone_since = float("-inf")
        self._failed = False
        self._resting = False
        self._waking = False

    def rest(self) -> None:
        """Take in that it is let go of; what its reader still tells is of the past."""
        self._resting, self._waking = True, False
        self.alive, self._gone_since = False, float("-inf")

    def wake(self) -> None:
        """Take in that it is being opened again.

        Unless it failed the last time it counts as there, so that a session can be opened
        meanwhile: until its first picture, or the first failure.
        """
        self._resting, self._waking = False, not self._failed
        if self._waking:
            self.reason = _WAITING

    def hear(self, event: SourceEvent, now: float) -> None:
        """Take in an event of the reader, at `now` monotonic seconds."""
        if self._resting:
            return
        self._waking, self._failed = False, isinstance(event, SourceDown)
        match event:
            case SourceOpened(width, height, fps, codec):
                self.alive, self.reason = True, ""
                _log.info("source.opened", width=width, height=height, fps=fps, codec=codec)
            case SourceDown(error, retry_in):
                self._lose(str(error), now)
                _log.warning("source.down", reason=str(error), retry_in=round(retry_in, 2))
            case SourceEnded():
                self._lose("the source came to its end", float("-inf"))
                _log.info("source.ended")

    def away(self, now: float) -> float:
        """Seconds since the last picture of a source that may come back; 0 while alive or waking.

        Infinite before the first one, and after the end of a source that is not looped.
        """
        return 0.0 if self.alive or self._waking else now - self._gone_since

    def _lose(self, reason: str, since: float) -> None:
        if self.alive or since == float("-inf"):
            self._gone_since = since
        self.alive, self.reason = False, reason
