"""Which camera is taken, which is refused and why, and what becomes of one that is lost."""

import re
import signal

import pytest

from tests.vm.cache import RELEASES
from tests.vm.guest import WHOLE, Guest, Note, Reload
from tests.vm.relays import CONFIG, NOWHERE, Nursery, Reader, config, watch

pytestmark = pytest.mark.vm

UNAVAILABLE = 69
ABSENT = "(no such (device|file)|there is no virtual camera)"
"""Why a camera is lost: the first while the relay tries the old device, the second once it
looks for another one."""


def on(series: str) -> pytest.MarkDecorator:
    """Run on this version; as a whole, on the others as well."""
    return pytest.mark.parametrize("guest", RELEASES if WHOLE else [series], indirect=True)


def refusal(guest: Guest, nursery: Nursery, device: str) -> str:
    """Start a relay on a device that is to be refused; returns its words."""
    guest.write(CONFIG, config(source=NOWHERE, device=device))
    relay = nursery.start("run", "-c", CONFIG, "--require-outputs")
    assert relay.wait() == UNAVAILABLE, relay.log
    return next(line for line in relay.log.splitlines() if line.startswith("relayd: "))


@on("0.15")
def test_two_cameras_show_the_same_to_a_reader_each(
    guest: Guest, nursery: Nursery, reload_module: Reload, note: Note
) -> None:
    reload_module("devices=2 video_nr=4,7 exclusive_caps=1,1 card_label=other,relayd")
    second = '[[output]]\nkind = "camera"\ndevice = "other"'
    relay = nursery.run(config(source=NOWHERE, device="auto", more=second))
    assert [event["device"] for event in relay.events("camera.opened")] == [
        "/dev/video7", "/dev/video4",
    ]  # fmt: skip  # auto is the one labelled relayd
    readers = [Reader(guest, device) for device in ("/dev/video4", "/dev/video7")]
    for reader in readers:
        reader.chapter()
    seen = [watch(reader, 30) for reader in readers]
    assert all(one.count >= 30 and not one.errors for one in seen)
    assert seen[0].kinds & seen[1].kinds  # the same picture, by its sum
    third = guest.run(
        "timeout 20 v4l2-ctl -d /dev/video7 --stream-mmap --stream-count=3 2>&1", status=None
    )
    refused = "busy" in third.lower()
    note(f"{guest.loopback}: a second reader of one camera", "refused" if refused else "reads")
    assert refused == (guest.machine.series != "0.12")
    for reader in readers:
        reader.stop()
    outputs = relay.status()["outputs"]
    assert (outputs["/dev/video7"], outputs["/dev/video4"]) == ("ok", "ok")
    assert relay.stop() == 0


@pytest.mark.usefixtures("reload_module")  # 0.12.7 is stuck after another program wrote to it
@on("0.12")
def test_a_camera_that_cannot_or_must_not_be_written_is_refused_in_words(
    guest: Guest, nursery: Nursery
) -> None:
    guest.run("modprobe vivid n_devs=1 node_types=1 vid_cap_nr=9")
    try:
        real = refusal(guest, nursery, "/dev/video9")
        assert "real device" in real
        label = guest.run("cat /sys/class/video4linux/video9/name").strip()
        assert f'no virtual camera labelled "{label}"' in refusal(guest, nursery, label)
    finally:
        guest.run("rmmod vivid")
    assert 'existing labels: "relayd"' in refusal(guest, nursery, "studio")
    writer = guest.start(
        "exec ffmpeg -v error -re -f lavfi -i testsrc2=s=640x480:r=20 -pix_fmt yuv420p"
        " -f v4l2 /dev/video0"
    )
    reader = guest.start("timeout 60 v4l2-ctl --stream-mmap --stream-count=1 --stream-poll")
    until_captured = "until v4l2-ctl --info | grep -q 'Video Capture'; do :; done"
    guest.run(f"timeout 60 bash -c {until_captured!r}")
    reader.stop(signal.SIGKILL)
    words = refusal(guest, nursery, "/dev/video0")
    assert "another program writes to" in words
    writer.stop()


@on("0.15")
def test_a_camera_set_up_badly_is_refused_with_its_hint(
    guest: Guest, nursery: Nursery, reload_module: Reload
) -> None:
    reload_module("video_nr=0 card_label=relayd exclusive_caps=0")
    words = refusal(guest, nursery, "auto")
    assert "exclusive_caps=0" in words
    assert "modprobe -r v4l2loopback" in words
    reload_module("video_nr=0 card_label=relayd exclusive_caps=1")
    guest.run("v4l2-ctl -c keep_format=1")
    assert "v4l2-ctl -d /dev/video0 -c keep_format=0" in refusal(guest, nursery, "auto")
    guest.run("v4l2-ctl -c keep_format=0")
    relay = nursery.run(config(source=NOWHERE))  # the hint helps
    assert relay.stop() == 0


@on("0.12")
def test_a_camera_that_is_lost_is_told_of_and_taken_back(
    guest: Guest, nursery: Nursery, reload_module: Reload, note: Note
) -> None:
    """The kernel unloads no module in use: strace makes the relay's calls fail instead."""
    relay = nursery.run(config(source=NOWHERE))
    assert "in use" in guest.run("rmmod v4l2loopback 2>&1", status=1)
    reader = Reader(guest)
    fail = f"exec strace -f -p {relay.pid} -P /dev/video0 -o /dev/null -e trace=write,openat"
    once = guest.start(f"{fail} -e inject=write:error=EINVAL:when=1")
    relay.wait_for('"event": "output.lost"')
    relay.wait_for('"event": "output.back"')
    once.stop()
    seen = watch(reader, 10)
    assert seen.count >= 10
    assert not seen.errors
    note(f"{guest.loopback}: a write refused, a reader's wait", f"{seen.longest:.2f} s")
    reader.stop()
    lost = relay.events("output.lost")[0]
    assert lost["output"] == "/dev/video0"
    assert "invalid argument" in lost["reason"]

    gone = guest.start(f"{fail} -e inject=write:error=ENODEV -e inject=openat:error=ENODEV")
    relay.wait_for("no such device")
    guest.run("timeout 60 bash -c 'until rmmod v4l2loopback 2>/dev/null; do :; done'")
    gone.stop()
    relay.wait_for(f'(?s)"event": "output.lost".*{ABSENT}')
    assert re.search(ABSENT, relay.status()["outputs"]["/dev/video0"])
    guest.run(f"modprobe v4l2loopback {guest.machine.options}")
    relay.wait_for(f'(?s){ABSENT}.*"event": "output.back"')
    status = relay.status()
    assert status["outputs"]["/dev/video0"] == "ok"
    assert status["reconnects"]["output"] == 2
    assert "Frames per second: 20.000" in guest.run("v4l2-ctl --get-parm")
    reader = Reader(guest)
    assert watch(reader, 20).count >= 20
    reader.stop()
    assert relay.stop() == 0
