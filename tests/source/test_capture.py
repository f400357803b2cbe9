"""What is asked of a capture device and said of it; the devices answer as real drivers did."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.media.frames import Geometry
from relayd.source.camera_mode import ModeRequest
from relayd.source.capture import CaptureDevice
from tests.support.cameras import RecordedDevices, hardware_tree

REQUEST = ModeRequest(Geometry(640, 480), 20.0, {})
WEBCAM = {"video0": "webcam", "video1": "metadata", "video2": "output"}
HOLD = "import sys; held = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


class Machine:
    """A /dev and a /sys with recorded devices; the clock stands at `now`."""

    def __init__(self, folder: Path, nodes: dict[str, str]) -> None:
        self.dev, self.sys = folder / "dev", folder / "sys"
        self.dev.mkdir()
        self.system = RecordedDevices(self.dev, nodes)
        self.now = 1e12

    def device(self, name: str) -> CaptureDevice:
        return CaptureDevice(
            str(self.dev / name),
            f"/dev/{name}",
            system=self.system,
            sys_root=self.sys,
            dev_root=self.dev,
            wall_clock=lambda: self.now,
        )

    def refusal(self, name: str) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.device(name).options(REQUEST)
        return caught.value


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, WEBCAM)
    hardware_tree(machine.sys, list(WEBCAM))
    return machine


def failed(kind: type[SourceError], number: int) -> SourceError:
    """Return what opening or reading raises where FFmpeg fails with an errno."""
    error = kind(f"/dev/video0: {os.strerror(number)}")
    error.__context__ = OSError(number, os.strerror(number))
    return error


def test_a_camera_is_opened_in_a_mode_that_it_has(machine: Machine) -> None:
    options = machine.device("video0").options(REQUEST)
    assert options[0] == {
        "input_format": "yuyv422", "video_size": "640x480", "framerate": "25/1"
    }  # fmt: skip
    assert options[-1] == {}


def test_a_link_to_a_camera_is_the_camera(machine: Machine) -> None:
    (machine.dev / "v4l/by-id").mkdir(parents=True)
    (machine.dev / "v4l/by-id/usb-video-index0").symlink_to("../../video0")
    assert "video_size" in machine.device("v4l/by-id/usb-video-index0").options(REQUEST)[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("video1", "delivers metadata, not pictures"),
        ("video2", "is an output: it shows pictures and delivers none"),
    ],
)
def test_a_node_without_pictures_is_refused_and_its_sister_is_named(
    machine: Machine, name: str, words: str
) -> None:
    error = machine.refusal(name)
    assert isinstance(error, SourceUnusable)
    assert str(error) == f"/dev/{name} {words} (use {machine.dev}/video0)"
    (machine.dev / "v4l/by-id").mkdir(parents=True)
    (machine.dev / "v4l/by-id/usb-video-index0").symlink_to("../../video0")
    hint = f"use {machine.dev}/v4l/by-id/usb-video-index0"
    assert machine.refusal(name).hint == hint


def test_a_node_without_a_sister_that_has_pictures_points_to_the_list(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"video0": "planes", "video1": "metadata"})
    hardware_tree(machine.sys, ["video0", "video1"])
    assert "`relayd devices`" in machine.refusal("video1").hint
    assert "in separate planes, which FFmpeg cannot read" in str(machine.refusal("video0"))


def test_a_virtual_camera_is_read_as_its_writer_set_it_and_waited_for_without_one(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path, {"video0": "loopback", "video1": "idle_loopback"})
    assert machine.device("video0").options(REQUEST) == [{}]
    error = machine.refusal("video1")
    assert isinstance(error, SourceUnreachable)
    assert "no program writes to it now" in str(error)


def test_a_device_that_is_not_there_is_waited_for(machine: Machine) -> None:
    error = machine.refusal("video9")
    assert isinstance(error, SourceUnreachable)
    assert str(error).startswith("there is no device /dev/video9 (")


def test_another_kind_of_device_is_no_capture_device(tmp_path: Path) -> None:
    error = CaptureDevice("/dev/null", "/dev/null")
    with pytest.raises(SourceUnusable, match="/dev/null is not a capture device"):
        error.options(REQUEST)
    with pytest.raises(SourceUnreachable, match="is a directory"):
        CaptureDevice(str(tmp_path), "folder").options(REQUEST)


def test_rights_are_named_but_of_a_new_node_waited_for(machine: Machine) -> None:
    machine.system.refuse_opening = errno.EACCES
    error = machine.refusal("video0")
    assert isinstance(error, SourceUnusable)
    assert "usermod -aG video" in error.hint
    machine.now = (machine.dev / "video0").stat().st_ctime + 1  # udev still works on it
    assert isinstance(machine.refusal("video0"), SourceUnreachable)
    machine.now += 60
    machine.system.refuse_opening = errno.EPERM
    assert "DeviceAllow=" in machine.refusal("video0").hint


def test_a_busy_device_names_who_uses_it() -> None:
    device = CaptureDevice("/dev/full", "/dev/video0")
    error = device.explained(failed(SourceUnreachable, errno.EBUSY))
    assert isinstance(error, SourceUnreachable)
    assert str(error) == "/dev/video0 is in use by another program (sudo fuser -v /dev/full)"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, "/dev/full"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        words = str(device.explained(failed(SourceUnreachable, errno.EBUSY)))
        process.communicate()
    assert words.startswith("/dev/video0 is in use by python")
    assert words.endswith(f"(process {process.pid})")


def test_a_device_that_goes_while_it_is_read_was_unplugged(machine: Machine) -> None:
    device = machine.device("video0")
    error = device.explained(failed(SourceLost, errno.ENODEV))
    assert (type(error), str(error)) == (SourceLost, "/dev/video0 was unplugged")
    stalled = SourceLost("/dev/video0: no picture for 2 s")
    assert device.explained(stalled) is stalled


def test_another_mode_is_tried_where_the_bus_has_no_room_for_the_best(machine: Machine) -> None:
    device = machine.device("video0")
    full = failed(SourceUnreachable, errno.ENOSPC)
    assert device.wants_another_mode(full)
    assert "the USB bus has no room" in str(device.explained(full))
    assert not device.wants_another_mode(failed(SourceUnreachable, errno.EBUSY))
