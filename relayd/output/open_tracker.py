"""Counting the readers of a device by its openings, where the driver tells no count."""

import select
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from relayd.output.device_use import DeviceUse
from relayd.output.inotify import FileEvent, FileWatch

PROBE: Final = 1.0
"""s that an opening lasts before it counts as a reader: a browser that lists cameras and
`v4l2-ctl --all` are done within 0.1 s."""
SETTLE: Final = 0.1
"""s without an opening or closing after which the use count is taken to fit what was told."""
SETTLE_LIMIT: Final = 2.0
"""s after which it is taken to fit though there is no such moment."""
PROC_INTERVAL: Final = 5.0
"""s between two looks through /proc while the number is in doubt."""
RECOUNT_INTERVAL: Final = 1.0
"""s between two looks at the kernel's own count, where openings are counted: events that came
at the same time may have been told as one."""


class OpenTracker:
    """Counted by us: how many others have had the device open for longer than a probe.

    The kernel tells of each opening and closing, but of two at the same time as one. The
    module's use count is exact, but for all loopback devices together. So once nothing moves
    any more, what the use count changed by is put on the device that was opened or closed; on
    both when both were, and what was told of them adds up. When it does not, or somebody had
    one open before we came, /proc decides, which shows only processes we may look into. Where
    that is not enough the number is unknown, until the use count leaves one possibility:
    at the latest when nobody has any of the devices open.
    """

    mask = select.POLLIN
    description = f"who has it open for {PROBE:g} s counts as a reader"

    def __init__(self, path: str, now: float, device_use: DeviceUse | None = None) -> None:
        """Begin with those that have it open already; raises OSError."""
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
        # Each opening's moment, oldest first. A closing ends the newest one: those that come
        # and go while somebody reads are probes.
        self._since: list[float] = []
        self._least = self._most = 0
        """Between which numbers the openings of this device were when nothing moved."""
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
        """Begin a record; a device that we cannot watch may move at any time."""
        return _Changes(any_elsewhere=self._has_unwatched_device)

    def fileno(self) -> int:
        """Return the descriptor that tells of a change."""
        return self._here.fileno()

    def count(self, now: float) -> int | None:
        """Take in what was opened and closed; returns how many have it open for long enough.

        None when that has been in doubt for as long. OSError when a device came or went.
        """
        moved = self._read_events(now)
        total = self._device_use.total()
        if total is not None:
            if self._device_use.siblings() != self._siblings:
                raise FileNotFoundError("a loopback device came or went")
            self._settle(total, now, moved=moved)
        if self._uncertain_since is not None and now - self._uncertain_since >= PROBE:
            return None
        return sum(now - since >= PROBE for since in self._since)

    def _read_events(self, now: float) -> bool:
        """Take in what the kernel tells; returns whether it told anything."""
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
        """Set the bounds again once nothing moves: an event and its count do not come at once."""
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
        if (ours := changes.share(change)) is None:
            self._set_bounds(0, total, total, now)
        else:
            self._set_bounds(self._least + ours, self._most + ours, total, now)

    def _set_bounds(self, least: int, most: int, total: int, now: float) -> None:
        """Take in between which numbers it is, narrowed by what else is known."""
        if not self._siblings:
            least = most = total
        least, most = max(least, 0), min(most, total)
        if least > most:  # something was not told: begin again
            least, most = 0, total
        if least < most:
            self._proc_at = now
            seen = self._device_use.visible()
            if seen.here + seen.elsewhere == total:
                least = most = seen.here
            else:  # some are hidden, or one is shared by processes
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
        """When the youngest opening will count, and for the kernel's count now and then."""
        waits = [since + PROBE - now for since in self._since if now - since < PROBE]
        return min([RECOUNT_INTERVAL if self._moving_since is None else SETTLE, *waits])

    def close(self) -> None:
        """End the watch."""
        self._watches.close()


@dataclass(slots=True)
class _Changes:
    """What was told since the bounds were set: openings less closings, and whether any was."""

    here: int = 0
    elsewhere: int = 0
    any_here: bool = False
    any_elsewhere: bool = False
    missed: bool = False

    def share(self, change: int) -> int | None:
        """Return this device's share of a change of the use count; None: it cannot be told."""
        match self.any_here, self.any_elsewhere:
            case True, False:
                return change
            case False, True:
                return 0
            case True, True:
                adds_up = self.here + self.elsewhere == change and not self.missed
                return self.here if adds_up else None
            case _:  # by a node that we do not know, if at all
                return None if change else 0
