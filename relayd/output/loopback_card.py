"""The ALSA loopback card `relayd`: what is played into one end, programs record from the other.

The counterpart of v4l2loopback for sound, for a system service. `aplay` writes it: a blocked card
hangs a program that can be killed, not relayd.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO, Final

from relayd.clock import Clock, MonotonicClock
from relayd.errors import MicrophoneUnavailable, OutputError, Unavailable
from relayd.logs import LogEvent, excerpt, get
from relayd.output.sound_pipe import SoundPipe
from relayd.process.child import Child
from relayd.process.environment import program_environment
from relayd.process.limits import start_thread
from relayd.sound.blocks import AudibleSound

CARD: Final = "relayd"
DEVICE: Final = f"hw:CARD={CARD},DEV=0"
"""What is written; programs record from DEV=1."""
LATENCY: Final = 0.064
"""s from writing a block until a program has read it whole, with aplay's buffer of 60 ms. Measured
by tests/vm/test_microphone.py, the same for each reader; after an underrun up to 82 ms."""
_BUFFER_US, _PERIOD_US = "60000", "10000"
_STARTS_WITHIN: Final = 0.3
"""s in which aplay ends if it cannot open the card."""
_LOOK: Final = 1.0
"""s between two looks at who records."""
_LONGEST_REASON: Final = 200
_CARD_IN: Final = re.compile(r"CARD=([A-Za-z0-9_]+)|^(?:plug)?hw:(?!CARD=)([A-Za-z0-9_]+)")

_log = get("microphone")
_readers_log = get("readers")


def has_loopback_card(proc: Path = Path("/proc")) -> bool:
    """Whether the card that `relayd install` sets up is there."""
    return (proc / "asound" / CARD).exists()


def aplay_for(device: str, proc: Path = Path("/proc")) -> str:
    """Return the path of the program that writes `device`.

    Raises MicrophoneUnavailable if it is not installed, or the card is not there.
    """
    card = _card_of(device)
    if not (proc / "asound" / card).exists() and not card.isdigit():
        raise MicrophoneUnavailable(
            f"no sound card {card}", hint="run `sudo relayd install` and `sudo modprobe snd-aloop`"
        )
    if aplay := shutil.which("aplay"):
        return aplay
    raise MicrophoneUnavailable("aplay not found", hint="apt install alsa-utils")


def _card_of(device: str) -> str:
    found = _CARD_IN.search(device)
    return (found[1] or found[2]) if found else CARD


class LoopbackCard:
    """One end of a loopback card, written by a child."""

    def __init__(
        self,
        device: str,
        on_listeners: Callable[[str, int | None], None],
        *,
        proc: Path = Path("/proc"),
        clock: Clock | None = None,
    ) -> None:
        """Prepare to write the ALSA device, such as hw:CARD=relayd,DEV=0."""
        self._device, self._on_listeners, self._proc = device, on_listeners, proc
        self._clock = clock or MonotonicClock()
        self.name = f"alsa:{device}"
        self.latency = LATENCY
        self._child: Child | None = None
        self._pipe: SoundPipe | None = None
        self._said: IO[bytes] | None = None
        self._stop = Event()
        self._watch: Thread | None = None

    def open(self) -> None:
        """Start aplay; raises MicrophoneUnavailable with what it says if it ends at once."""
        aplay = aplay_for(self._device, self._proc)
        command = [aplay, "-q", "-D", self._device, "-t", "raw", "-f", "S16_LE", "-r", "48000"]
        command += ["-c", "1", f"--buffer-time={_BUFFER_US}", f"--period-time={_PERIOD_US}"]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            # Not `start_program`: the thread that opens lost outputs again ends. When relayd
            # ends, so does aplay's input.
            self._child = Child.start(
                command, environment=program_environment(), with_stdin=True, stderr=self._said
            )
        except OSError as fault:
            self.close()
            raise MicrophoneUnavailable(f"{self.name}: {fault.strerror}") from fault
        if self._child.wait(_STARTS_WITHIN) is not None:
            reason = self._reason()
            self.close()
            raise MicrophoneUnavailable(
                f"{self.name}: {reason}",
                hint="`sudo relayd install` sets the card up; the user needs the group audio",
            )
        fd = os.dup(self._child.stdin.fileno())
        os.set_blocking(fd, False)
        self._pipe = SoundPipe(fd)
        self._start_watch()
        _log.info(LogEvent.MICROPHONE_OPENED, microphone=self.name, server="ALSA")

    def play(self, sound: AudibleSound) -> None:
        """Write one block without waiting; raises OutputError when aplay has ended."""
        if self._pipe is None:  # no thread could be started to open it
            raise OutputError(f"{self.name}: it is not open", hint="it is opened by itself")
        try:
            self._pipe.feed(sound.samples)
        except OSError as fault:
            raise OutputError(f"{self.name}: aplay ended: {self._reason()}") from fault

    def close(self) -> None:
        """End aplay and the watch."""
        self._stop.set()
        if self._watch:
            self._watch.join()
            self._watch = None
            self._on_listeners(self.name, 0)
        if self._pipe:
            self._pipe.close()
            self._pipe = None
        if self._child:
            self._child.kill()
            self._child.end(0)
            with suppress(OSError):
                self._child.stdin.close()
            self._child = None
        if self._said:
            self._said.close()
            self._said = None

    def _reason(self) -> str:
        """Return what aplay wrote last."""
        assert self._said is not None
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        return excerpt(said[-1] if said else "no reason given", _LONGEST_REASON)

    def _start_watch(self) -> None:
        self._stop = Event()
        thread = Thread(target=self._count_listeners, name="relayd-listeners", daemon=True)
        try:
            start_thread(thread)
        except Unavailable:
            self._on_listeners(self.name, None)
            return
        self._watch = thread

    def _count_listeners(self) -> None:
        reported: int | None = -1
        while True:
            count = self._listeners()
            if count != reported:
                reported = count
                _readers_log.info(LogEvent.READERS_CHANGED, device=self.name, count=count)
                self._on_listeners(self.name, count)
            if self._clock.sleep_until(self._clock.now() + _LOOK, self._stop):
                return

    def _listeners(self) -> int | None:
        """Return how many record from the other end: ALSA lets in one for each subdevice."""
        folder = self._proc / "asound" / _card_of(self._device) / "pcm1c"
        try:
            states = [each.read_text() for each in folder.glob("sub*/status")]
        except OSError:
            return None
        return sum(state.strip() != "closed" for state in states) if states else None
