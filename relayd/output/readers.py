"""Who looks at a virtual camera: the programs that read it, counted while it is open.

v4l2loopback tells since 0.13 how many programs stream from it. Before that, whoever has the
device open is counted, once that lasts longer than a look at what the camera can do.
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

RETRY: Final = 5.0
"""s between two tries to see again."""
UNKNOWN_AFTER: Final = 10.0
"""s without sight that the last count is held: a device that went is told of by its writer."""

_log = get("readers")


class ReaderCounter(Protocol):
    """A way to see who reads a device."""

    mask: int
    """What poll() shall wait for on `fileno`."""
    description: str
    """How it sees them, for a person."""

    def fileno(self) -> int:
        """Return the descriptor that tells of a change."""

    def count(self, now: float) -> int | None:
        """Take in what happened; returns how many read it, None when that is in doubt.

        OSError when nothing is seen any more.
        """

    def due(self, now: float) -> float | None:
        """Seconds after which to look again even if nothing is told; None: never."""

    def close(self) -> None:
        """Let go."""


class ClientUsage:
    """Told by the driver: how many stream from the device (at most one since 0.13)."""

    mask = select.POLLPRI
    description = "the driver tells who reads it"

    def __init__(self, path: str, system: v4l2.System) -> None:
        """Subscribe; raises OSError, EINVAL with v4l2loopback before 0.13.

        This is a second opening of the device, which counts against its `max_openers`, and
        in 0.13 keeps it "ready" for readers after its writer closed it: so it must be closed
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
        """Return the descriptor that tells of a change."""
        return self._fd

    def count(self, now: float) -> int:
        """Take in what the driver told; returns how many stream."""
        del now
        while (count := v4l2.next_client_usage(self._system, self._fd)) is not None:
            self._count = count
        return self._count

    def due(self, now: float) -> float | None:
        """Never: the driver tells each change."""
        del now
        return None

    def close(self) -> None:
        """End the second opening."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._system.close(fd)


def best_reader_counter(path: str, system: v4l2.System, now: float) -> ReaderCounter:
    """Return the best way that there is; raises OSError when there is none."""
    try:
        return ClientUsage(path, system)
    except OSError as fault:
        _log.debug(LogEvent.READERS_NO_EVENT, device=path, reason=str(fault))
    return OpenTracker(path, now)


class ReadersWatch:
    """The actor that watches one device; runs in the thread `relayd-readers`."""

    def __init__(
        self,
        path: str,
        on_readers: Callable[[int | None], None],
        *,
        open_counter: Callable[[str, v4l2.System, float], ReaderCounter] = best_reader_counter,
        system: v4l2.System | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Plan to watch `path`. `on_readers` hears how many read it now and at each change.

        None when that cannot be seen (any more). It is called from the thread, and must not wait.
        """
        self._path, self._on_readers, self._open_counter = path, on_readers, open_counter
        self._system = system or v4l2.Linux()
        self._clock = clock or MonotonicClock()
        self._stop = Event()
        self._thread: Thread | None = None
        self._reported: int | None = None
        self._has_reported = False
        self._failing_since: float | None = None

    def start(self) -> None:
        """Begin to watch; where not even that can be, readers are unknown."""
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
        """End watching; every descriptor is closed when this returns."""
        self._stop.set()
        if self._thread:
            os.eventfd_write(self._bell, 1)
            self._thread.join()
            self._thread = None
            os.close(self._bell)

    def _run(self) -> None:
        """Watch, and after each loss of counter try to see again, until the end."""
        while not self._stop.is_set():
            try:
                self._watch()
            except OSError as fault:
                self._note_failure(fault.strerror or str(fault))
            except Exception as fault:  # noqa: BLE001 - else the last count would stay for ever
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
                self._report(counter.count(now), reason="programs of others cannot be told apart")
                self._failing_since = None
                wait = counter.due(now)
                poll.poll(None if wait is None else wait * 1000)
        finally:
            counter.close()

    def _note_failure(self, reason: str) -> None:
        """Hold the last count for a while, then say that nothing is known."""
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
    """A camera as an output that also tells who looks at it."""

    def __init__(
        self,
        camera: Output,
        on_readers: Callable[[str, int | None], None],
        watch: Callable[[str, Callable[[int | None], None]], ReadersWatch] = ReadersWatch,
    ) -> None:
        """Wrap `camera`; `on_readers` hears of its device and readers, from any thread."""
        self._camera, self._on_readers, self._make_watch = camera, on_readers, watch
        self._watch: ReadersWatch | None = None

    @property
    def name(self) -> str:
        """What people call the camera: its device's path."""
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
        """End watching, then close the camera; nobody reads one that is closed."""
        if self._watch:
            path = self._camera.name
            self._watch.stop()
            self._watch = None
            self._on_readers(path, 0)
        self._camera.close()
