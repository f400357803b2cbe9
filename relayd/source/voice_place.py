"""Where a sound server has the voice captured: it may move a capture while that runs.

Both PulseAudio and PipeWire move it when the user chooses another default microphone, even if the
capture named one. Where that is relayd's own, the voice would go round in a circle; and where a
microphone is unplugged, its capture may go on with what the speakers play.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Final

from relayd.errors import Unavailable
from relayd.process.child import Child, run_to_end
from relayd.process.descriptors import wait_readable
from relayd.process.environment import program_environment
from relayd.process.limits import start_thread

_ANSWER_WITHIN: Final = 1.0
"""s for an answer of pactl, which takes some 10 ms; the end of a capture waits for it."""
_LOOK: Final = 0.2
"""s after which the thread checks whether it should end."""
_REPORT_BYTES: Final = 65536
_IN_ENGLISH: Final = {"LC_ALL": "C.UTF-8"}
"""pactl's answers are read."""


class PlaceWatch:
    """Tells from which source a program records; in the thread `relayd-voice-place`."""

    def __init__(self, pid: int, on_place: Callable[[str], None]) -> None:
        """`on_place` gets the name of the source that process `pid` records, from the thread.

        It gets it at the start and when it may have changed; never where pactl cannot tell.
        """
        self._pid, self._on_place = pid, on_place
        self._stop = Event()
        self._thread = Thread(target=self._run, name="relayd-voice-place", daemon=True)

    def start(self) -> None:
        """Start watching; only once."""
        with suppress(Unavailable):  # no thread: the capture goes on unwatched
            start_thread(self._thread)

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        if pactl := shutil.which("pactl"):
            with suppress(OSError):  # the machine has no process or descriptor left
                self._watch(pactl)

    def _watch(self, pactl: str) -> None:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
            child = Child.start_program(
                [pactl, "subscribe"], stderr=nowhere, environment=_IN_ENGLISH
            )
        try:
            self._look(pactl)
            while not self._stop.is_set():
                if not wait_readable((child.stdout.fileno(),), _LOOK):
                    continue
                report = os.read(child.stdout.fileno(), _REPORT_BYTES)
                if not report:
                    return
                if b"source-output" in report:
                    self._look(pactl)
        finally:
            child.end(0)
            child.stdin.close()
            child.stdout.close()

    def _look(self, pactl: str) -> None:
        with suppress(OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
            outputs = json.loads(_ask(pactl, "-f", "json", "list", "source-outputs"))
            sources = _ask(pactl, "list", "short", "sources").splitlines()
            names = dict(line.split("\t")[:2] for line in sources)
            for each in outputs:
                if each["properties"].get("application.process.id") == str(self._pid):
                    self._on_place(names[str(each["source"])])


def _ask(pactl: str, *command: str) -> str:
    environment = program_environment() | _IN_ENGLISH
    return run_to_end([pactl, *command], timeout=_ANSWER_WITHIN, environment=environment)[1]
