"""What every output is to the rest of relayd."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from relayd.media.frames import OutputFrame


class Output(Protocol):
    """Somewhere a picture is shown. It takes swapped and standby pictures, never a raw one."""

    @property
    def name(self) -> str:
        """What people call it: a device path, a URL without its secrets."""

    def open(self) -> None:
        """Make it ready; raises RelaydError. May be called again after close()."""

    def show(self, frame: OutputFrame) -> None:
        """Show one picture, without waiting for anybody; raises RelaydError when it is broken."""

    def close(self) -> None:
        """Let go of what open() took; does nothing when there is nothing."""


class OutputChange(Enum):
    """What happened to an output."""

    LOST = "lost"
    """It broke; relayd tries to get it back."""
    BACK = "back"
    """It works (again)."""


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """One change of one output, for the log and the status page."""

    output: str
    change: OutputChange
    reason: str = ""
    file: str = ""
    """The file that it writes from now on, where it writes one."""
