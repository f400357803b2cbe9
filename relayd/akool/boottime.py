"""How long something lasted, as the service counts it: suspend included, clock changes ignored.

CLOCK_MONOTONIC stops while the machine sleeps, and the wall clock jumps when it is set.
CLOCK_BOOTTIME does neither, but starts again at each boot, so the boot id is stored with it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boottime() -> float:
    """Return seconds since the machine started, including the time it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_boot_id(path: Path = BOOT_ID) -> str:
    """Return the id of this boot, a new one each time; empty where the kernel gives none."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment, by the wall clock and the boot clock."""

    wall: float
    """s since 1970."""
    boot: float = 0.0
    """s since the machine started; comparable only within one boot."""
    boot_id: str = ""
    """Which boot; empty if unknown."""

    def seconds_since(self, earlier: "Moment") -> float:
        """Return the time that passed, s, never negative; by the wall clock across a reboot."""
        if self.boot_id and self.boot_id == earlier.boot_id and self.boot >= earlier.boot:
            return self.boot - earlier.boot
        return max(0.0, self.wall - earlier.wall)
