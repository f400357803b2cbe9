"""Who has a video device open, from the kernel's use count and /proc."""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relayd.process.open_files import descriptors, entries, identity

TRIES: Final = 3
"""Times that a count is repeated because we opened or closed a device meanwhile."""


@dataclass(frozen=True, slots=True)
class Visible:
    """Open files of other processes that /proc shows: maybe not all."""

    here: int = 0
    """Of the device that is counted."""
    elsewhere: int = 0
    """Of the other loopback devices."""


class DeviceUse:
    """Counts how often processes other than this one have a device open.

    The module's use count includes each open file of any loopback device once: it is exact for
    all of them together, and for a single device if it is the only one.
    """

    def __init__(
        self,
        path: str,
        *,
        sys_root: Path = Path("/sys"),
        proc_root: Path = Path("/proc"),
        dev_root: Path = Path("/dev"),
    ) -> None:
        """Count open files of `path`; raises OSError when there is no such file."""
        self._device = identity(os.stat(path))  # noqa: PTH116 - called often with a string
        self._sys, self._proc, self._dev = sys_root, proc_root, dev_root

    def siblings(self) -> frozenset[str]:
        """Return the nodes of the other loopback devices, which share a use count with this one."""
        return frozenset(
            node for node, device in self._loopback_devices().items() if device != self._device
        )

    def total(self) -> int | None:
        """Count other processes' open files of all loopback devices; None if there is no use count.

        It costs one small read of /sys. Exact, except for devices being opened or closed now.
        """
        devices = set(self._loopback_devices().values())
        if self._device not in devices:
            return None
        for _ in range(TRIES):
            own = self._own(devices)
            try:
                in_use = int((self._sys / "module/v4l2loopback/refcnt").read_text("ascii"))
            except (OSError, ValueError):  # not loaded as a module
                return None
            if self._own(devices) == own:
                break
        return max(0, in_use - own)

    def visible(self) -> Visible:
        """Count in /proc, which shows only processes that we may inspect; takes about 50 ms.

        Other relays cannot be inspected; the lock on their camera is counted instead.
        """
        inspected = {str(os.getpid())}
        others = set(self._loopback_devices().values()) - {self._device}
        seen: list[tuple[int, int]] = []
        for process in entries(self._proc):
            if not process.name.isdigit() or process.name in inspected:
                continue
            if is_readable := os.access(process / "fd", os.R_OK):
                inspected.add(process.name)
            seen += descriptors(process) if is_readable else ()
        seen += self._locked_by_others(inspected)
        return Visible(seen.count(self._device), sum(identity in others for identity in seen))

    def _own(self, devices: set[tuple[int, int]]) -> int:
        return sum(identity in devices for identity in descriptors(self._proc / "self"))

    def _locked_by_others(self, inspected: Collection[str]) -> Iterator[tuple[int, int]]:
        """Return the devices that processes other than these have locked."""
        nodes = {}
        for node, device in self._loopback_devices().items():
            with suppress(OSError):  # no such node under this name
                found = os.stat(node)  # noqa: PTH116 - called often with a string
                nodes[found.st_dev, found.st_ino] = device
        try:
            lines = (self._proc / "locks").read_text("ascii").splitlines()
        except (OSError, ValueError):
            return
        for line in lines:
            # 1: FLOCK  ADVISORY  WRITE 1234 00:05:678 0 EOF
            match line.split():
                case [_, "FLOCK", _, "WRITE", pid, file, *_] if pid not in inspected:
                    major, minor, inode = file.split(":")
                    place = os.makedev(int(major, 16), int(minor, 16)), int(inode)
                    if place in nodes:
                        yield nodes[place]

    def _loopback_devices(self) -> dict[str, tuple[int, int]]:
        """Return v4l2loopback's devices by node: only they have the attribute max_openers."""
        found = {}
        for entry in entries(self._sys / "class/video4linux"):
            try:
                if (entry / "max_openers").exists():
                    major, minor = (entry / "dev").read_text("ascii").split(":")
                    node = str(self._dev / entry.name)
                    found[node] = (0, os.makedev(int(major), int(minor)))
            except (OSError, ValueError):  # removed a moment ago
                continue
        return found
