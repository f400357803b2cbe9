"""A headless Chromium in the guest has a call with the camera: on demand, and through all faults.

What is slowed, because the processor is emulated: where pictures go through RTC they are 160x120
at 10 fps, and the link's limits are ten times as long; Python alone takes 20 s to load the RTC
worker's libraries. The service and the source are on the host.
"""

import os
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

from relayd.logs import LogEvent
from relayd.media.frames import Geometry
from relayd.relay.status import RelayState
from tests.support.stage import PORTRAIT, Emulator, rtc_keys, wait_for
from tests.vm.chromium import Browser, squares
from tests.vm.guest import HOST, WHOLE, Guest, Note, stopwatch
from tests.vm.relays import (
    CONFIG,
    NOWHERE,
    Nursery,
    Relay,
    config,
    service_of,
    standby_picture,
)

pytestmark = pytest.mark.vm

SMALL, SMALL_FPS = Geometry(160, 120), 10
GRACE = 4.0  # s
SESSION_MAX = 25
"""s after which a session is followed by another: soon, for there is no other way to ask for it."""
RTC_PATIENCE = {"first_frame_timeout": 120.0, "stall_timeout": 30.0}
"""Its swapped pictures come some 3 a second, with seconds between them on a busy machine."""


def as_rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def as_seen(i420: bytes, geometry: Geometry) -> NDArray[np.int_]:
    """Return the colours that a page should see of a picture."""
    planes = np.frombuffer(i420, np.uint8).reshape(geometry.shape)
    return squares(as_rgb(av.VideoFrame.from_ndarray(planes, "yuv420p")))


def shows_standby(browser: Browser, relay: Relay, geometry: Geometry) -> bool:
    """Whether the page shows the standby picture of the relay's state."""
    state = relay.events(LogEvent.RELAY_STATE)[-1]
    picture = standby_picture(RelayState(state["now"]), state["reason"], geometry)
    return browser.shows(as_seen(picture, geometry))


@pytest.mark.parametrize("guest", ["0.13"], indirect=True)
def test_a_page_gets_the_camera_and_keeps_it_when_the_relay_is_killed(
    guest: Guest, nursery: Nursery, note: Note
) -> None:
    with Browser(guest) as browser:
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
        relay = kill_and_start(relay, nursery, browser, note)
        assert relay.stop() == 0


class CameraStream:
    """A source that can be lost: the test clip, over and over, to one who connects, again too."""

    def __init__(self, clip: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._serve = (
            f"while :; do ffmpeg -v fatal -re -stream_loop -1 -i {clip} -c copy -f mpegts"
            f" 'tcp://127.0.0.1:{self.port}?listen=1'; done"
        )
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", self._serve], stdin=subprocess.DEVNULL, start_new_session=True
        )

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def source(small_clip: Path) -> Iterator[CameraStream]:
    source = CameraStream(small_clip)
    yield source
    source.stop()


@dataclass
class Outside:
    """What a live relay needs that runs on the host."""

    emulator: Emulator
    source: CameraStream

    @property
    def config(self) -> str:
        """Settings of a relay that uses it, on demand."""
        service = service_of(self.emulator)
        return config(
            source=f"tcp://{HOST}:{self.source.port}",
            service=service,
            face=self.emulator.upload(PORTRAIT),
            session_max=SESSION_MAX,
            rtc=rtc_keys(service, **RTC_PATIENCE),
            on_demand=f"grace = {GRACE}",
            more=f"[video]\nwidth = {SMALL.width}\nheight = {SMALL.height}\nfps = {SMALL_FPS}\n"
            "bitrate = 500",
        )


@pytest.fixture
def outside(emulator: Emulator, source: CameraStream) -> Outside:
    return Outside(emulator, source)


@pytest.mark.parametrize("guest", ["0.12", "0.15"], indirect=True)
def test_a_call_has_a_session_from_its_begin_to_its_end_whatever_the_relay_suffers(
    guest: Guest, nursery: Nursery, outside: Outside, note: Note
) -> None:
    before = outside.emulator.created()

    seconds = stopwatch(note, f"call, {guest.loopback}")

    relay = nursery.run(outside.config)
    with Browser(guest, "page.html?list") as browser:
        # A list of cameras is no call.
        browser.until("lists", lambda told: "videoinput" in told.get("kinds", []))
        for _ in range(2):
            browser.chapter()  # it lists all the time
        assert relay.events(LogEvent.RELAY_DEMAND) == []

        browser.open_again()
        began = time.monotonic()
        browser.until("pictures", lambda told: told["pictures"] > 2)
        seconds("begin to standby in the page", began)
        assert browser.told["labels"] == ["relayd"]
        relay.wait_for('"now": "opening", "reason": ""')
        seconds("begin to a session being asked for", began)
        if guest.machine.series == "0.12":  # 0.15 ends the track of a reader whose writer ends
            relay = kill_and_start(relay, nursery, browser, note)
            began = time.monotonic()
        relay.wait_for('"event": "link.ready"')
        seconds("begin, or start of the relay, to the RTC worker loaded", began)
        relay.wait_for('"now": "live", "reason": ""')
        seconds("begin, or start of the relay, to the first swapped picture", began)
        wait_for_swapped(browser, relay)
        if guest.machine.series == "0.12" or WHOLE:
            suffer_all(relay, browser, outside, note)
        began = time.monotonic()
    relay.wait_for('"was": "closing", "now": "idle"')
    assert GRACE < seconds(f"end to session closed (grace {GRACE:g} s)", began) < GRACE + 15
    assert outside.emulator.open() == []
    assert outside.emulator.created() > before
    assert relay.stop() == 0


def kill_and_start(relay: Relay, nursery: Nursery, browser: Browser, note: Note) -> Relay:
    """Kill the relay and start it again, at once: Chromium gives up what rests for 8 s."""
    assert relay.stop(signal.SIGKILL) == -signal.SIGKILL
    relay = nursery.start("run", "-c", CONFIG)
    browser.chapter()  # whose longest wait begins with the last picture before it
    browser.until("goes on", lambda told: told["pictures"] > 5 or told["live"] == "ended")
    tell_track("relay killed and back", relay, browser, note)
    return relay


def suffer_all(relay: Relay, browser: Browser, outside: Outside, note: Note) -> None:
    """Let a live relay lose its source, its session and its RTC worker; the track must live."""

    def went_through(*wanted: str) -> Callable[[], bool]:
        """Whether the relay went through these states, in this order, from now on."""
        before = len(relay.events(LogEvent.RELAY_STATE))

        def done() -> bool:
            rest = iter([event["now"] for event in relay.events(LogEvent.RELAY_STATE)[before:]])
            return all(any(state == one for state in rest) for one in wanted)

        return done

    def is_over(what: str, until: Callable[[], object]) -> None:
        wait_for(what, lambda: browser.told.get("live") == "ended" or until(), 150)
        tell_track(what, relay, browser, note)

    browser.chapter()
    lost = went_through("degraded", "live")
    outside.source.stop()
    relay.wait_for('"now": "degraded"')
    browser.until("standby", lambda _: shows_standby(browser, relay, SMALL))
    outside.source.start()
    is_over("source lost and back", lost)

    old = outside.emulator.open()[0]

    def closed() -> bool:
        return old in [event["session"] for event in relay.events("session.closed")]

    is_over("session rotated", closed)
    assert relay.events("session.created")[-1]["session"] != old

    died = went_through("degraded", "live")
    relay.guest.run("pkill -9 -f [i]nside/worker.py")
    is_over("RTC worker killed", died)


def tell_track(after: str, relay: Relay, browser: Browser, note: Note) -> None:
    """Put into the report how the page's track is; it must be live."""
    told = browser.chapter()
    note(f"call, {relay.guest.loopback}: {after}",
         f"track {told['live']}, longest freeze {told['longest'] / 1000:.2f} s")  # fmt: skip
    assert told["live"] == "live", relay.log[-3000:]


def wait_for_swapped(browser: Browser, relay: Relay) -> None:
    """Wait until the page shows what the relay shows live, and that is no standby picture."""
    states = [event for event in relay.events(LogEvent.RELAY_STATE) if event["now"] != "live"]
    standby = [as_seen(standby_picture(RelayState(one["now"]), one["reason"], SMALL), SMALL)
               for one in states]  # fmt: skip
    fresh = relay.status()["frames"]["fresh"]

    def swapped(_told: object) -> bool:
        relay.ask("/preview/output.jpg", "-s -o /run/vm/shown.jpg")
        with av.open(str(relay.guest.folder / "shown.jpg")) as jpeg:
            picture = as_rgb(next(jpeg.decode(video=0)))
        moves = relay.status()["frames"]["fresh"] > fresh
        return moves and browser.shows(squares(picture), 20.0)

    browser.until("swapped pictures", swapped)
    assert not any(browser.shows(one) for one in standby)
