"""Keeps a source running: opens it, watches it, and opens it again when it is lost.

Two threads. `relayd-source` only watches and waits, so it can always be stopped and always
sees a stall in time. FFmpeg's calls, which may hang for seconds whatever time limits they
are given, are made by a thread of each `SourceConnection`; one that hangs is abandoned: nothing it
still brings is taken, and it ends when FFmpeg's own time limits let it go.
"""

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Final

from relayd.clock import Backoff, Clock, MonotonicClock
from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceLost, SourceUnreachable
from relayd.media.frames import I420, FitMode, Geometry, SourceFrame
from relayd.media.slots import LatestSlot
from relayd.process.limits import start_thread
from relayd.source.connection import OPEN_TIMEOUT, SourceConnection
from relayd.source.events import (
    SourceCounters,
    SourceDown,
    SourceEnded,
    SourceEvent,
)

FIRST_RETRY: Final = 0.25
"""s to the first try after a loss."""
LONGEST_RETRY: Final = 1.0
"""s between tries at a source that may be back any moment: the picture must be there within
1.5 s of it. A refused connection costs some milliseconds."""
HOPELESS_RETRY: Final = 10.0
"""s between tries at a source that needs a person: a file missing, a password refused."""
FIRST_PICTURE_TIMEOUT: Final = 10.0
"""s from connection to the first picture: the longest wait for a key frame to be expected."""
OPENING_GRACE: Final = 1.0
"""s beyond FFmpeg's two time limits for opening, before an opening counts as hung."""
MOST_HUNG: Final = 2
"""Abandoned attempts in which FFmpeg still hangs; with so many, no other one starts until one of
them ends, whatever is asked for: each is a thread and a connection to the camera."""
FRESH_OPENING: Final = 2.0
"""s for which an attempt without a picture yet counts as the one that a restart asks for."""
LET_GO: Final = 0.3
"""s that an abandoned attempt gets to close its device or connection before another one opens it:
some frames at 20 fps. A capture device would be busy till then."""
STOP_TIMEOUT: Final = 2.0
"""s that `stop` waits for FFmpeg to let go."""


class SourceReader:
    """Puts the newest picture of a source into `slot`, for as long as it runs.

    `on_event` is called on the reader's own thread and must not block. The slot is cleared
    when the source is lost, so that nobody shows a picture that is no longer true.
    """

    def __init__(
        self,
        settings: SourceSettings,
        geometry: Geometry,
        fit: FitMode,
        slot: LatestSlot[SourceFrame],
        on_event: Callable[[SourceEvent], None],
        *,
        clock: Clock | None = None,
        retry: Backoff | None = None,
    ) -> None:
        self._settings, self._geometry, self._fit = settings, geometry, fit
        self._slot, self._on_event = slot, on_event
        self._clock = clock or MonotonicClock()
        self._retry = retry or Backoff(FIRST_RETRY, LONGEST_RETRY)
        self._stop, self._restart, self._wake = Event(), Event(), Event()
        self._resting = Event()
        self._lock = Lock()
        self._current: SourceConnection | None = None
        self._hung: list[SourceConnection] = []
        self._left_at = float("-inf")
        self._is_reconnect = self._is_up = False
        self._thread = Thread(target=self._run, name="relayd-source", daemon=True)
        self.counters = SourceCounters()

    def start(self) -> None:
        """Begin to read; once in its life. Raises Unavailable where there is no thread for it."""
        start_thread(self._thread)

    def stop(self) -> bool:
        """End reading; False if FFmpeg still hangs after STOP_TIMEOUT (it ends by itself)."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is None:
            return True
        self._thread.join()
        deadline = self._clock.now() + STOP_TIMEOUT
        ended = [attempt.join(max(0.0, deadline - self._clock.now())) for attempt in self._hung]
        return all(ended)

    def restart(self) -> None:
        """Open the source again at once, whether it runs, waits for a retry or has ended.

        Changes nothing while it is already being opened again (FRESH_OPENING), and waits where
        earlier attempts still hang (MOST_HUNG).
        """
        self._restart.set()
        self._wake.set()

    def pause(self) -> None:
        """Let go of the source until `resume`: a camera's light goes out, a connection ends."""
        self._resting.set()
        self.restart()

    def resume(self) -> None:
        """Open the source again."""
        self._resting.clear()
        self.restart()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._restart.clear()
            if self._resting.is_set():
                self._rest()
                continue
            if not self._wait_for_room():
                continue
            attempt = self._begin()
            try:
                has_ended = self._watch(attempt)
            except SourceError as error:
                self._leave(attempt)
                self._wait_to_retry(attempt, error)
            else:
                self._leave(attempt)
                if has_ended:
                    self._is_up = False
                    self._on_event(SourceEnded())
                    self._wait_until(None)

    def _rest(self) -> None:
        self._slot.clear()
        self._is_reconnect = self._is_up = False
        self._wait_until(None)

    def _wait_for_room(self) -> bool:
        """Wait until another attempt may begin; False when none is wanted any more."""
        while True:
            self._wake.clear()
            self._restart.clear()  # before the look at what is wanted
            if self._stop.is_set() or self._resting.is_set():
                return False
            self._hung = [earlier for earlier in self._hung if earlier.alive]
            busy = sum(not earlier.over.is_set() for earlier in self._hung)
            now = self._clock.now()
            if busy >= MOST_HUNG:
                self._tell_hung(busy)
                moment = now + FIRST_RETRY
            elif busy and now < self._left_at + LET_GO:
                moment = self._left_at + LET_GO
            else:
                return True
            self._clock.sleep_until(moment, self._wake)

    def _tell_hung(self, count: int) -> None:
        """Say that there are no pictures, unless that is known."""
        if self._is_up:
            self._is_up = False
            self._slot.clear()
            name = self._settings.url
            error = SourceUnreachable(f"{name}: {count} earlier connections still hang")
            self._on_event(SourceDown(error, FIRST_RETRY))

    def _begin(self) -> SourceConnection:
        attempt = SourceConnection(
            self._settings,
            self._geometry,
            self._fit,
            clock=self._clock,
            wake=self._wake,
            publish=self._take,
        )
        with self._lock:
            self._current = attempt
        attempt.start()
        return attempt

    def _watch(self, attempt: SourceConnection) -> bool:
        """Stay until the attempt is over: True; or somebody asks for something else: False.

        Raises SourceError when it failed or stalled.
        """
        told = False
        while not (self._woken_by_request() and self._must_leave(attempt)):
            if not told and attempt.first_at is not None:
                told = True
                self._tell_opened(attempt)
            if attempt.over.is_set():
                if attempt.error is not None:
                    raise attempt.error
                return True
            deadline, fault = self._deadline(attempt)
            if self._clock.now() >= deadline:
                self.counters.stalls += 1
                raise fault
            self._clock.sleep_until(deadline, self._wake)
        return False

    def _must_leave(self, attempt: SourceConnection) -> bool:
        """Whether what is asked for needs another attempt, or none; else it is done."""
        self._restart.clear()  # before the look at what is wanted
        is_fresh = attempt.first_at is None and not attempt.over.is_set()
        is_fresh = is_fresh and self._clock.now() < attempt.started_at + FRESH_OPENING
        return self._stop.is_set() or self._resting.is_set() or not is_fresh

    def _deadline(self, attempt: SourceConnection) -> tuple[float, SourceError]:
        """Return the moment by which something must happen, and the fault if it does not."""
        name, limit = self._settings.url, self._settings.stall_timeout
        if attempt.last_at is not None:
            return attempt.last_at + limit, SourceLost(f"{name}: no picture for {limit:g} s")
        if attempt.connected_at is not None:
            limit = max(limit, FIRST_PICTURE_TIMEOUT)
            return attempt.connected_at + limit, SourceLost(
                f"{name}: connected, but no picture within {limit:g} s"
            )
        limit = 2 * OPEN_TIMEOUT + OPENING_GRACE
        return attempt.started_at + limit, SourceUnreachable(
            f"{name}: could not be opened within {limit:g} s"
        )

    def _take(self, attempt: SourceConnection, i420: I420) -> bool:
        """Hand on a picture, unless it comes from an attempt that was abandoned."""
        with self._lock:
            if attempt is not self._current:
                return False
            now = self._clock.now()
            self._slot.put(SourceFrame(i420, now))
            attempt.last_at = now
            self.counters.frames += 1
            first = attempt.first_at is None
            if first:
                attempt.first_at = now
        if first:
            self._wake.set()
        return True

    def _tell_opened(self, attempt: SourceConnection) -> None:
        self.counters.reconnects += self._is_reconnect
        self._is_reconnect = self._is_up = True
        if attempt.facts is not None:
            self._on_event(attempt.facts)

    def _leave(self, attempt: SourceConnection) -> None:
        with self._lock:
            self._current = None
        attempt.abandon()
        self._left_at = self._clock.now()
        self.counters.corrupt += attempt.corrupt
        self.counters.late += attempt.late
        self._hung = [earlier for earlier in [*self._hung, attempt] if earlier.alive]

    def _wait_to_retry(self, attempt: SourceConnection, error: SourceError) -> None:
        self._slot.clear()
        good_for = 0.0
        if attempt.first_at is not None and attempt.last_at is not None:
            good_for = attempt.last_at - attempt.first_at
        wait = self._retry.next_wait(good_for) if error.retryable else HOPELESS_RETRY
        self._is_up = False
        self._on_event(SourceDown(error, wait))
        self._wait_until(self._clock.now() + wait)

    def _wait_until(self, moment: float | None) -> None:
        """Wait until then (None: for ever), a restart or the stop."""
        while not self._woken_by_request():
            if moment is None:
                self._wake.wait()
            elif not self._clock.sleep_until(moment, self._wake):
                return

    def _woken_by_request(self) -> bool:
        self._wake.clear()  # before the look, so that no request falls between
        return self._asked()

    def _asked(self) -> bool:
        return self._stop.is_set() or self._restart.is_set()
