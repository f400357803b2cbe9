"""Keeps a source running: opens it, watches it, and opens it again when it is lost.

Two threads. `relayd-source` only watches and waits, so it can always be stopped and always
detects a stall in time. FFmpeg's calls may hang for seconds despite their time limits; each
`SourceConnection` makes them in a thread of its own. One that hangs is abandoned: its further
pictures are ignored, and it ends when FFmpeg's time limits end the call.
"""

from collections.abc import Callable
from threading import Lock, Thread
from typing import Final

from relayd.clock import Backoff, Clock, MonotonicClock
from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceUnreachable
from relayd.media.frames import I420, FitMode, Geometry, SourceFrame
from relayd.media.orientation import UPRIGHT, Orientation
from relayd.media.slots import LatestSlot
from relayd.process.limits import start_thread
from relayd.sound.blocks import OwnSound
from relayd.sound.ring import SoundRing
from relayd.source.abandoned import MOST_HUNG, AbandonedConnections
from relayd.source.connection import SourceConnection
from relayd.source.events import (
    SourceCounters,
    SourceDown,
    SourceEnded,
    SourceEvent,
)
from relayd.source.limits import SourceLimits
from relayd.source.opening import SourceOpener
from relayd.source.playing import REFRESH
from relayd.source.progress import Progress
from relayd.source.requests import Requests
from relayd.source.sound_watch import SourceSound

FIRST_RETRY: Final = 0.25
"""s until the first attempt after a loss."""
LONGEST_RETRY: Final = 1.0
"""s between attempts for a source that may be back any moment: its picture must be shown within
1.5 s after that. A refused connection costs a few milliseconds."""
UNUSABLE_RETRY: Final = 10.0
"""s between attempts for a source that a user must fix: a missing file, a wrong password."""
FRESH_CONNECTION: Final = 2.0
"""s for which a connection without a picture yet counts as the one that a restart asks for."""
STOP_TIMEOUT: Final = 2.0
"""s that `stop` waits for FFmpeg's calls to return."""


class SourceReader:
    """Puts the newest picture of a source into `slot`, for as long as it runs.

    `on_event` is called in the reader's own thread and must not block. The slot is cleared
    when the source is lost, so that no outdated picture is shown. `fps` is the relay's: a camera
    is asked for no fewer pictures a second. With `sound` the source's own sound is read too, if it
    has some, and put there.
    """

    def __init__(
        self,
        settings: SourceSettings,
        geometry: Geometry,
        fit: FitMode,
        slot: LatestSlot[SourceFrame],
        on_event: Callable[[SourceEvent], None],
        *,
        turn: Orientation = UPRIGHT,
        fps: float = 20.0,
        sound: SoundRing[OwnSound] | None = None,
        clock: Clock | None = None,
        retry: Backoff | None = None,
    ) -> None:
        self._settings = settings
        self._limits = SourceLimits(settings)
        self._slot, self._on_event = slot, on_event
        self._clock = clock or MonotonicClock()
        self.sound = SourceSound(sound, self._clock)
        """The sound beside the pictures."""
        self._opener = SourceOpener(
            settings,
            geometry,
            fit,
            self._limits,
            turn=turn,
            fps=fps,
            with_sound=self.sound.is_wanted,
        )
        self._retry = retry or Backoff(FIRST_RETRY, LONGEST_RETRY)
        self._requests = Requests(self._clock)
        self._wake = self._requests.wake
        self._lock = Lock()
        self._current: SourceConnection | None = None
        self._abandoned = AbandonedConnections()
        self._is_reconnect = self._is_up = False
        self._thread = Thread(target=self._run, name="relayd-source", daemon=True)
        self.counters = SourceCounters()

    def start(self) -> None:
        """Start reading; only once. Raises Unavailable if no thread can be started."""
        start_thread(self._thread)

    def stop(self) -> bool:
        """Stop reading; False if FFmpeg still hangs after STOP_TIMEOUT (it ends by itself)."""
        self._requests.stop()
        if self._thread.ident is None:
            return True
        self._thread.join()
        if has_ended := self._abandoned.join(self._clock.now() + STOP_TIMEOUT, self._clock):
            self._opener.close()
        return has_ended

    @property
    def behind(self) -> float:
        """Seconds that the newest picture was late because decoding is too slow."""
        connection = self._current
        return connection.behind if connection else 0.0

    @property
    def slowness(self) -> str:
        """What to tell the user when decoding is too slow; else empty."""
        connection = self._current
        return connection.slowness if connection else ""

    def restart(self) -> None:
        """Open the source again at once, whether it runs, waits for a retry or has ended.

        Does nothing while it is already being opened (FRESH_CONNECTION), and waits while too many
        earlier connections still hang (MOST_HUNG).
        """
        self._requests.restart()

    def pause(self) -> None:
        """Close the source until `resume`: a camera's light goes out, a connection ends."""
        self._requests.pause()

    def resume(self) -> None:
        """Open the source again."""
        self._requests.resume()

    @property
    def buffered(self) -> float:
        """Seconds that pictures wait now so that bursts are played evenly; mostly 0.0."""
        with self._lock:
            return self._current.buffered if self._current else 0.0

    def _run(self) -> None:
        while not self._requests.is_stopped:
            self._requests.take_restart()
            if self._requests.is_paused:
                self._wait_while_paused()
                continue
            if not self._wait_for_room():
                continue
            connection = self._connect()
            try:
                has_ended = self._watch(connection)
            except SourceError as error:
                self._abandon(connection)
                self._wait_to_retry(connection, error)
            else:
                self._abandon(connection)
                if has_ended:
                    self._is_up = False
                    self._on_event(SourceEnded())
                    self._requests.wait_until(None)

    def _wait_while_paused(self) -> None:
        self._slot.clear()
        self.sound.clear()
        self._is_reconnect = self._is_up = False
        self._requests.wait_until(None)

    def _wait_for_room(self) -> bool:
        """Wait until another connection may start; False when none is wanted any more."""
        while True:
            self._wake.clear()
            self._requests.take_restart()
            if self._requests.wants_none:
                return False
            if (hung := self._abandoned.hung) >= MOST_HUNG:
                self._report_hung(hung)
            now = self._clock.now()
            if (moment := self._abandoned.next_start(now)) <= now:
                return True
            self._clock.sleep_until(moment, self._wake)

    def _report_hung(self, count: int) -> None:
        """Report that there are no pictures, unless that was already reported."""
        if self._is_up:
            self._is_up = False
            self._slot.clear()
            name = self._settings.url
            error = SourceUnreachable(f"{name}: {count} earlier connections still hang")
            self._on_event(SourceDown(error, FIRST_RETRY))

    def _connect(self) -> SourceConnection:
        connection = SourceConnection(
            self._settings,
            self._opener,
            limits=self._limits,
            clock=self._clock,
            wake=self._wake,
            publish=self._accept,
            publish_sound=self._accept_sound,
        )
        with self._lock:
            self._current = connection
        connection.start()
        return connection

    def _watch(self, connection: SourceConnection) -> bool:
        """Wait until the connection ends: True; or until another one is requested: False.

        Raises SourceError when it failed or stalled.
        """
        progress = Progress(connection, self._limits, str(self._settings.url))
        is_reported = False
        while not (self._requests.take_wake() and self._needs_new_connection(connection)):
            if not is_reported and connection.first_picture_at is not None:
                is_reported = True
                self._report_opened(connection)
            if connection.ended.is_set():
                if connection.error is not None:
                    raise connection.error
                return True
            now = self._clock.now()
            deadline = progress.deadline(now)
            if now >= deadline:
                self._note_stall(connection, progress.fault(now))
                is_reported = False
                continue
            refresh_at = self._keep_fresh(now) if is_reported else deadline
            self._clock.sleep_until(min(deadline, refresh_at), self._wake)
        return False

    def _keep_fresh(self, now: float) -> float:
        """Publish the last picture of a slow source again; returns when to do so next."""
        if not self._limits.is_slow:
            return float("inf")
        with self._lock:
            frame = self._slot.latest()[1]
            if frame is None:
                return now + REFRESH
            if now >= frame.captured_at + REFRESH:
                frame = SourceFrame(frame.i420, now)
                self._slot.put(frame)
        return frame.captured_at + REFRESH

    def _note_stall(self, connection: SourceConnection, fault: SourceError) -> None:
        """Give a connection up that stands still; one to a pipe is kept, and waited for.

        What was read of a pipe does not come again, not even the header of its format.
        """
        self.counters.stalls += 1
        if connection.last_picture_at is not None:
            self._limits.learn_from_stall(connection.run)
        elif connection.connected_at is not None and not connection.packets:
            self._opener.distrust()
        if not self._opener.is_pipe:
            raise fault
        with self._lock:  # a picture may be published just now
            connection.wait_again()
        self._is_up = False
        self._slot.clear()
        self._on_event(SourceDown(fault, 0.0))

    def _needs_new_connection(self, connection: SourceConnection) -> bool:
        """Whether the request needs another connection, or none; else it is already fulfilled."""
        self._requests.take_restart()
        is_fresh = connection.first_picture_at is None and not connection.ended.is_set()
        is_fresh = is_fresh and self._clock.now() < connection.started_at + FRESH_CONNECTION
        return self._requests.wants_none or not is_fresh

    def _accept(self, connection: SourceConnection, i420: I420) -> bool:
        """Publish a picture, unless it comes from an abandoned connection."""
        with self._lock:
            if connection is not self._current:
                return False
            now = self._clock.now()
            self._slot.put(SourceFrame(i420, now))
            if first := connection.first_picture_at is None:
                self.sound.opened(connection.sound_format)
            connection.note_picture(i420, now)
            self.sound.note_picture(now)
            self.counters.frames += 1
        if first:
            self._wake.set()
        return True

    def _accept_sound(self, connection: SourceConnection, block: OwnSound) -> None:
        """Hand sound on, unless it comes from an abandoned connection."""
        with self._lock:
            if connection is self._current:
                self.sound.put(block)

    def _report_opened(self, connection: SourceConnection) -> None:
        self.counters.reconnects += self._is_reconnect
        self._is_reconnect = self._is_up = True
        if connection.stream_info is not None:
            self._on_event(connection.stream_info)

    def _abandon(self, connection: SourceConnection) -> None:
        with self._lock:
            self._current = None
            self.sound.closed()
        self._abandoned.add(connection, self._clock.now())
        self.counters.corrupt += connection.corrupt
        self.counters.late += connection.late

    def _wait_to_retry(self, connection: SourceConnection, error: SourceError) -> None:
        self._slot.clear()
        wait = self._retry.next_wait(connection.lasted) if error.retryable else UNUSABLE_RETRY
        self._is_up = False
        self._on_event(SourceDown(error, wait))
        self._requests.wait_until(self._clock.now() + wait)
