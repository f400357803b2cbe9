"""Asks the sound server of the user's session, PulseAudio or PipeWire, through `pactl`."""

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import suppress
from threading import Event
from typing import Final

from relayd.process.child import Child, run_to_end
from relayd.process.descriptors import wait_readable
from relayd.process.environment import program_environment

_LOOK: Final = 0.2
"""s after which it is checked whether reports are still wanted."""
_REPORT_BYTES: Final = 65536


def path() -> str:
    """Return the full path of pactl; raises FileNotFoundError."""
    if found := shutil.which("pactl"):
        return found
    raise FileNotFoundError("pactl not found")


def environment(ours: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what pactl needs to find the server: where it listens, and no secrets."""
    ours = os.environ if ours is None else ours
    own = {name: text for name, text in ours.items() if name.startswith(("PULSE_", "PIPEWIRE_"))}
    # Its answers are read: not in the user's language.
    return program_environment(ours) | own | {"LC_ALL": "C.UTF-8"}


def run(*command: str, within: float) -> tuple[int, str, str]:
    """Return pactl's status, what it printed, and its errors.

    Raises OSError if it cannot be started, and TimeoutError if it takes more than `within` s: on
    a server that hangs it waits for ever.
    """
    return run_to_end([path(), *command], timeout=within, environment=environment())


def reports(stop: Event) -> Generator[bytes]:
    """Yield what the server reports as changed until `stop` or the server's end; to be closed.

    It begins with nothing, b"", once pactl was started, and yields that each 0.2 s without a
    report. Raises OSError if pactl cannot be started.
    """
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
        child = Child.start_program(
            [path(), "subscribe"], stderr=nowhere, environment=environment()
        )
    try:
        yield b""
        while not stop.is_set():
            if not wait_readable((child.stdout.fileno(),), _LOOK):
                yield b""
                continue
            report = os.read(child.stdout.fileno(), _REPORT_BYTES)
            if not report:
                return
            yield report
    finally:
        child.end(0)
        for end in (child.stdin, child.stdout):
            with suppress(OSError):
                end.close()
