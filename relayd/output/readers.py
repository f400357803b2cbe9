"""Counts the programs that read a virtual camera, while it is open.

Since 0.13 v4l2loopback reports how many programs stream from it. Before that, each program that
has the device open is counted once it has kept it open for longer than a capability query takes.
"""

import os
import select
from collections.abc import Callable
from threading import Event, Thread
from typing import Final, Protocol

from relayd.clock import Clock, MonotonicClock
from relayd.logs import LogEvent, get
from relayd.media.frames import OutputFrame
from relayd.output import v4l2
from relayd.output.base import Output
from relayd.output.open_tracker import OpenTracker
from relayd.v4l2 import calls

RETRY: Final = 5.0
"""s between two attempts to count again after a failure."""
UNKNOWN_AFTER: Final = 10.0
"""s of failures after which the number of readers is reported as unknown. Until then the last
count holds: if the device is gone, its writer reports that."""

_log = get("readers")


class ReaderCounter(Protocol):
    """A way to count the readers of a device."""

    mask: int
    """The events to poll `fileno` for."""
    description: str
    """How it counts them, as text for users."""

    def fileno(self) -> int:
        """Return the descriptor that signals a change."""

    def count(self, now: float) -> int | None:
        """Process new events; returns how many programs read it, None when that is uncertain.

        OSError when it can no longer be counted.
        """

    def due(self, now: float) -> float | None:
        """Seconds after which to count again even without an event; None: never."""

    def close(self) -> None:
        """Release all descriptors."""


class ClientUsage:
    """Reported by the driver: how many stream from the device (at most one since 0.13)."""

    mask = select.POLLPRI
    description = "the driver reports who reads it"

    def __init__(self, path: str, system: calls.System) -> None:
        """Subscribe; raises OSError, EINVAL with v4l2loopback before 0.13.

        This opens the device a second time, which counts against its `max_openers` and, in
        0.13, keeps it "ready" for readers after its writer closed it: so it must be closed
        before the writer is. 0.13 does not count a program that uses read() instead of mmap.
        """
        self._system = system
        self._count = 0
        self._fd = system.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            v4l2.subscribe_client_usage(system, self._fd)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that signals a change."""
        return self._fd

    def count(self, now: float) -> int:
        """Process the driver's events; returns how many programs stream."""
        del now
        while (count := v4l2.next_client_usage(self._system, self._fd)) is not None:
            self._count = count
        return self._count

    def due(self, now: float) -> float | None:
        """Never: the driver reports each change."""
        del now
        return None

    def close(self) -> None:
        """Close the second descriptor."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._system.close(fd)


def best_reader_counter(path: str, system: calls.System, now: float) -> ReaderCounter:
    """Return the best counter available; raises OSError when there is none."""
    try:
        return ClientUsage(path, system)
    except OSError as fault:
        _log.debug(LogEvent.READERS_NO_EVENT, device=path, reason=str(fault))
    return OpenTracker(path, now)


class ReadersWatch:
    """The actor that counts the readers of one device; runs in the thread `relayd-readers`."""

    def __init__(
        self,
        path: str,
        on_readers: Callable[[int | None], None],
        *,
        open_counter: Callable[[str, calls.System, float], ReaderCounter] = best_reader_counter,
        system: calls.System | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare to watch `path`. `on_readers` gets the number of readers now and at each change.

        None when that is unknown. It is called from the thread, and must not block.
        """
        self._path, self._on_readers, self._open_counter = path, on_readers, open_counter
        self._system = system or calls.Linux()
        self._clock = clock or MonotonicClock()
        self._stop = Event()
        self._thread: Thread | None = None
        self._reported: int | None = None
        self._has_reported = False
        self._failing_since: float | None = None

    def start(self) -> None:
        """Start watching; if that is not possible, the readers are unknown."""
        try:
            self._bell = os.eventfd(0)
        except OSError as fault:
            self._report(None, reason=str(fault))
            return
        thread = Thread(target=self._run, name="relayd-readers", daemon=True)
        try:
            thread.start()
        except RuntimeError as fault:  # no more threads
            os.close(self._bell)
            self._report(None, reason=str(fault))
            return
        self._thread = thread

    def stop(self) -> None:
        """Stop watching; every descriptor is closed when this returns."""
        self._stop.set()
        if self._thread:
            os.eventfd_write(self._bell, 1)
            self._thread.join()
            self._thread = None
            os.close(self._bell)

    def _run(self) -> None:
        """Watch until stop(); after each failure try again."""
        while not self._stop.is_set():
            try:
                self._watch()
            except OSError as fault:
                self._note_failure(fault.strerror or str(fault))
            except Exception as fault:  # noqa: BLE001 - else the last count would stay forever
                _log.exception(LogEvent.READERS_FAILED)
                self._note_failure(str(fault))
            self._clock.sleep_until(self._clock.now() + RETRY, self._stop)

    def _watch(self) -> None:
        counter = self._open_counter(self._path, self._system, self._clock.now())
        try:
            _log.info(LogEvent.READERS_WATCHED, device=self._path, by=type(counter).__name__)
            poll = select.poll()
            poll.register(counter.fileno(), counter.mask)
            poll.register(self._bell, select.POLLIN)
            while not self._stop.is_set():
                now = self._clock.now()
                self._report(counter.count(now), reason="other programs cannot be told apart")
                self._failing_since = None
                wait = counter.due(now)
                poll.poll(None if wait is None else wait * 1000)
        finally:
            counter.close()

    def _note_failure(self, reason: str) -> None:
        """Keep the last count for a while, then report that it is unknown."""
        now = self._clock.now()
        if self._failing_since is None:
            self._failing_since = now
            _log.warning(LogEvent.READERS_UNSEEN, device=self._path, reason=reason)
        if now - self._failing_since >= UNKNOWN_AFTER:
            self._report(None, reason=reason)

    def _report(self, readers: int | None, *, reason: str) -> None:
        if self._has_reported and readers == self._reported:
            return
        self._reported, self._has_reported = readers, True
        if readers is None:
            _log.warning(LogEvent.READERS_UNKNOWN, device=self._path, reason=reason)
        else:
            _log.info(LogEvent.READERS_CHANGED, device=self._path, count=readers)
        self._on_readers(readers)


class WatchedCamera:
    """A camera as an output that also reports who reads it."""

    def __init__(
        self,
        camera: Output,
        on_readers: Callable[[str, int | None], None],
        watch: Callable[[str, Callable[[int | None], None]], ReadersWatch] = ReadersWatch,
    ) -> None:
        """Wrap `camera`; `on_readers` gets its device and number of readers, from any thread."""
        self._camera, self._on_readers, self._make_watch = camera, on_readers, watch
        self._watch: ReadersWatch | None = None

    @property
    def name(self) -> str:
        """The camera's name for users: its device's path."""
        return self._camera.name

    def open(self) -> None:
        """Open the camera, then watch it; raises CameraUnavailable."""
        self._camera.open()
        if self._watch is None:
            path = self._camera.name
            self._watch = self._make_watch(path, lambda readers: self._on_readers(path, readers))
            self._watch.start()

    def show(self, frame: OutputFrame) -> None:
        """Show one picture; raises CameraUnavailable."""
        self._camera.show(frame)

    def close(self) -> None:
        """Stop watching, then close the camera and report that it has no readers."""
        if self._watch:
            path = self._camera.name
            self._watch.stop()
            self._watch = None
            self._on_readers(path, 0)
        self._camera.close()
