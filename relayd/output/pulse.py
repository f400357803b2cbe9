"""The sound server of the user's session, asked through `pactl`.

PulseAudio and PipeWire both answer it, and both have `module-pipe-source`: a microphone without a
speaker beside it. With a null sink and its monitor, calls would be played into the microphone on
machines that have no sound card.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relayd.errors import MicrophoneUnavailable
from relayd.logs import excerpt
from relayd.process import pactl as process_pactl

ANSWER_WITHIN: Final = 1.5
"""s for an answer of pactl, which takes some 10 ms; on a server that hangs it waits for ever."""
REMOVED_WITHIN: Final = 1.0
"""s for each answer while a microphone is removed: relayd is to end within 3 s."""
_LONG_BUFFER_SINCE: Final = (0, 3, 80)
"""PipeWire from here on keeps 8192 frames in its pipe source, and tells nobody."""
_LONG_BUFFER: Final = 0.174
_SHORT_BUFFER: Final = 0.038
"""s from writing a block until a program hears it, measured on PipeWire 1.4.2 and 0.3.65."""
_ON_PIPEWIRE: Final = re.compile(r"on PipeWire (\d+)\.(\d+)\.(\d+)")
_LONGEST_REASON: Final = 200
_HINT: Final = (
    "relayd must run in the user's session, as `relayd install --user` does; a system service uses"
    ' device = "alsa:hw:CARD=relayd,DEV=0"'
)


@dataclass(frozen=True, slots=True)
class SoundServer:
    """Which server answers."""

    name: str
    is_pipewire: bool
    latency: float
    """s from writing a block into a pipe source until a program hears it."""


def server_of(text: str) -> SoundServer:
    """Read what `pactl info` printed."""
    name = next(
        (line.partition(":")[2].strip() for line in text.splitlines() if "Server Name" in line),
        "unknown",
    )
    found = _ON_PIPEWIRE.search(name)
    if not found:
        return SoundServer(name, is_pipewire=False, latency=0.0)
    is_long = tuple(map(int, found.groups())) >= _LONG_BUFFER_SINCE
    return SoundServer(name, is_pipewire=True, latency=_LONG_BUFFER if is_long else _SHORT_BUFFER)


def pactl(*command: str, within: float = ANSWER_WITHIN) -> str:
    """Return what pactl prints; raises MicrophoneUnavailable with what it says instead."""
    try:
        status, printed, said = process_pactl.run(*command, within=within)
    except FileNotFoundError as fault:
        raise MicrophoneUnavailable(str(fault), hint="apt install pulseaudio-utils") from fault
    except (OSError, TimeoutError) as fault:
        raise MicrophoneUnavailable(
            f"the sound server does not answer: {fault}", hint="restart it, or log in again"
        ) from fault
    if status:
        reason = excerpt(said.strip() or f"pactl exited with status {status}", _LONGEST_REASON)
        raise MicrophoneUnavailable(f"sound server: {reason}", hint=_HINT)
    return printed


def find_server() -> SoundServer:
    """Return the server of this session; raises MicrophoneUnavailable if there is none."""
    return server_of(pactl("info"))


@dataclass(frozen=True, slots=True)
class PipeSource:
    """A microphone that a sound server makes of a FIFO."""

    source: str
    """Its name at the server: letters, digits and underscores."""
    description: str
    """Its name for users, in the lists of their programs."""
    fifo: Path

    def load(self) -> None:
        """Have the server make it; raises MicrophoneUnavailable."""
        pactl("load-module", "module-pipe-source", *self._arguments())

    def is_loaded(self) -> bool:
        """Whether the server has it already: it outlives a relay that was killed."""
        marker = f"file={self.fifo}"
        modules = pactl("list", "short", "modules")
        return any(marker in line.split() for line in modules.splitlines())

    def unload(self) -> None:
        """Have the server remove it and its FIFO, if it has it."""
        marker = f"file={self.fifo}"
        for line in pactl("list", "short", "modules", within=REMOVED_WITHIN).splitlines():
            if marker in line.split():
                pactl("unload-module", line.split()[0], within=REMOVED_WITHIN)

    def listeners(self) -> int:
        """Return how many programs record from it now; raises MicrophoneUnavailable."""
        sources = pactl("list", "short", "sources")
        rows = [line.split() for line in sources.splitlines()]
        numbers = {row[0] for row in rows if row[1:2] == [self.source]}
        try:
            recordings = json.loads(pactl("-f", "json", "list", "source-outputs"))
            return sum(
                str(each["source"]) in numbers and not each.get("corked") for each in recordings
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
            raise MicrophoneUnavailable(
                "this version of pactl tells nothing of programs that record"
            ) from fault

    def _arguments(self) -> tuple[str, ...]:
        # Both kinds of quotes must reach the server, or PipeWire cuts the text at a space.
        description = re.sub(r"[\"'\\]", "", self.description)
        return (
            f"source_name={self.source}",
            f"file={self.fifo}",
            "format=s16le",
            "rate=48000",
            "channels=1",
            f"source_properties='device.description=\"{description}\"'",
        )
