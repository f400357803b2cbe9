"""A capture device as the source: vivid stands for a webcam that is busy, lost and back."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.vm.guest import Guest, Note, Reload, stopwatch
from tests.vm.relays import Nursery, Reader, Relay, config

pytestmark = pytest.mark.vm

BY_ID = "/dev/v4l/by-id/usb-vivid-video-index0"
CAMERA, OTHER, METADATA = "/dev/video9", "/dev/video12", "/dev/video11"
OPENED, LOST = '"event": "source.opened"', '"event": "source.down"'


@pytest.fixture
def camera(guest: Guest, nursery: Nursery) -> Iterator[None]:
    """Two webcams, one of them with a metadata node and a lasting name."""
    guest.run(
        "modprobe vivid n_devs=2 node_types=0x20001,0x1 vid_cap_nr=9,12 meta_cap_nr=11"
        " num_inputs=1,1 input_types=0,0"
        f" && mkdir -p $(dirname {BY_ID}) && ln -sf {CAMERA} {BY_ID}"
    )
    yield
    nursery.end_all()
    guest.stop_programs(but=nursery.process)
    guest.run(f"rm {BY_ID} && rmmod vivid")


def control(guest: Guest, device: str, name: str, value: int) -> None:
    guest.run(f"v4l2-ctl -d {device} -c {name}={value}")


def wait_again(relay: Relay, pattern: str, seen: list[str]) -> None:
    """Wait until something was said once more, since the last call."""
    seen.append(pattern)
    relay.wait_for(f"(?s)(?:{pattern}.*?){{{seen.count(pattern)}}}")


@pytest.mark.usefixtures("camera")
@pytest.mark.parametrize("guest", ["0.15"], indirect=True)
def test_a_webcam_is_waited_for_while_busy_and_followed_when_lost(
    guest: Guest, nursery: Nursery, note: Note
) -> None:
    seen: list[str] = []
    listed = nursery.start("devices", "--json")
    assert listed.wait() == 0
    told = json.loads(listed.log[listed.log.index("[") : listed.log.rindex("]") + 1])
    about = {device["device"]: device for device in told}
    assert about[CAMERA]["lasting_name"] == BY_ID
    assert about[METADATA]["kind"] == "metadata"
    assert len(about[CAMERA]["modes"]) >= 6

    # Another program has it.
    other = Reader(guest, CAMERA)
    relay = nursery.run(config(source=BY_ID))
    relay.wait_for(rf"{BY_ID} is in use by \S+ \(process {other.pid}\)")
    other.stop()
    wait_again(relay, OPENED, seen)
    opened = relay.events("source.opened")[0]
    assert (opened["width"], opened["height"], opened["fps"]) == (640, 480, 25)

    seconds = stopwatch(note, "capture")

    # Unplugged while it delivers raw pictures, and plugged in again as another device.
    guest.run(f"ln -sf {OTHER} {BY_ID}")
    began = time.monotonic()
    control(guest, CAMERA, "disconnect", 1)
    relay.wait_for(f"{BY_ID} was unplugged")
    wait_again(relay, OPENED, seen)
    seconds("a webcam unplugged to its first picture under another number", began)
    assert OTHER in guest.run(f"ls -l /proc/{relay.pid}/fd")

    # It stands still: relayd must not keep it busy itself.
    control(guest, OTHER, "percentage_of_dropped_buffers", 100)
    relay.wait_for("no picture for 2 s")
    after = len(relay.log)
    control(guest, OTHER, "percentage_of_dropped_buffers", 0)
    wait_again(relay, OPENED, seen)
    assert "in use" not in relay.log[after:]
    assert relay.stop() == 0  # and not by a signal
    assert "Traceback" not in relay.log


@pytest.mark.parametrize("guest", ["0.15"], indirect=True)
def test_mjpeg_pictures_of_another_virtual_camera_are_read_once_it_has_a_writer(
    guest: Guest, nursery: Nursery, reload_module: Reload
) -> None:
    reload_module("devices=2 video_nr=0,1 card_label=relayd,other exclusive_caps=1,1")
    relay = nursery.run(config(source="/dev/video1", device="/dev/video0"))
    relay.wait_for("/dev/video1 is a virtual camera, and no program writes to it now")
    writer = guest.start(
        "exec ffmpeg -nostdin -v error -re -f lavfi -i testsrc2=s=320x240:r=10 -c:v mjpeg"
        " -f v4l2 /dev/video1"
    )
    relay.wait_for(OPENED)
    opened = relay.events("source.opened")[0]
    assert (opened["codec"], opened["width"], opened["height"]) == ("mjpeg", 320, 240)
    assert relay.stop() == 0
    writer.stop()
