"""Whether swapped pictures still come back, told by one timer that is moved only when it is due."""

from asyncio import TimerHandle
from collections.abc import Callable

from relayd.clock import Clock
from relayd.errors import LinkStalled, RelaydError

SENDING_GAP = 0.5
"""s without a picture sent after which silence of the engine is no fault of the link."""


class StallWatch:
    """Tells once when pictures stop; `received` then says when they are back.

    `sent` and `received` may be called from any thread, the rest from the event loop.
    """

    def __init__(
        self,
        clock: Clock,
        call_at: Callable[[float, Callable[[], None]], TimerHandle],
        limit: float,
        on_stalled: Callable[[RelaydError, float], None],
    ) -> None:
        """Watch nothing yet; `on_stalled` gets the error and when the last picture came."""
        self._clock, self._call_at = clock, call_at
        self._limit, self._on_stalled = limit, on_stalled
        self._timer: TimerHandle | None = None
        self._sent_at = self._expecting_since = self._picture_at = float("-inf")
        self._stalled = False

    def start(self) -> None:
        """The first picture has come: from now on more must."""
        self._picture_at = self._clock.now()
        self._stalled = False
        self._check_at(self._picture_at + self._limit)

    def stop(self) -> None:
        """Watch no longer."""
        self._stalled = False
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def sent(self, now: float) -> None:
        """A picture was sent: one must come back."""
        if now - self._sent_at > SENDING_GAP:
            self._expecting_since = now
        self._sent_at = now

    def received(self, at: float) -> bool:
        """Take in that a picture came; True when it is the first one after a stall."""
        self._picture_at = at
        was_stalled, self._stalled = self._stalled, False
        return was_stalled

    def _check_at(self, moment: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._call_at(moment, self._check)

    def _check(self) -> None:
        now = self._clock.now()
        due = max(self._picture_at, self._expecting_since) + self._limit
        if now - self._sent_at > SENDING_GAP:
            due = now + self._limit  # the engine has nothing to swap
        elif now >= due and not self._stalled:
            self._stalled = True
            error = LinkStalled(f"no swapped picture for {self._limit:g} s")
            self._on_stalled(error, self._picture_at)
        self._check_at(due if due > now else now + self._limit)
