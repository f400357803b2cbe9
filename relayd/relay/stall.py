"""Detects that swapped pictures stop, with one timer that is moved only when it fires."""

from asyncio import TimerHandle
from collections.abc import Callable

from relayd.clock import Clock
from relayd.errors import LinkStalled, RelaydError

SENDING_GAP = 0.5
"""s without a sent picture after which missing swapped pictures are not the link's fault."""


class StallWatch:
    """Reports once when pictures stop; `received` then tells when they are back.

    `sent` and `received` may be called from any thread, the rest from the event loop.
    """

    def __init__(
        self,
        clock: Clock,
        call_at: Callable[[float, Callable[[], None]], TimerHandle],
        limit: float,
        on_stalled: Callable[[RelaydError, float], None],
    ) -> None:
        """Watch nothing yet; `on_stalled` gets the error and the time of the last picture."""
        self._clock, self._call_at = clock, call_at
        self._limit, self._on_stalled = limit, on_stalled
        self._timer: TimerHandle | None = None
        self._sent_at = self._expecting_since = self._picture_at = float("-inf")
        self._stalled = False

    def start(self) -> None:
        """Start watching, as the first picture has arrived."""
        self._picture_at = self._clock.now()
        self._stalled = False
        self._check_at(self._picture_at + self._limit)

    def stop(self) -> None:
        """Stop watching."""
        self._stalled = False
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def sent(self, now: float) -> None:
        """Note that a picture was sent, so one must come back."""
        if now - self._sent_at > SENDING_GAP:
            self._expecting_since = now
        self._sent_at = now

    def received(self, at: float) -> bool:
        """Note that a picture arrived; returns True if it is the first after a stall."""
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
