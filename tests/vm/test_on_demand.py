"""Sessions on demand with real cameras: 0.12.7 counts openings, 0.15 tells who streams.

The relay runs in the guest, the service on the host. What is slowed, because the processor is
emulated: 320x256 at 5 fps, and limits of the link ten times as long; Python alone takes
20 s to load the RTC worker's libraries.
"""

import base64
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from shlex import quote

import numpy as np
import pytest

from tests.e2e.stage import PERSON, PORTRAIT, RELAYD, Emulator, wait_for
from tests.vm.chromium import Browser
from tests.vm.guest import HOST, Guest, Note, Process
from tests.vm.relays import Nursery

pytestmark = pytest.mark.vm

WIDTH, HEIGHT = 320, 256
PICTURE = WIDTH * HEIGHT * 3 // 2  # bytes
GRACE = 4.0
HOME = "/run/on-demand"
READ = f"{HOME}/read.yuv"
PORT = 8642

SETUP = f"""
mkdir -p {HOME}/code && cp -r relayd {HOME}/code/
sed -Ei 's/^((READY|JOIN)_TIMEOUT) = .*/\\1 = 150.0/' {HOME}/code/relayd/route.py
sed -i 's/^CONNECT_TIMEOUT = .*/CONNECT_TIMEOUT = 80.0/' {HOME}/code/relayd/rtc/webrtc.py
sed -i 's/^POST_TIMEOUT = .*/POST_TIMEOUT = 80.0/' {HOME}/code/relayd/rtc/webrtc.py
chown nobody {HOME}
for way in {quote(str(RELAYD))} $(readlink -f {quote(sys.executable)}); do
  while [ "$way" != / ]; do way=$(dirname "$way"); chmod o+x "$way"; done
done
"""
"""The code with longer limits, and Python within reach of a user of its own."""
AS_A_USER = "setpriv --reuid=nobody --regid=video --clear-groups"
"""Who may use the camera, and look into nobody else's processes: as a unit runs."""
RUN = (
    f"cd {HOME}; PYTHONPATH={HOME}/code exec {AS_A_USER}"
    f" {quote(str(RELAYD))} run -c {HOME}/relay.toml"
)
STREAM = f"v4l2-ctl -d /dev/video0 --stream-mmap=4 --stream-to={READ}"


def config(emulator: Emulator) -> str:
    there = emulator.url.replace("127.0.0.1", HOST)
    return f"""
[source]
url = "{PERSON}"
[video]
width = {WIDTH}
height = {HEIGHT}
fps = 5
bitrate = 300
[face]
image = "{emulator.upload(PORTRAIT)}"
[akool]
base_url = "{there}"
api_key = "a-test-key"
[rtc]
kind = "webrtc"
publish_url = "{there}/rtc/{{channel_id}}/{{front_user_id}}/whip"
play_url = "{there}/rtc/{{channel_id}}/{{algorithm_user_id}}/whep"
first_frame_timeout = 150
stall_timeout = 15
[on_demand]
grace = {GRACE}
[[output]]
kind = "camera"
device = "/dev/video0"
[control]
socket = "{HOME}/control.sock"
http = "127.0.0.1:{PORT}"
[state]
directory = "{HOME}/state"
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with subprocess.Popen(
        [RELAYD, "emulator", "--port", "0", "--queue-seconds", "0.3"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield Emulator(process.stdout.readline().split()[-1], process)
        process.terminate()


class Relay:
    """A relay in the guest, followed by its log."""

    def __init__(self, guest: Guest) -> None:
        self.guest, self._heard = guest, 0
        self.process = guest.start(RUN)
        self.hears('"event": "readers.watched"', "it started")
        self.hears('"now": "standby"', "it shows standby")

    def hears(self, words: str, what: str, within: float = 150.0) -> None:
        """Wait until the log says it, after what was waited for before."""
        found = self.process.wait_for(words, within, self._heard)
        assert found, what
        self._heard = found.end()

    def readers(self) -> float:
        told = self.guest.run(f"curl -s http://127.0.0.1:{PORT}/metrics")
        (line,) = (one for one in told.splitlines() if one.startswith("relayd_camera_readers{"))
        return float(line.split()[-1])


@pytest.mark.parametrize("guest", ["0.12", "0.15"], indirect=True)
def test_who_reads_the_camera_has_a_session_and_nobody_else(
    guest: Guest, emulator: Emulator, note: Note
):
    guest.run(SETUP)
    guest.write(f"{HOME}/relay.toml", config(emulator))
    relay, before = Relay(guest), emulator.created()
    by = "Openings" if guest.loopback.startswith("0.12") else "ClientUsage"
    assert f'"by": "{by}"' in relay.process.text

    def seconds(what: str, began: float) -> None:
        note(f"on demand, {guest.loopback}: {what}", f"{time.monotonic() - began:.1f} s")

    # A probe is no reader.
    for _ in range(3):
        guest.run("v4l2-ctl -d /dev/video0 --all")
    time.sleep(2.0)
    assert '"was": "idle"' not in relay.process.text
    assert emulator.created() == before
    assert guest.run(f"curl -s -o /dev/null -w %{{http_code}} http://127.0.0.1:{PORT}/healthz") == "200"  # fmt: skip  # noqa: E501

    # A reader has one.
    began = time.monotonic()
    reader = guest.start(STREAM)
    reader.wait_for("<")
    seconds("reader to its first standby picture", began)
    relay.hears('"now": "opening", "reason": ""', "a session is asked for", 20)
    seconds("reader to a session being asked for", began)
    relay.hears('"event": "link.ready"', "the worker is loaded")
    seconds("reader to the RTC worker loaded", began)
    relay.hears('"now": "live", "reason": ""', "it is live")
    seconds("reader to the first swapped picture", began)
    assert relay.readers() == 1
    standby, swapped = _first_and_last(guest, reader)
    assert np.abs(standby.astype(int) - swapped).mean() > 10

    # Nor does the relay's death part them: the next one finds who reads, though it may look
    # into no other process.
    (left,) = _open(emulator)
    assert "denied" in guest.run(f"{AS_A_USER} ls /proc/{reader.pid}/fd", status=2)
    assert relay.process.stop(signal.SIGKILL) == -signal.SIGKILL
    relay = Relay(guest)
    began = time.monotonic()
    relay.hears('"now": "opening", "reason": ""', "the reader that stayed has a session", 20)
    seconds("restart to a session for the reader that stayed", began)
    wait_for("the dead relay's session is closed", lambda: left not in _open(emulator), 30)
    wait_for("the new session", emulator.sessions, 120)

    # When it leaves, the session is closed after the grace time.
    began = time.monotonic()
    reader.stop()
    relay.hears('"now": "idle"', "nobody looks", 60)
    closed = time.monotonic() - began
    seconds(f"reader gone to session closed (grace {GRACE:g} s)", began)
    assert GRACE < closed < GRACE + 15
    assert emulator.sessions() == []
    assert relay.readers() == 0
    assert relay.process.stop(signal.SIGTERM) == 0
    assert "Traceback" not in relay.process.text
    guest.run(f"rm -r {HOME}")


@pytest.mark.parametrize("guest", ["0.12", "0.15"], indirect=True)
def test_a_call_in_the_browser_has_a_session_and_its_list_of_cameras_has_none(
    guest: Guest, nursery: Nursery, emulator: Emulator, note: Note
):
    relay, before = nursery.run(config(emulator)), emulator.created()
    with Browser(guest, "?list") as browser:
        browser.until("lists", lambda told: "videoinput" in told.get("kinds", []))
        for _ in range(2):
            browser.chapter()  # it lists all the time
        time.sleep(2.0)
        assert emulator.created() == before

        browser.open_again()
        began = time.monotonic()
        browser.until("pictures", lambda told: told["pictures"] > 0)
        seconds = time.monotonic() - began
        note(f"on demand, {guest.loopback}: Chromium to its first picture", f"{seconds:.1f} s")
        relay.wait_for('"was": "idle", "now": "opening"', 20)
        wait_for("a session", emulator.sessions, 120)  # once the worker has its library
    began = time.monotonic()
    relay.wait_for('"was": "closing", "now": "idle"')
    note(
        f"on demand, {guest.loopback}: Chromium gone to session closed (grace {GRACE:g} s)",
        f"{time.monotonic() - began:.1f} s",
    )
    assert emulator.sessions() == []
    assert relay.stop() == 0
    guest.run(f"rm -r {HOME}")


def _open(emulator: Emulator) -> list[str]:
    return [session["_id"] for session in emulator.sessions()]


def _first_and_last(guest: Guest, reader: Process) -> tuple[np.ndarray, np.ndarray]:
    """Give the luma of the first picture that was read, and of one read from now on."""
    reader.wait_for("<{3}", after=len(reader.text))
    read = int(guest.run(f"stat -c %s {READ}")) // PICTURE
    pictures = []
    for number in (0, read - 1):
        told = guest.run(f"dd if={READ} bs={PICTURE} skip={number} count=1 status=none | base64")
        data = np.frombuffer(base64.b64decode(told), np.uint8)
        pictures.append(data[: WIDTH * HEIGHT])
    return pictures[0], pictures[1]
