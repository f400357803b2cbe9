"""Keeps an output: one that breaks is closed, reported, and opened again as soon as that works."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Generic, Protocol, TypeVar

from relayd.clock import Backoff, Clock
from relayd.errors import RelaydError, Unavailable
from relayd.logs import LogEvent, get
from relayd.output.base import OutputChange, OutputEvent
from relayd.process.limits import start_thread

_log = get("screen")

_REOPEN_FIRST, _REOPEN_CAP = 0.25, 5.0
"""s between attempts to reopen a lost output: a device that is plugged in again is found soon."""


class Openable(Protocol):
    """What pictures and sound outputs have in common."""

    @property
    def name(self) -> str:
        """Its name for users."""

    def open(self) -> None:
        """Open it; raises RelaydError."""

    def close(self) -> None:
        """Release what open() acquired."""


AnyOutput = TypeVar("AnyOutput", bound=Openable)


class KeptOutput(Generic[AnyOutput]):
    """An output, and whether it works. While it is lost, only its own thread touches it."""

    def __init__(
        self,
        output: AnyOutput,
        *,
        stop: Event,
        clock: Clock,
        on_event: Callable[[OutputEvent], None],
    ) -> None:
        """Keep an output that its owner opens; `stop` ends all reopening.

        `on_event` is called from the owner's thread and from that of the reopening.
        """
        self.output = output
        self._stop, self._clock, self._on_event = stop, clock, on_event
        self._lost_as = ""
        """Its name when it was lost: a camera chosen by its label may come back as another one."""
        self._reopener: Thread | None = None
        self.lost = False
        """It is left out until it was opened again."""
        self.trouble = ""
        """Why it is lost, as in the latest event; empty while it works."""

    def use(self, call: Callable[[AnyOutput], None]) -> None:
        """Do something with the output, unless it is lost; any exception makes it so."""
        if self.lost:
            return
        try:
            call(self.output)
        except Exception as fault:  # noqa: BLE001 - the others must go on
            self.mark_lost(fault)

    def mark_lost(self, fault: Exception) -> None:
        """Leave the output out, and have it opened again in a thread of its own."""
        if not isinstance(fault, RelaydError):
            _log.error(LogEvent.OUTPUT_FAILED, output=self.output.name, exc_info=fault)
        before, self.trouble = self.trouble, str(fault) or type(fault).__name__
        self.lost, self._lost_as = True, self.output.name
        if self.trouble != before:
            self._on_event(OutputEvent(self._lost_as, OutputChange.LOST, self.trouble))
        self._start_opening(_REOPEN_FIRST)

    def open_soon(self) -> None:
        """Open the output in a thread of its own, for one whose opening may take seconds.

        It counts as lost until then, and is reported if it cannot be opened.
        """
        self.lost, self._lost_as = True, self.output.name
        self._start_opening(0.0)

    def _start_opening(self, after: float) -> None:
        thread = Thread(
            target=self._reopen,
            args=(after,),
            name=f"relayd-reopen-{self.output.name}",
            daemon=True,
        )
        try:
            start_thread(thread)
        except Unavailable:
            self.lost = False  # the next use fails as well and retries
            return
        self._reopener = thread

    def join(self) -> None:
        """Wait, after `stop` was set, until nothing is being opened."""
        if self._reopener:
            self._reopener.join()
            self._reopener = None

    def _reopen(self, wait: float) -> None:
        """Close the output after `wait` s and open it again as soon as that works."""
        backoff = Backoff(_REOPEN_FIRST, _REOPEN_CAP)
        while not self._clock.sleep_until(self._clock.now() + wait, self._stop):
            wait = backoff.next_wait()
            try:
                self.output.close()
                self.output.open()
            except Exception as fault:  # noqa: BLE001 - it is retried
                reason = str(fault) or type(fault).__name__
                if reason != self.trouble:
                    self.trouble = reason
                    self._on_event(OutputEvent(self._lost_as, OutputChange.LOST, reason))
                continue
            self.trouble = ""
            self._on_event(OutputEvent(self._lost_as, OutputChange.BACK))
            self.lost = False  # last, so that the next loss is reported after this event
            return
