"""How long something lasted, as the service counts it: through suspend, whoever sets the clock.

CLOCK_MONOTONIC stands still while the machine sleeps, and the wall clock jumps when it is set.
CLOCK_BOOTTIME does neither, but means nothing after a reboot: so the boot is noted with it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boottime() -> float:
    """Return seconds since the machine started, those that it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_boot_id(path: Path = BOOT_ID) -> str:
    """Return the name of this boot, another one each time; empty where the kernel tells none."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by both clocks."""

    wall: float
    """s since 1970."""
    boot: float = 0.0
    """s since the machine's start; means something within the same boot alone."""
    boot_id: str = ""
    """Which boot; empty where not known."""

    def seconds_since(self, earlier: "Moment") -> float:
        """Return the time that passed, s, never negative: by the wall clock across a reboot."""
        if self.boot_id and self.boot_id == earlier.boot_id and self.boot >= earlier.boot:
            return self.boot - earlier.boot
        return max(0.0, self.wall - earlier.wall)
