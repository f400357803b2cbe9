"""By when a connection has to get on, and what is wrong if it does not."""

from typing import Final

from relayd import logs
from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceLost
from relayd.logs import LogEvent
from relayd.source.connection import SourceConnection
from relayd.source.inspection import LONGEST_INSPECTION
from relayd.source.limits import LONGEST_KEY_WAIT, SourceLimits
from relayd.source.opening import too_slow

OPENING_GRACE: Final = 1.0
"""s beyond the limit for opening, which FFmpeg keeps itself, after which it counts as hung."""

_log = logs.get("source")


def longest_start(settings: SourceSettings) -> float:
    """Return the s within which a first connection shows a picture, or says why it does not."""
    key_wait = LONGEST_KEY_WAIT + settings.stall_timeout
    first_frame = max(settings.first_frame_timeout, key_wait)
    return settings.open_timeout + OPENING_GRACE + first_frame + LONGEST_INSPECTION


class Progress:
    """Watches one connection: until it is open, until its first picture, then between pictures."""

    def __init__(self, connection: SourceConnection, limits: SourceLimits, name: str) -> None:
        self._connection, self._limits, self._name = connection, limits, name
        self._packets = 0
        self._extended_to = float("-inf")

    def deadline(self, now: float) -> float:
        """Return the time by which the next step is due, on the connection's clock.

        The limits adapt to what the connection has shown, which is logged.
        """
        connection = self._connection
        if self._limits.learn(connection.run):
            _log.info(
                LogEvent.SOURCE_SLOW,
                stall_limit=round(self._limits.stall, 1),
                first_frame_limit=round(self._limits.first_frame, 1),
            )
        if connection.last_picture_at is not None:
            return connection.last_picture_at + self._limits.stall + connection.burst
        if connection.connected_at is None:
            return connection.started_at + self._limits.open + OPENING_GRACE
        deadline = max(connection.connected_at + self._limits.first_frame, self._extended_to)
        if now >= deadline and self._may_still_come(now - connection.connected_at):
            if self._extended_to < connection.connected_at:
                _log.warning(LogEvent.SOURCE_WAITS_FOR_KEY_FRAME, longest=LONGEST_KEY_WAIT)
            self._extended_to = deadline = now + self._limits.stall
        return deadline

    def _may_still_come(self, waited: float) -> bool:
        """Whether video has arrived since the last call: then a key frame may come."""
        before, self._packets = self._packets, self._connection.packets
        return self._packets > before and waited < LONGEST_KEY_WAIT

    def fault(self, now: float) -> SourceError:
        """Return the error of a connection whose deadline has passed."""
        connection, limits, name = self._connection, self._limits, self._name
        if connection.last_picture_at is not None:
            return self._stalled()
        if connection.connected_at is None:
            return too_slow(name, limits.open)
        if self._extended_to > connection.connected_at:
            waited = now - connection.connected_at
            return SourceLost(f"{name}: video arrives, but no key frame within {waited:.0f} s")
        reason = limits.first_frame_reason()
        more = f" ({reason})" if reason else ""
        hint = "see [source] first_frame_timeout"
        limit = limits.first_frame
        return SourceLost(
            f"{name}: connected, but no picture within {_rounded(limit)} s{more}", hint=hint
        )

    def _stalled(self) -> SourceError:
        limit = self._limits.stall + self._connection.burst
        message = f"{self._name}: no picture for {_rounded(limit)} s"
        if not self._limits.may_be_slow(self._connection.run):
            return SourceLost(message)
        hint = "a source that sends pictures this rarely needs a longer [source] stall_timeout"
        return SourceLost(f"{message}, though it may only be slow", hint=hint)


def _rounded(seconds: float) -> str:
    """Return a limit that may have been learnt, without decimals that say nothing."""
    return f"{round(seconds, 1):g}"
