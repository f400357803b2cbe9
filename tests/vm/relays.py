"""Relays in the guest: runs of `relayd`, their configuration, and what they show."""

import json
import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relayd.media.frames import Geometry, black
from relayd.output.standby import StandbyRenderer
from relayd.relay.status import RelayState
from tests.support.stage import Emulator
from tests.vm.guest import HERE, HOST, Failed, Guest

PYTHON = Path(sys.executable)
SIZE = Geometry(640, 480)
COUNT = 20
"""Known pictures in the clip of them: one second, over and over."""
HOME = "/run/relayd"
CONFIG = f"{HOME}/relay.toml"
CONTROL = f"{HOME}/control.sock"
STATE = f"{HOME}/state"
NOWHERE = f"{HOME}/none.mp4"
"""A source that is not there: the camera shows standby."""


def known_picture(number: int) -> NDArray[np.uint8]:
    """A picture that can be told from all others of the clip, in each of its pixels."""
    y, x = np.mgrid[0 : SIZE.height, 0 : SIZE.width]
    picture = black(SIZE)
    picture[: SIZE.height] = (x + y + 4 * number) & 0xFF
    picture[SIZE.height :] = 10 * number + 16
    return picture


def write_known_clip(path: Path, fps: int = 20) -> None:
    """Make a file of the known pictures, without loss."""
    with path.open("wb") as clip:
        clip.write(f"YUV4MPEG2 W{SIZE.width} H{SIZE.height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(COUNT):
            clip.write(b"FRAME\n" + known_picture(number).tobytes())


def wrong_pictures(captured: bytes) -> tuple[int, list[int]]:
    """Hold captured pictures against the known ones: how many are wrong, and all numbers."""
    pictures = np.frombuffer(captured, np.uint8)
    pictures = pictures[: len(pictures) // SIZE.nbytes * SIZE.nbytes].reshape(-1, *SIZE.shape)
    numbers = [(int(picture[-1, -1]) - 16) // 10 for picture in pictures]
    wrong = sum(
        not 0 <= number < COUNT or not np.array_equal(picture, known_picture(number))
        for number, picture in zip(numbers, pictures, strict=True)
    )
    return wrong, numbers


def standby_picture(state: RelayState, reason: str, geometry: Geometry = SIZE) -> bytes:
    """What the camera shows in this state."""
    return StandbyRenderer(geometry, "").draw(*state.on_picture(reason)).i420.tobytes()


def service_of(emulator: Emulator) -> str:
    """Return the URL under which the guest finds an emulator of the host."""
    return emulator.url.replace("127.0.0.1", HOST)


def config(
    *,
    source: str,
    service: str = "http://127.0.0.1:9",
    face: str = "http://127.0.0.1:9/face.png",
    device: str = "auto",
    session_max: int = 0,
    rtc: str = 'kind = "webrtc"',
    on_demand: str = 'mode = "never"',
    more: str = "",
) -> str:
    """Return a relay's configuration; without a service it shows standby, or the raw source."""
    return f"""
[source]
url = "{source}"
[face]
image = "{face}"
[akool]
base_url = "{service}"
api_key = "a-test-key"
session_max = {session_max}
[rtc]
{rtc}
[on_demand]
{on_demand}
[[output]]
kind = "camera"
device = "{device}"
[control]
socket = "{CONTROL}"
[state]
directory = "{STATE}"
{more}"""


@dataclass
class Relay:
    """A `relayd run` in the guest."""

    guest: Guest
    nursery: "Nursery"
    pid: int
    since: int
    """Where its log begins in what the nursery said."""

    @property
    def log(self) -> str:
        """What it said."""
        return self.nursery.text[self.since :]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's events of one name."""
        lines = [line for line in self.log.splitlines() if line.startswith("{") and name in line]
        return [event for line in lines if (event := json.loads(line))["event"] == name]

    def wait_for(self, pattern: str, within: float = 120.0) -> re.Match[str]:
        """Wait until its log says so."""
        return self.nursery.process.wait_for(pattern, within, after=self.since)

    def status(self) -> dict[str, Any]:
        """What it tells of itself."""
        return dict(json.loads(self.ask("/api/status")))

    def ask(self, path: str, options: str = "-s") -> str:
        """Ask it something over its socket, with curl."""
        return self.guest.run(f"curl {options} --unix-socket {CONTROL} http://relay{path}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.nursery.process.send(f"signal {self.pid} {int(number)}")

    def stop(self, number: int = 15) -> int:
        """End it; returns its exit code, negative for a signal."""
        self.signal(number)
        return self.wait()

    def wait(self, within: float = 120.0) -> int:
        """Wait for its end; returns its exit code."""
        ended = self.wait_for(rf"nursery ended {self.pid} (-?\d+)", within)
        return int(ended[1])


class Nursery:
    """Starts relays in the guest without the imports of each; see inside/nursery.py."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._relays: list[Relay] = []
        self.process = guest.start(f"{PYTHON} {HERE}/inside/nursery.py", stdin=True)
        self.process.wait_for("nursery ready", 300.0)

    @property
    def text(self) -> str:
        """All that it and its relays said."""
        return self.process.text

    def start(self, *arguments: str, user: str = "root", runtime: str = "") -> Relay:
        """Start `relayd ARGUMENT…`; `runtime` is the runtime folder of its user, if it has one."""
        since = len(self.text)
        environment = [f"XDG_RUNTIME_DIR={runtime}"] if runtime else []
        self.process.send(f"start {user} {shlex.join([*environment, *arguments])}")
        pid = int(self.process.wait_for(r"nursery started (\d+)", after=since)[1])
        self._relays.append(Relay(self._guest, self, pid, since))
        return self._relays[-1]

    def run(self, settings: str, user: str = "root", runtime: str = "") -> Relay:
        """Start `relayd run` with this configuration, and wait until its camera shows pictures."""
        self._guest.write(CONFIG, settings)
        relay = self.start("run", "-c", CONFIG, "--require-outputs", user=user, runtime=runtime)
        said = relay.wait_for('"now": "(standby|opening)"|nursery ended|^relayd: ')
        if not said[1]:
            raise Failed(f"the relay ended:\n{relay.log}")
        return relay

    def end_all(self) -> None:
        """Kill the relays that still run."""
        for relay in self._relays:
            if not re.search(rf"nursery ended {relay.pid} ", relay.log):
                relay.stop(SIGKILL)
        self._relays.clear()

    def stop(self) -> None:
        """End the nursery."""
        self.process.stop()


class Reader:
    """A program in the guest that watches a camera; see inside/reader.py."""

    def __init__(self, guest: Guest, device: str = "/dev/video0") -> None:
        self._process = guest.start(f"{PYTHON} -I -S {HERE}/inside/reader.py {device}", stdin=True)
        self._process.wait_for("reader ready")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def chapter(self) -> dict[str, Any]:
        """What came since the last chapter, or the start."""
        after = len(self._process.text)
        self._process.send("")
        return dict(json.loads(self._process.wait_for(r"^\{.*\}$", after=after)[0]))

    def stop(self) -> None:
        """End it."""
        self._process.stop(9)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader saw."""

    count: int
    first: float
    last: float
    """When the first and the last picture came, on the guest's clock."""
    longest: float
    """s, the longest wait for a picture."""
    errors: list[str]
    kinds: frozenset[str]
    """CRC-32 of each picture that came."""

    @property
    def fps(self) -> float:
        """Pictures a second."""
        return (self.count - 1) / (self.last - self.first)


def watch(reader: Reader, pictures: int, within: float = 60.0) -> Seen:
    """Watch until so many pictures came, or the time is over."""
    seen = Seen(0, 0.0, 0.0, 0.0, [], frozenset())
    deadline = time.monotonic() + within
    while seen.count < pictures and time.monotonic() < deadline:
        told = reader.chapter()
        seen = Seen(
            seen.count + told["pictures"],
            seen.first or told["first"],
            told["last"],
            max(seen.longest, told["longest"]),
            seen.errors + told["errors"],
            seen.kinds | set(told["kinds"]),
        )
    return seen
