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
from relayd.frames import OutputFrame
from relayd.logs import get
from relayd.output import v4l2
from relayd.output.base import Output
from relayd.output.inotify import FileEvent, FileWatch
from relayd.output.openers import Census

PROBE: Final = 1.0
"""s that an opening lasts before it counts as a reader: a browser that lists cameras and
`v4l2-ctl --all` are done within 0.1 s."""
RECOUNT: Final = 1.0
"""s between two looks at the kernel's own count, where openings are counted: events that came
at the same time may have been told as one."""

_log = get("readers")


class Sight(Protocol):
    """A way to see who reads a device."""

    mask: int
    """What poll() shall wait for on `fileno`."""

    def fileno(self) -> int:
        """Give the descriptor that tells of a change."""

    def look(self, now: float) -> int:
        """Take in what happened; gives how many read it. OSError when nothing is seen any more."""

    def due(self, now: float) -> float | None:
        """Seconds after which to look again even if nothing is told; None: never."""

    def close(self) -> None:
        """Let go."""


class ClientUsage:
    """Told by the driver: how many stream from the device (at most one since 0.13)."""

    mask = select.POLLPRI

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
        """Give the descriptor that tells of a change."""
        return self._fd

    def look(self, now: float) -> int:
        """Take in what the driver told; gives how many stream."""
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


class Openings:
    """Counted by us: how many others have had the device open for longer than a probe."""

    mask = select.POLLIN

    def __init__(self, path: str, now: float, census: Census | None = None) -> None:
        """Begin with those that have it open already; raises OSError."""
        self._census = census or Census(path)
        self._watch = FileWatch(path)
        # Each opening's moment, oldest first. A closing ends the newest one: those that come
        # and go while somebody reads are probes.
        self._since = self._found(now)

    def fileno(self) -> int:
        """Give the descriptor that tells of a change."""
        return self._watch.fileno()

    def look(self, now: float) -> int:
        """Take in what was opened and closed; gives how many have it open for long enough."""
        for event in self._watch.read():
            if event is FileEvent.OPENED:
                self._since.append(now)
            elif event is FileEvent.CLOSED and self._since:
                self._since.pop()
            elif event is FileEvent.MISSED:
                self._since = self._found(now)
            elif event is FileEvent.GONE:
                raise FileNotFoundError("the device was removed")
        bounds = self._census.bounds()
        self._since += [now] * (bounds.least - len(self._since))
        del self._since[bounds.most :]
        return sum(now - since >= PROBE for since in self._since)

    def _found(self, now: float) -> list[float]:
        """Give the openings that there are without having been told of."""
        return [now - PROBE] * max(self._census.visible(), self._census.bounds().least)

    def due(self, now: float) -> float | None:
        """When the youngest opening will count, and for the kernel's count now and then."""
        ripe = [since + PROBE - now for since in self._since if now - since < PROBE]
        return min([RECOUNT, *ripe])

    def close(self) -> None:
        """End the watch."""
        self._watch.close()


def best_sight(path: str, system: v4l2.System, now: float) -> Sight:
    """Give the best way that there is; raises OSError when there is none."""
    try:
        return ClientUsage(path, system)
    except OSError as fault:
        _log.debug("client usage is not told", device=path, reason=str(fault))
    return Openings(path, now)


class ReadersWatch:
    """The actor that watches one device; runs in the thread `relayd-readers`."""

    def __init__(
        self,
        path: str,
        on_readers: Callable[[int | None], None],
        *,
        see: Callable[[str, v4l2.System, float], Sight] = best_sight,
        system: v4l2.System | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Plan to watch `path`. `on_readers` hears how many read it now and at each change.

        None when that cannot be seen (any more). It is called from the thread, and must not wait.
        """
        self._path, self._on_readers, self._see = path, on_readers, see
        self._system = system or v4l2.Linux()
        self._clock = clock or MonotonicClock()
        self._stop = Event()
        self._thread: Thread | None = None
        self._told: int | None = None

    def start(self) -> None:
        """Begin to watch."""
        try:
            sight = self._see(self._path, self._system, self._clock.now())
        except OSError as fault:
            self._lose_sight(fault)
            return
        _log.info("readers.watched", device=self._path, by=type(sight).__name__)
        self._bell = os.eventfd(0)
        self._thread = Thread(target=self._run, args=(sight,), name="relayd-readers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End watching; every descriptor is closed when this returns."""
        self._stop.set()
        if self._thread:
            os.eventfd_write(self._bell, 1)
            self._thread.join()
            self._thread = None
            os.close(self._bell)

    def _run(self, sight: Sight) -> None:
        poll = select.poll()
        poll.register(sight.fileno(), sight.mask)
        poll.register(self._bell, select.POLLIN)
        try:
            while not self._stop.is_set():
                now = self._clock.now()
                self._tell(sight.look(now))
                wait = sight.due(now)
                poll.poll(None if wait is None else wait * 1000)
        except OSError as fault:
            self._lose_sight(fault)
        finally:
            sight.close()

    def _tell(self, readers: int) -> None:
        if readers != self._told:
            self._told = readers
            _log.info("readers", device=self._path, count=readers)
            self._on_readers(readers)

    def _lose_sight(self, fault: OSError) -> None:
        _log.warning("readers.unknown", device=self._path, reason=fault.strerror or str(fault))
        self._on_readers(None)


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
