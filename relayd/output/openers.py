"""Who has a video device open: what the kernel and /proc tell without being asked first."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNBOUNDED: Final = 1_000_000
"""More openings than any device has: where the kernel gives no bound."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which numbers the openings by others are."""

    least: int = 0
    most: int = UNBOUNDED


class Census:
    """Counts the openings of one device by others than this process."""

    def __init__(
        self, path: str, *, sys_root: Path = Path("/sys"), proc_root: Path = Path("/proc")
    ) -> None:
        """Count those of `path`; raises OSError when there is no such file."""
        self._device = _identity(os.stat(path))  # noqa: PTH116 - a path as text, often
        self._sys, self._proc = sys_root, proc_root

    def bounds(self) -> Bounds:
        """Give what the module's use count says; it costs one small read of /sys.

        Each open file of any loopback device counts once. With one device the difference to
        our own is exact, with several it is the most that this one can have.
        """
        devices = self._loopback_devices()
        try:
            in_use = int((self._sys / "module/v4l2loopback/refcnt").read_text("ascii"))
        except (OSError, ValueError):  # not loaded as a module
            return Bounds()
        if self._device not in devices:
            return Bounds()
        own = sum(identity in devices for identity in self._descriptors(self._proc / "self"))
        others = max(0, in_use - own)
        return Bounds(others if len(devices) == 1 else 0, others)

    def visible(self) -> int:
        """Count in /proc, which shows only processes that we may look into; some 50 ms."""
        ourselves = str(os.getpid())
        return sum(
            identity == self._device
            for process in _listed(self._proc)
            if process.name.isdigit() and process.name != ourselves
            for identity in self._descriptors(process)
        )

    def _loopback_devices(self) -> set[tuple[int, int]]:
        """Name each of v4l2loopback's devices: only they have the attribute max_openers."""
        found = set()
        for entry in _listed(self._sys / "class/video4linux"):
            try:
                if (entry / "max_openers").exists():
                    major, minor = (entry / "dev").read_text("ascii").split(":")
                    found.add((0, os.makedev(int(major), int(minor))))
            except (OSError, ValueError):  # removed a moment ago
                continue
        return found

    def _descriptors(self, process: Path) -> Iterator[tuple[int, int]]:
        for entry in _listed(process / "fd"):
            try:
                yield _identity(entry.stat())
            except OSError:  # closed a moment ago
                continue


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Name a file by what it is: a device node by its device, whatever path leads there."""
    return (0, found.st_rdev) if stat.S_ISCHR(found.st_mode) else (found.st_dev, found.st_ino)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # not there, or not ours to look into
        return []
