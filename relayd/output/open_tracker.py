"""Counting the readers of a device by who opens it, where the driver reports no count."""

import select
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from relayd.output.device_use import DeviceUse
from relayd.output.inotify import FileEvent, FileWatch

PROBE: Final = 1.0
"""s that the device must stay open to count as a reader: a browser that lists cameras and
`v4l2-ctl --all` close it within 0.1 s."""
SETTLE: Final = 0.1
"""s without an opening or closing after which the use count is taken to match the events."""
SETTLE_LIMIT: Final = 2.0
"""s after which it is taken to match even though openings and closings go on."""
PROC_INTERVAL: Final = 5.0
"""s between two scans of /proc while the number is uncertain."""
RECOUNT_INTERVAL: Final = 1.0
"""s between two reads of the module's use count: simultaneous events may have been merged."""


class OpenTracker:
    """Counts how many other processes have had the device open for longer than a probe.

    The kernel reports each opening and closing, but may merge two at the same time. The module's
    use count is exact, but covers all loopback devices together. So once there are no more
    events, the change of the use count is attributed to the device that was opened or closed; if
    both were, to both, provided that their events add up to it. If they do not, or a process had
    a device open before we started, /proc decides, which shows only processes we may inspect.
    If that is not enough the number is unknown until the use count leaves one possibility: at
    the latest when no process has any of the devices open.
    """

    mask = select.POLLIN
    description = f"a program that has it open for {PROBE:g} s counts as a reader"

    def __init__(self, path: str, now: float, device_use: DeviceUse | None = None) -> None:
        """Start with those that already have it open; raises OSError."""
        self._device_use = device_use or DeviceUse(path)
        self._siblings = self._device_use.siblings()
        self._watches = ExitStack()
        with ExitStack() as failed:
            failed.callback(self.close)
            self._here = self._watched(path)
            self._elsewhere: list[FileWatch] = []
            self._has_unwatched_device = False
            for sibling in sorted(self._siblings):
                try:
                    self._elsewhere.append(self._watched(sibling))
                except (FileNotFoundError, PermissionError):  # as in a container
                    self._has_unwatched_device = True
            failed.pop_all()
        # When each open file was opened, oldest first. A closing removes the newest one: those
        # that come and go while another program reads are probes.
        self._since: list[float] = []
        self._least = self._most = 0
        """Bounds of the number of open files of this device when it last settled."""
        self._settled_total = self._last_total = 0
        self._changes = self._no_changes()
        self._moving_since: float | None = None
        self._uncertain_since: float | None = None
        self._proc_at = float("-inf")
        total = self._device_use.total()
        if total is None:
            self._since = [now] * self._device_use.visible().here
        else:
            self._settled_total = self._last_total = total
            self._set_bounds(0, total, total, now)

    def _watched(self, path: str) -> FileWatch:
        watch = FileWatch(path)
        self._watches.callback(watch.close)
        return watch

    def _no_changes(self) -> "_Changes":
        """Start a new record; a device that we cannot watch may be opened at any time."""
        return _Changes(any_elsewhere=self._has_unwatched_device)

    def fileno(self) -> int:
        """Return the descriptor that is readable after a change."""
        return self._here.fileno()

    def count(self, now: float) -> int | None:
        """Process new events; returns how many have had it open for at least PROBE seconds.

        None when the number has been uncertain for that long. OSError when a device was added or
        removed.
        """
        moved = self._read_events(now)
        total = self._device_use.total()
        if total is not None:
            if self._device_use.siblings() != self._siblings:
                raise FileNotFoundError("a loopback device was added or removed")
            self._settle(total, now, moved=moved)
        if self._uncertain_since is not None and now - self._uncertain_since >= PROBE:
            return None
        return sum(now - since >= PROBE for since in self._since)

    def _read_events(self, now: float) -> bool:
        """Process the kernel's events; returns whether there were any."""
        here = self._here.read()
        elsewhere = [event for watch in self._elsewhere for event in watch.read()]
        if FileEvent.GONE in here:
            raise FileNotFoundError("the device was removed")
        for event in here:
            if event is FileEvent.OPENED:
                self._since.append(now)
                self._changes.here += 1
            elif event is FileEvent.CLOSED:
                del self._since[-1:]
                self._changes.here -= 1
        self._changes.elsewhere += elsewhere.count(FileEvent.OPENED)
        self._changes.elsewhere -= elsewhere.count(FileEvent.CLOSED)
        self._changes.any_here |= bool(here)
        self._changes.any_elsewhere |= bool(elsewhere)
        self._changes.missed |= FileEvent.MISSED in here + elsewhere
        if FileEvent.MISSED in here and self._device_use.total() is None:
            self._since = [now] * self._device_use.visible().here
        return bool(here or elsewhere)

    def _settle(self, total: int, now: float, *, moved: bool) -> None:
        """Update the bounds once nothing changes: an event and its count do not arrive together."""
        quiet = not moved and total == self._last_total
        self._last_total = total
        if quiet and self._moving_since is None:
            if self._least < self._most and now - self._proc_at >= PROC_INTERVAL:
                self._set_bounds(self._least, self._most, total, now)
            return
        if self._moving_since is None:
            self._moving_since = now
        if not quiet and now - self._moving_since < SETTLE_LIMIT:
            return
        change = total - self._settled_total
        changes, self._changes, self._moving_since = self._changes, self._no_changes(), None
        self._settled_total = total
        if (own := changes.share(change)) is None:
            self._set_bounds(0, total, total, now)
        else:
            self._set_bounds(self._least + own, self._most + own, total, now)

    def _set_bounds(self, least: int, most: int, total: int, now: float) -> None:
        """Set the bounds of the number, narrowed by what else is known."""
        if not self._siblings:
            least = most = total
        least, most = max(least, 0), min(most, total)
        if least > most:  # an event was lost: start over
            least, most = 0, total
        if least < most:
            self._proc_at = now
            seen = self._device_use.visible()
            if seen.here + seen.elsewhere == total:
                least = most = seen.here
            else:  # some are hidden, or processes share one
                least = max(least, min(seen.here, 1))
                most = max(least, min(most, total - min(seen.elsewhere, 1)))
        self._least, self._most = least, most
        if least == most:
            self._uncertain_since = None
        elif self._uncertain_since is None:
            self._uncertain_since = now
        self._since += [now] * (least - len(self._since))
        del self._since[most:]

    def due(self, now: float) -> float | None:
        """Seconds until the next opening counts, or until the use count is to be read again."""
        waits = [since + PROBE - now for since in self._since if now - since < PROBE]
        return min([RECOUNT_INTERVAL if self._moving_since is None else SETTLE, *waits])

    def close(self) -> None:
        """Stop watching."""
        self._watches.close()


@dataclass(slots=True)
class _Changes:
    """Events since the bounds were set: openings minus closings, and whether there were any."""

    here: int = 0
    elsewhere: int = 0
    any_here: bool = False
    any_elsewhere: bool = False
    missed: bool = False

    def share(self, change: int) -> int | None:
        """Return this device's share of a change of the use count; None if it is ambiguous."""
        match self.any_here, self.any_elsewhere:
            case True, False:
                return change
            case False, True:
                return 0
            case True, True:
                adds_up = self.here + self.elsewhere == change and not self.missed
                return self.here if adds_up else None
            case _:  # through an unknown node, if at all
                return None if change else 0
