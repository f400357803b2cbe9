"""A headless Chromium in the guest watches the camera through what may happen to a relay."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from relayd.frames import Geometry
from relayd.states import RelayState
from tests.e2e.stage import PERSON, PORTRAIT, RELAYD, Emulator
from tests.vm.chromium import Browser, squares
from tests.vm.guest import HOST, Guest, Note
from tests.vm.relays import NOWHERE, Nursery, Relay, config, standby_picture

pytestmark = pytest.mark.vm

SMALL, SMALL_FPS = Geometry(160, 120), 10
"""Size and rate of the one run that goes through RTC: emulated, 640x480 at 20 fps leaves
Chromium no time, though the camera holds them."""
SESSION_MAX = 25
"""s after which a session is followed by another: soon, for there is no other way to ask for it."""
RTC_PATIENCE = "first_frame_timeout = 120.0\nstall_timeout = 30.0"
"""Its swapped pictures come some 3 a second, with seconds between them on a busy machine."""


def as_seen(i420: bytes, geometry: Geometry) -> NDArray[np.int_]:
    """Give the colours that a page should see of a picture."""
    planes = np.frombuffer(i420, np.uint8).reshape(geometry.shape)
    return squares(av.VideoFrame.from_ndarray(planes, "yuv420p").to_ndarray(format="rgb24"))


def shows_standby(browser: Browser, relay: Relay, geometry: Geometry) -> bool:
    """Whether the page shows the standby picture of the relay's state."""
    state = relay.events("state")[-1]
    picture = standby_picture(RelayState(state["now"]), state["reason"], geometry)
    return browser.shows(as_seen(picture, geometry))


@pytest.fixture(scope="session")
def browser(guest: Guest) -> Iterator[Browser]:
    """A browser that starts while the relay's imports go on; first in line, so list it first."""
    with Browser(guest) as browser:
        yield browser


@pytest.mark.parametrize("guest", ["0.13"], indirect=True)
def test_a_call_in_the_browser_gets_the_camera_and_keeps_it_when_the_relay_is_killed(
    guest: Guest, browser: Browser, nursery: Nursery, note: Note
):
    relay = nursery.run(config(source=NOWHERE))
    relay.wait_for('"now": "standby", "reason": "[^"]*there is no file')
    seconds = browser.until("pictures", lambda told: told["pictures"] > 2)
    told = browser.told
    assert told["labels"] == ["relayd"]
    assert told["size"] == "640x480"
    assert told["rate"] == 20
    browser.until("standby", lambda _: shows_standby(browser, relay, Geometry(640, 480)))
    began = browser.chapter()["at"]
    browser.until("pictures", lambda told: told["pictures"] >= 60)
    fps = browser.told["pictures"] / (browser.told["at"] - began)
    note(f"{guest.loopback}: Chromium", f"pictures after {seconds:.1f} s, then {fps:.1f} fps")
    browser.chapter()
    assert relay.stop(signal.SIGKILL) == -signal.SIGKILL
    relay = nursery.run(config(source=NOWHERE))
    browser.until("goes on", lambda told: told["pictures"] > 5 or told["live"] == "ended")
    note(
        f"{guest.loopback}: Chromium, relay killed and back",
        f"track {browser.told['live']}, longest freeze {browser.told['longest'] / 1000:.2f} s",
    )
    assert browser.told["live"] == "live"
    assert relay.stop() == 0


class CameraStream:
    """A source that can be lost: the test clip, over and over, to one who connects."""

    def __init__(self, clip: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._clip = clip
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", self._clip, "-c", "copy",
             "-f", "mpegts", f"tcp://127.0.0.1:{self.port}?listen=1"],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[CameraStream]:
    clip = tmp_path / "clip.ts"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", PERSON, "-an", "-vf", f"scale=160:-2,fps={SMALL_FPS}",
         "-c:v", "libx264", "-preset", "ultrafast", "-tune", "fastdecode", "-g", "10",
         "-pix_fmt", "yuv420p", clip],
        check=True,
    )  # fmt: skip
    source = CameraStream(clip)
    yield source
    source.stop()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    process = subprocess.Popen(
        [RELAYD, "emulator", "--port", "0", "--queue-seconds", "0.3"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield Emulator(process.stdout.readline().split()[-1], process)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    process.stdout.close()


@dataclass
class Outside:
    """What a live relay needs that runs on the host."""

    emulator: Emulator
    source: CameraStream


@pytest.fixture
def outside(emulator: Emulator, source: CameraStream) -> Outside:
    return Outside(emulator, source)


def live_config(emulator: Emulator, source: CameraStream) -> str:
    service = emulator.url.replace("127.0.0.1", HOST)
    urls = f"""
publish_url = "{service}/rtc/{{channel_id}}/{{front_user_id}}/whip"
play_url = "{service}/rtc/{{channel_id}}/{{algorithm_user_id}}/whep"
{RTC_PATIENCE}"""
    return config(
        source=f"tcp://{HOST}:{source.port}",
        service=service,
        face=emulator.upload(PORTRAIT),
        session_max=SESSION_MAX,
        rtc=urls,
        more=f"[video]\nwidth = {SMALL.width}\nheight = {SMALL.height}\nfps = {SMALL_FPS}\n"
        "bitrate = 500",
    )


@pytest.mark.parametrize("guest", ["0.12"], indirect=True)
def test_a_call_in_the_browser_goes_on_through_all_that_a_live_relay_may_suffer(
    guest: Guest, browser: Browser, nursery: Nursery, outside: Outside, note: Note
):
    emulator, source = outside.emulator, outside.source
    settings = live_config(emulator, source)
    relay = nursery.run(settings)
    browser.until("pictures", lambda told: told["pictures"] > 2)
    assert browser.told["labels"] == ["relayd"]
    browser.until("standby", lambda _: shows_standby(browser, relay, SMALL))
    relay.wait_for('"now": "live"')
    wait_for_swapped(browser, relay)

    def suffer(name: str, until: Callable[[], object]) -> None:
        """Wait until it is over; the track must live, and how long it froze is told."""
        deadline = time.monotonic() + 150
        while not until():
            assert time.monotonic() < deadline, f"{name}: {relay.log[-3000:]}"
            assert browser.told.get("live", "live") == "live", name
            time.sleep(0.1)
        told = browser.chapter()
        assert told["live"] == "live", name
        note(f"{guest.loopback}: Chromium, {name}",
             f"track live, longest freeze {told['longest'] / 1000:.2f} s")  # fmt: skip

    def states(*wanted: str) -> Callable[[], bool]:
        """Whether the relay went through these states, in this order, from now on."""
        before = len(relay.events("state"))

        def done() -> bool:
            rest = iter([event["now"] for event in relay.events("state")[before:]])
            return all(any(state == one for state in rest) for one in wanted)

        return done

    browser.chapter()
    lost = states("degraded", "live")
    source.stop()
    relay.wait_for('"now": "degraded"')
    browser.until("standby", lambda _: shows_standby(browser, relay, SMALL))
    source.start()
    suffer("source lost and back", lost)

    sessions = len(relay.events("session.created"))
    suffer("session rotated", lambda: len(relay.events("session.closed")) >= sessions)
    assert len(relay.events("session.created")) > sessions

    died = states("degraded", "live")
    guest.run("pkill -9 -f [r]elayd.rtc.worker")
    suffer("RTC worker killed", died)

    assert relay.stop(signal.SIGKILL) == -signal.SIGKILL
    left = {session["_id"] for session in emulator.sessions()}
    source.stop()  # it serves one client, once
    source.start()
    relay = nursery.run(settings)
    shown = browser.told["pictures"]
    suffer("relay killed and back", lambda: browser.told.get("pictures", 0) > shown + 10)
    deadline = time.monotonic() + 60
    while left & {session["_id"] for session in emulator.sessions()}:
        assert time.monotonic() < deadline, "the killed relay's session is still open"
        time.sleep(0.1)
    assert relay.stop() == 0
    assert emulator.sessions() == []


def wait_for_swapped(browser: Browser, relay: Relay) -> None:
    """Wait until the page shows what the relay shows live, and that is no standby picture."""

    def swapped(_told: object) -> bool:
        relay.guest.run(
            "curl -s --unix-socket /run/relayd/control.sock http://relay/preview/output.jpg"
            " -o /run/vm/shown.jpg"
        )
        with av.open(str(relay.guest.folder / "shown.jpg")) as jpeg:
            picture = next(jpeg.decode(video=0)).to_ndarray(format="rgb24")
        fresh = relay.status()["frames"]["fresh"]
        return bool(fresh) and browser.shows(squares(picture), 20.0)

    browser.until("swapped pictures", swapped)
    assert not shows_standby(browser, relay, SMALL)
