"""Passes items from a worker's threads to its owner's callbacks, until it is shut."""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from relayd import logs
from relayd.logs import LogEvent

T = TypeVar("T")

_log = logs.get("rtc")


class Gate(Generic[T]):
    """Passes each item to a callback until it is shut; after that, none.

    A callback that raises does not end the calling thread: the exception is logged, once.
    """

    def __init__(self, callback: Callable[[T], None]) -> None:
        self._callback = callback
        self._passing = Lock()
        self._is_shut = self._has_raised = False

    def put(self, item: T) -> None:
        """Call the callback with `item`, unless the gate is shut."""
        with self._passing:
            if self._is_shut:
                return
            try:
                self._callback(item)
            except Exception:  # noqa: BLE001 - the thread must go on
                if not self._has_raised:
                    self._has_raised = True
                    _log.exception(LogEvent.WORKER_CALLBACK_FAILED)

    def shut(self, within: float) -> bool:
        """Start no further call, and wait up to `within` seconds for a running one.

        False when that one has not returned.
        """
        self._is_shut = True
        if not self._passing.acquire(timeout=max(0.0, within)):
            return False
        self._passing.release()
        return True
