"""The interface of every output."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from relayd.media.frames import OutputFrame
from relayd.sound.blocks import AudibleSound


class Output(Protocol):
    """A place where pictures are shown: swapped and standby ones, never a raw one."""

    @property
    def name(self) -> str:
        """Its name for users: a device path, or a URL without its secrets."""

    def open(self) -> None:
        """Open it; raises RelaydError. May be called again after close()."""

    def show(self, frame: OutputFrame) -> None:
        """Show one picture without blocking; raises RelaydError when the output is broken."""

    def close(self) -> None:
        """Release what open() acquired; does nothing when it is not open."""


@runtime_checkable
class PlaysSound(Protocol):
    """What outputs of pictures have that take the sound as well."""

    def play(self, sound: AudibleSound) -> None:
        """Take one block without blocking, and place it by its time; must not raise."""


class SoundOutput(Protocol):
    """A place where sound is played: delayed, and silent where nothing may be heard."""

    @property
    def name(self) -> str:
        """Its name for users."""

    @property
    def latency(self) -> float:
        """Seconds from `play` until its listeners hear a block; the path subtracts it."""

    def open(self) -> None:
        """Open it; raises RelaydError. May be called again after close()."""

    def play(self, sound: AudibleSound) -> None:
        """Play one block without blocking; raises RelaydError when the output is broken."""

    def close(self) -> None:
        """Release what open() acquired; does nothing when it is not open."""


class OutputChange(Enum):
    """What happened to an output."""

    LOST = "lost"
    """It broke; relayd tries to reopen it."""
    BACK = "back"
    """It works (again)."""


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """One change of one output, for the log and the status page."""

    output: str
    change: OutputChange
    reason: str = ""
    file: str = ""
    """The file that it writes from now on, if it writes one."""
