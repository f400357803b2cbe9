"""Workers whose library misbehaves, each in its own way.

As a program it is such a worker, or a parent of one:

    strange.py WAY --kind … --control …
    strange.py parent WAY
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from relayd.media.frames import Geometry
from relayd.rtc import worker
from relayd.rtc.link import LinkEvent, LinkEventKind
from relayd.rtc.process import RtcWorker

GEOMETRY = Geometry(64, 48)
NOTES = "STRANGE_NOTES"
"""Environment: the file where a worker notes the process it started."""
PACKETS = "STRANGE_PACKETS"
"""Environment: the packets a worker sends, a JSON list of texts."""
LONG = 30.0
"""s that a process runs if nothing ends it: longer than any test waits."""


class StrangeWorker(RtcWorker):
    """A worker that misbehaves in one of the ways below; records its events."""

    def __init__(
        self, way: str, notes: Path | None = None, packets: Any = (), **changes: Any
    ) -> None:
        self.events: list[LinkEvent] = []
        self._way = way
        environment = {NOTES: str(notes), PACKETS: json.dumps(packets)}
        callbacks = {"on_event": self.events.append, "on_picture": lambda _frame: None}
        super().__init__(GEOMETRY, environment=environment, **(callbacks | changes))

    def kinds(self) -> list[LinkEventKind]:
        return [event.kind for event in self.events]

    def _command(self, fds: tuple[int, ...]) -> list[str]:
        command = super()._command(fds)
        at = command.index("-m")
        return [*command[:at], __file__, self._way, *command[at + 2 :]]


def note(text: str) -> None:
    """Write the notes file atomically."""
    notes = Path(os.environ[NOTES])
    notes.with_suffix(".new").write_text(text)
    notes.with_suffix(".new").rename(notes)


def start_program(_kind: str) -> None:
    """Start a long-running program as a library would: with every inheritable descriptor."""
    child = subprocess.Popen(["sleep", str(LONG)], close_fds=False)
    note(str(child.pid))


def list_descriptors(_kind: str) -> None:
    """Start a program that notes what it inherited."""
    look = """
import os, pathlib, sys
for number in map(int, os.listdir("/proc/self/fd")):
    try:
        print(number, os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", look], close_fds=False, stdout=subprocess.PIPE, check=True
    )
    note(done.stdout.decode())


def fork_away(_kind: str) -> None:
    """Fork a process that keeps every descriptor, in a session of its own."""
    if child := os.fork():
        note(str(child))
        return
    os.setsid()
    time.sleep(LONG)
    os._exit(0)


def hang(_kind: str) -> None:
    note(str(os.getpid()))
    time.sleep(LONG)


class EndlessLink:
    """A link that joins at once and delivers pictures without end."""

    def __init__(self, _target: object, on_picture: Any, on_event: Any, _on_sound: Any) -> None:
        self._on_picture, self._on_event = on_picture, on_event
        self._over = Event()
        self._thread = Thread(target=self._run)

    def join(self) -> None:
        self._thread.start()

    def publish(self, _picture: object, _captured_at: float) -> None:
        raise RuntimeError("the library broke")

    def leave(self, _deadline: float) -> None:
        self._over.set()
        self._thread.join()
        self._on_event(LinkEvent(LinkEventKind.LEFT))

    def _run(self) -> None:
        while not self._over.wait(0.005):
            self._on_picture(np.full(GEOMETRY.shape, 90, np.uint8), time.monotonic())


def make_endless(_kind: str) -> type[EndlessLink]:
    return EndlessLink


class EchoLink:
    """A link that returns each block of sound with its samples inverted, and its time."""

    def __init__(self, _target: object, _on_picture: Any, on_event: Any, on_sound: Any) -> None:
        self._on_event, self._on_sound = on_event, on_sound

    def join(self) -> None:
        self._on_event(LinkEvent(LinkEventKind.JOINED))

    def publish_sound(self, samples: Any, at: float) -> None:
        self._on_sound(-samples, at)

    def leave(self, _deadline: float) -> None:
        self._on_event(LinkEvent(LinkEventKind.LEFT))


def make_echo(_kind: str) -> type[EchoLink]:
    return EchoLink


class MuffledLink(EchoLink):
    """A link whose library fails at the first block of sound."""

    def publish_sound(self, _samples: Any, _at: float) -> None:
        raise RuntimeError("the library broke")


def make_muffled(_kind: str) -> type[EchoLink]:
    return MuffledLink


def talk(control: int) -> None:
    """Send the packets from the environment, without a library, then wait."""
    parent = socket.socket(fileno=control)
    for packet in json.loads(os.environ[PACKETS]):
        parent.send(packet.encode("latin-1"))
    parent.recv(1)


WAYS = {
    "program": start_program,
    "descriptors": list_descriptors,
    "fork": fork_away,
    "hang": hang,
    "endless": make_endless,
    "echo": make_echo,
    "muffled": make_muffled,
}


def load_strangely(make: Callable[[str], object], kind: str, _engine: str) -> object:
    return make(kind)


def be_parent(way: str) -> None:
    """Start a worker, print its process id, and wait to be killed."""
    strange = StrangeWorker(way, Path(os.environ[NOTES]))
    strange.start()
    sys.stdout.write(f"{strange.pid}\n")
    sys.stdout.flush()
    time.sleep(LONG)


if __name__ == "__main__":
    way = sys.argv.pop(1)
    if way == "parent":
        be_parent(sys.argv[1])
    elif way == "talk":
        talk(int(sys.argv[sys.argv.index("--control") + 1]))
    else:
        load = partial(load_strangely, WAYS[way])
        worker.load_link = load  # type: ignore[attr-defined,assignment]  # the worker loads that instead
        worker.main()
