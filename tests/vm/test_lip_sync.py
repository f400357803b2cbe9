"""Lip sync at the devices: programs read the camera and the microphone that a relay writes.

The source's clip has a lamp and a beep that begin together. The service is a mirror here, which
gives pictures back so many seconds later (inside/mirror.py): what is left of the relay has an
emulated processor to itself. The microphone must be as late as the camera, by the clock of one
program.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.av_sync import EVERY, FPS, GEOMETRY, LAMP, Offsets, offsets, write_clip
from tests.support.interpreter import ROOT
from tests.support.sound_server import SERVER_COMMANDS
from tests.support.stage import PERSON, PORTRAIT, Emulator
from tests.vm.chromium import Browser
from tests.vm.guest import HERE, Failed, Guest, Note
from tests.vm.relays import HOME, PYTHON, Nursery, Relay, config, service_of

pytestmark = pytest.mark.vm

CLIP, DELAY = f"{HOME}/clip.mkv", f"{HOME}/mirror"
FIRST, LATER = 0.6, 1.1
"""s by which the mirror is late, at first and after a step."""
CLOSE = 0.15
"""s by which the median may be off. At home it is 0.06; an emulated processor leaves out a third of
the ticks, and each shifts the sound until the delay line has worked it off."""
BEEPS = 5
"""That a median is of."""
WITHIN = 120.0
"""s in which they must have been in sync; at home, that takes 2 s after a step."""
RUNTIME = "/run/sound"
MICROPHONE = "relayd microphone"
RECORD_CARD = (
    "arecord -q -D hw:CARD=relayd,DEV=1 -t raw -f S16_LE -r 48000 -c 1"
    " --buffer-time=60000 --period-time=10000"
)
RECORD_SOURCE = (
    f"env XDG_RUNTIME_DIR={RUNTIME} parec --device=relayd_microphone --format=s16le --rate=48000"
    " --channels=1 --latency-msec=10 --raw"
)

Measure = Callable[[], Offsets]
"""Returns all offsets since it was last called, or since the start."""


@pytest.fixture
def clip(guest: Guest) -> Iterator[None]:
    """The clip is in the guest, and links are mirrors."""
    write_clip(guest.folder / "clip.mkv", PERSON)
    guest.run(f"mkdir -p {HOME} && cp /run/vm/clip.mkv {CLIP}")
    be_late(guest, FIRST)
    yield
    guest.run(f"rm {DELAY} {CLIP}")


@pytest.fixture
def sound_server(guest: Guest) -> None:
    """A PulseAudio without a card; `nursery` ends it."""
    command = SERVER_COMMANDS["pulseaudio"]
    home = f"XDG_RUNTIME_DIR={RUNTIME} HOME={RUNTIME}"
    fresh = f"rm -rf {RUNTIME}; mkdir -m 700 {RUNTIME}"  # one that was killed leaves its process id
    guest.start(f"{fresh}; {home} exec dbus-run-session -- sh -c '{command}'")
    answers = f"XDG_RUNTIME_DIR={RUNTIME} pactl info"
    guest.run(f"for _ in $(seq 100); do {answers} && exit; sleep 0.2; done; exit 1")


def be_late(guest: Guest, seconds: float) -> None:
    """Let the mirror be so late from now on."""
    guest.run(f"echo {seconds} >{DELAY}.new && mv {DELAY}.new {DELAY}")


def start_relay(nursery: Nursery, emulator: Emulator, device: str, runtime: str = "") -> Relay:
    """Start a relay with a camera and a microphone, and wait until it is live."""
    relay = nursery.run(
        config(
            source=CLIP,
            service=service_of(emulator),
            face=emulator.upload(PORTRAIT),
            more=f"[video]\nwidth = {GEOMETRY.width}\nheight = {GEOMETRY.height}\nfps = {FPS}\n"
            f'[[output]]\nkind = "microphone"\ndevice = "{device}"\nname = "{MICROPHONE}"\n',
        ),
        runtime=runtime,
    )
    relay.wait_for('"now": "live", "reason": ""')
    return relay


@contextmanager
def program(guest: Guest, recorder: str) -> Iterator[Measure]:
    """A program that reads the camera and has `recorder` read the microphone."""
    place = " ".join(map(str, (GEOMETRY.width, *LAMP)))
    script = f"{PYTHON} -S {HERE}/inside/lip_sync.py /dev/video0 {place}"
    process = guest.start(f"exec {script} {recorder}", stdin=True)
    process.wait_for("lip sync ready")

    def measure() -> Offsets:
        after = len(process.text)
        process.send("")
        told = json.loads(process.wait_for(r"^\{.*\}$", after=after)[0])
        return offsets(told["lights"], told["beeps"])

    yield measure
    process.stop(9)


def in_sync(measure: Measure) -> Offsets:
    """Wait until as many offsets in turn as BEEPS have a median that is close; returns them."""
    measure()  # what was before does not count
    found: tuple[float, ...] = ()
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        time.sleep(EVERY)
        found += measure().all
        last = Offsets(found[-BEEPS:])
        if len(last.all) == BEEPS and abs(last.p50) < CLOSE:
            return last
    raise Failed(f"beeps are later than the lamp by {[round(each, 3) for each in found]} s")


def follows(measure: Measure, guest: Guest, relay: Relay, note: Note, who: str) -> None:
    """Whether the microphone is as late as the camera, also after the pictures' delay has grown."""
    for late in (FIRST, LATER):
        be_late(guest, late)
        note(f"lip sync, {who}, {late} s late", str(in_sync(measure)))
        # A delay that nobody waits for would not show that the sound is late.
        assert relay.status()["delay"]["p95"] > late
    be_late(guest, FIRST)


@pytest.mark.usefixtures("clip", "card")
@pytest.mark.parametrize("guest", ["0.15"], indirect=True)
def test_a_program_sees_the_camera_and_hears_the_sound_card_in_sync(
    guest: Guest, nursery: Nursery, emulator: Emulator, note: Note
) -> None:
    relay = start_relay(nursery, emulator, "alsa:hw:CARD=relayd,DEV=0")
    with program(guest, RECORD_CARD) as measure:
        follows(measure, guest, relay, note, "sound card")
    assert relay.stop() == 0


@pytest.mark.usefixtures("clip", "sound_server")
@pytest.mark.parametrize("guest", ["0.15"], indirect=True)
def test_a_program_has_the_camera_and_the_sound_servers_microphone_in_sync(
    guest: Guest, nursery: Nursery, emulator: Emulator, note: Note
) -> None:
    relay = start_relay(nursery, emulator, "pulse", RUNTIME)
    with program(guest, RECORD_SOURCE) as measure:
        note("lip sync, PulseAudio, a program", str(in_sync(measure)))
    assert relay.stop() == 0


@pytest.mark.usefixtures("clip", "sound_server", "nursery")
@pytest.mark.parametrize("guest", ["0.15"], indirect=True)
def test_a_page_that_takes_camera_and_microphone_together_has_them_in_sync(
    guest: Guest, note: Note
) -> None:
    home = f"XDG_RUNTIME_DIR={RUNTIME} PYTHONPATH={ROOT}"
    devices = guest.start(f"{home} exec {PYTHON} {HERE}/inside/devices.py {DELAY} '{MICROPHONE}'")
    devices.wait_for("devices ready")
    place = ",".join(map(str, LAMP))
    with Browser(guest, f"lip_sync.html?{MICROPHONE},{place}", RUNTIME) as browser:
        browser.until("has both", lambda told: told["error"] or told["pictures"] > 20)
        assert browser.told["error"] == ""
        assert browser.told["labels"] == ["relayd", MICROPHONE]
        measure = page_measure(browser)
        for late in (FIRST, LATER):
            be_late(guest, late)
            note(f"lip sync, Chromium, {late} s late", str(in_sync(measure)))
        assert browser.told["live"] == ["live", "live"]


def page_measure(browser: Browser) -> Measure:
    """What the page measures."""
    seen = 0

    def measure() -> Offsets:
        nonlocal seen
        lights, beeps = browser.told["lights"], browser.told["beeps"]
        # One that is still without its beep is looked at again.
        whole = [light for light in lights[seen:] if beeps and light < beeps[-1] + EVERY / 2]
        seen += len(whole)
        return offsets(whole, beeps)

    return measure
