"""Where a sound server has the voice captured: it may move a capture while that runs.

Both PulseAudio and PipeWire move it when the user chooses another default microphone, even if the
capture named one. Where that is relayd's own, the voice would go round in a circle; and where a
microphone is unplugged, its capture may go on with what the speakers play.
"""

import json
from collections.abc import Callable
from contextlib import closing, suppress
from threading import Event, Thread
from typing import Final

from relayd.errors import Unavailable
from relayd.process import pactl
from relayd.process.limits import start_thread

_ANSWER_WITHIN: Final = 1.0
"""s for an answer of pactl, which takes some 10 ms; the end of a capture waits for it."""


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
        # No pactl, or no process or descriptor left on the machine: it goes on unwatched.
        with suppress(OSError), closing(pactl.reports(self._stop)) as reports:
            for number, report in enumerate(reports):
                if number == 0 or b"source-output" in report:
                    self._look()

    def _look(self) -> None:
        with suppress(OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
            outputs = json.loads(_ask("-f", "json", "list", "source-outputs"))
            sources = _ask("list", "short", "sources").splitlines()
            names = dict(line.split("\t")[:2] for line in sources)
            for each in outputs:
                if each["properties"].get("application.process.id") == str(self._pid):
                    self._on_place(names[str(each["source"])])


def _ask(*command: str) -> str:
    return pactl.run(*command, within=_ANSWER_WITHIN)[1]
