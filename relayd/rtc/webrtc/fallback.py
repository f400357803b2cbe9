"""Which WebRTC engine the next worker gets: another one after two workers died of the first."""

from relayd import logs
from relayd.errors import LibraryUnavailable
from relayd.logs import LogEvent
from relayd.rtc.webrtc import engines

MOST_DEATHS = 2
"""Workers that may die with libwebrtc. One death is chance, and repaired within a second."""

_log = logs.get("link")


class EngineChoice:
    """The engine of one relay's workers; for one thread."""

    def __init__(self, wanted: str = "auto") -> None:
        """`wanted`: the configured engine. One that is named is kept, whatever happens."""
        self.name = wanted
        self._deaths = 0

    def worker_died(self) -> None:
        """Take aiortc from now on if libwebrtc has ended too many workers."""
        if self.name != "auto":
            return
        try:
            usable = engines.installed()
        except LibraryUnavailable:
            return
        if usable[0] != "libwebrtc" or "aiortc" not in usable:
            return
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            self.name = "aiortc"
            _log.warning(LogEvent.LINK_ENGINE_FALLBACK, deaths=self._deaths, engine=self.name)
