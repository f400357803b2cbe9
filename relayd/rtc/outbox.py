"""A queue for the worker's events: put never waits, sending goes as fast as the parent reads."""

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

from relayd.rtc.link import FINAL_KINDS, LinkEvent, LinkEventKind

MOST_WAITING = 256
"""Events kept for a parent that does not read; an unstable link makes four a second."""


class Outbox:
    """Sends events in order, from its own thread; `put` never waits.

    Only the newest STATS is kept. Beyond MOST_WAITING the oldest event that does not end a link
    is dropped: the parent gets the latest state, and every end.
    """

    def __init__(self, send: Callable[[LinkEvent], None]) -> None:
        """Prepare; `send` may block, and raises OSError once the parent is gone."""
        self._send = send
        self._waiting: deque[LinkEvent] = deque()
        self._changed = Condition()
        self._is_closing = False
        # A daemon: a parent that does not read must not keep the process.
        self._thread = Thread(target=self._run, name="relayd-outbox", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def put(self, event: LinkEvent) -> None:
        """Send `event` after those before it; from any thread."""
        with self._changed:
            if event.kind is LinkEventKind.STATS:
                self._drop_first(lambda waiting: waiting.kind is LinkEventKind.STATS)
            if len(self._waiting) >= MOST_WAITING:
                self._drop_first(lambda waiting: waiting.kind not in FINAL_KINDS)
            self._waiting.append(event)
            self._changed.notify()

    def close(self, within: float) -> bool:
        """Send the rest, within `within` seconds; False if that was not enough."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(max(0.0, within))
        return not self._thread.is_alive()

    def _drop_first(self, unwanted: Callable[[LinkEvent], bool]) -> None:
        for waiting in self._waiting:
            if unwanted(waiting):
                self._waiting.remove(waiting)
                return

    def _run(self) -> None:
        while (event := self._next()) is not None:
            try:
                self._send(event)
            except OSError:  # the parent is gone, or closed the socket
                return

    def _next(self) -> LinkEvent | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            return self._waiting.popleft() if self._waiting else None
