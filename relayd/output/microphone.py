"""A virtual microphone: where programs on this machine hear the delayed voice.

In a user's session it is a source of the sound server; for a system service, which no session's
server lets in, one end of an ALSA loopback card.
"""

import fcntl
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from relayd.config.settings import MicrophoneSettings
from relayd.errors import MicrophoneUnavailable, OutputError
from relayd.logs import LogEvent, get
from relayd.output.base import SoundOutput
from relayd.output.listeners import ListenersWatch
from relayd.output.loopback_card import DEVICE, LoopbackCard, has_loopback_card
from relayd.output.pulse import PipeSource, find_server
from relayd.output.sound_pipe import SoundPipe
from relayd.sound.blocks import AudibleSound

OPEN_WITHIN: Final = 2.0
"""s for the server to open its end of the FIFO after it loaded the module."""
_LOOK_AGAIN: Final = 0.05
"""s between two attempts to open ours."""

_log = get("microphone")

OnListeners = Callable[[str, int | None], None]


def make_microphone(settings: MicrophoneSettings, on_listeners: OnListeners) -> SoundOutput:
    """Return the microphone that the settings name; nothing is opened yet.

    `on_listeners` gets its name and how many programs read it, from any thread; None if unknown.
    """
    if uses_loopback_card(settings):
        return LoopbackCard(card_device(settings), on_listeners)
    return SessionMicrophone(settings.name, on_listeners)


def card_device(settings: MicrophoneSettings) -> str:
    """Return the ALSA device of a microphone that is a card."""
    return DEVICE if settings.device == "auto" else settings.device.removeprefix("alsa:")


def uses_loopback_card(settings: MicrophoneSettings) -> bool:
    """Whether this is an ALSA card: as set, or because there is no user's session here."""
    if settings.device == "auto":
        return not os.environ.get("XDG_RUNTIME_DIR") and has_loopback_card()
    return settings.device.startswith("alsa:")


class SessionMicrophone:
    """A source of PulseAudio or PipeWire, fed through a FIFO in a private folder."""

    def __init__(self, name: str, on_listeners: OnListeners) -> None:
        """Prepare the microphone that programs list as `name`."""
        self.name, self._on_listeners = name, on_listeners
        self._lock: int | None = None
        """Descriptor of the lock's file: while it is held, no other relay has the microphone."""
        self._pipe: SoundPipe | None = None
        self._watch: ListenersWatch | None = None
        self.latency = 0.0
        """s from `play` until a program hears a block: a property of the server's version."""

    def open(self) -> None:
        """Find the source, or have it made, and open its FIFO; raises MicrophoneUnavailable.

        After an error, `close` removes what was made.
        """
        source = self._source()
        server = find_server()
        self._lock = _lock(source.fifo, self.name)
        if not source.is_loaded():
            _clear_place(source.fifo)
            if server.is_pipewire:  # it takes the FIFO as it is; PulseAudio refuses one
                os.mkfifo(source.fifo, 0o600)
            source.load()
        self._pipe = SoundPipe(_open_fifo(source.fifo), source.fifo)
        self.latency = server.latency
        self._watch = ListenersWatch(
            self.name, source.listeners, lambda count: self._on_listeners(self.name, count)
        )
        self._watch.start()
        _log.info(LogEvent.MICROPHONE_OPENED, microphone=self.name, server=server.name)

    def play(self, sound: AudibleSound) -> None:
        """Write one block without waiting; raises OutputError when the server is gone."""
        if self._pipe is None:  # no thread could be started to open it
            raise OutputError(f"{self.name}: it is not open", hint="it is opened by itself")
        try:
            self._pipe.feed(sound.samples)
        except OSError as fault:
            raise OutputError(
                f"{self.name}: the sound server closed it", hint="it is opened again by itself"
            ) from fault

    def close(self) -> None:
        """Close the FIFO and have the server remove the source, if it answers."""
        if self._watch:
            self._watch.stop()
            self._watch = None
            self._on_listeners(self.name, 0)
        if self._pipe:
            self._pipe.close()
            self._pipe = None
        if self._lock is None:  # another relay has it, or nobody
            return
        with suppress(MicrophoneUnavailable, OSError):
            source = self._source()
            source.unload()
            source.fifo.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def _source(self) -> PipeSource:
        return PipeSource(_source_name(self.name), self.name, _fifo(self.name))


def _source_name(name: str) -> str:
    """Return its name in the sound server, by which no relay takes it for its user's voice."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return plain if plain.startswith("relayd_") else f"relayd_{plain}"


def _fifo(name: str) -> Path:
    """Return the FIFO's path, in a folder that no other user can enter.

    Raises MicrophoneUnavailable without a runtime folder, or where it belongs to another user.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if not runtime.is_absolute():
        raise MicrophoneUnavailable(
            f"{name}: XDG_RUNTIME_DIR is not set, so there is no user's session",
            hint='a system service uses device = "alsa:hw:CARD=relayd,DEV=0"',
        )
    folder = runtime / "relayd" / "microphones"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as fault:
        raise MicrophoneUnavailable(f"{folder}: {fault.strerror}") from fault
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise MicrophoneUnavailable(
            f"{folder}: others can enter it", hint="remove it; relayd makes another one"
        )
    return folder / f"{_source_name(name)}.pipe"


def _lock(fifo: Path, name: str) -> int:
    """Return a locked descriptor; raises MicrophoneUnavailable while another relay has it.

    Two relays that write one FIFO would mix two voices, and a mute of one would not silence the
    other. The file stays: who removed it could lock another one than the next relay.
    """
    path = fifo.with_suffix(".lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise MicrophoneUnavailable(f"{path}: {fault.strerror}") from fault
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        os.close(lock)
        raise MicrophoneUnavailable(
            f"{name}: another relay has a microphone of this name",
            hint="give one of them another name in [[output]]",
        ) from fault
    return lock


def _clear_place(fifo: Path) -> None:
    try:
        fifo.unlink(missing_ok=True)  # of a server that ended
    except OSError as fault:
        raise MicrophoneUnavailable(f"{fifo}: {fault.strerror}") from fault


def _open_fifo(fifo: Path) -> int:
    """Open our end once the server has opened its own; raises MicrophoneUnavailable."""
    give_up = time.monotonic() + OPEN_WITHIN
    while True:
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as fault:  # ENXIO: nobody reads it yet
            if time.monotonic() > give_up:
                raise MicrophoneUnavailable(
                    f"{fifo}: the sound server does not read it: {fault.strerror}"
                ) from fault
            time.sleep(_LOOK_AGAIN)
            continue
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise MicrophoneUnavailable(f"{fifo}: is no FIFO", hint="remove it")
        os.fchmod(fd, 0o600)  # PulseAudio makes it for everybody
        return fd
