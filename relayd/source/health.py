"""How the source is, out of what its reader tells."""

from relayd.logs import get
from relayd.source.events import SourceDown, SourceEnded, SourceEvent, SourceOpened

_log = get("source")


class SourceHealth:
    """Whether pictures come, since when not, and why not."""

    def __init__(self) -> None:
        self.alive = False
        """Pictures come."""
        self.reason = "waiting for the source's first picture"
        """Why not, in words; empty while they do."""
        self._gone_since = float("-inf")

    def hear(self, event: SourceEvent, now: float) -> None:
        """Take in an event of the reader, at `now` monotonic seconds."""
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
        """Seconds since the last picture of a source that may come back; 0 while alive.

        Infinite before the first one, and after the end of a source that is not looped.
        """
        return 0.0 if self.alive else now - self._gone_since

    def _lose(self, reason: str, since: float) -> None:
        if self.alive or since == float("-inf"):
            self._gone_since = since
        self.alive, self.reason = False, reason
