"""A node's other names and sisters, and who has a device open: real processes, a fake /sys."""

import fcntl
import os
from pathlib import Path

from relayd.v4l2 import nodes
from tests.support.cameras import RecordedDevices, hardware_tree

DEVICE = Path("/dev/full")
"""A character device that no other program has open."""


def test_a_device_is_known_by_its_number_through_any_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(DEVICE)
    assert nodes.device_number(str(tmp_path / "link")) == DEVICE.stat().st_rdev
    (tmp_path / "file").touch()
    assert nodes.device_number(str(tmp_path / "file")) is None


def test_a_node_is_known_by_its_id_before_its_place(tmp_path: Path) -> None:
    for name in ("video0", "video1"):
        (tmp_path / name).touch()
    for folder, link, node in (
        ("by-path", "pci-0000:00:14.0-usb-0:1:1.0-video-index0", "video0"),
        ("by-path", "pci-0000:00:14.0-usb-0:2:1.0-video-index0", "video1"),
        ("by-id", "usb-046d_C920-video-index0", "video0"),
        ("by-id", "usb-that_is_gone-video-index0", "video2"),
    ):
        (tmp_path / "v4l" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "v4l" / folder / link).symlink_to(f"../../{node}")
    names = nodes.lasting_names(tmp_path)
    assert {Path(node).name: Path(link).name for node, link in names.items()} == {
        "video0": "usb-046d_C920-video-index0",
        "video1": "pci-0000:00:14.0-usb-0:2:1.0-video-index0",
    }
    assert nodes.lasting_names(tmp_path / "nothing") == {}


def test_sisters_are_the_nodes_of_the_same_hardware(tmp_path: Path) -> None:
    hardware_tree(tmp_path, ["video0", "video1", "video10"])
    hardware_tree(tmp_path, ["video2"], "usb1/1-2:1.0")
    assert nodes.sister_nodes("/dev/video10", tmp_path) == ["/dev/video0", "/dev/video1"]
    assert nodes.sister_nodes("/dev/video2", tmp_path) == []
    assert nodes.sister_nodes("/dev/video7", tmp_path) == []


def test_a_device_that_this_process_writes_to_is_known_by_its_lock() -> None:
    number = DEVICE.stat().st_rdev
    with DEVICE.open("wb") as reader, DEVICE.open("wb") as writer:
        assert reader.fileno() != writer.fileno()
        assert not nodes.is_locked_here(number)
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert nodes.is_locked_here(number)
    assert not nodes.is_locked_here(number)


def test_streaming_is_ended_on_each_own_descriptor_of_the_device_alone(tmp_path: Path) -> None:
    system = RecordedDevices(tmp_path, {})
    with DEVICE.open("wb") as one, DEVICE.open("wb") as other, Path(os.devnull).open("rb"):
        nodes.release(DEVICE.stat().st_rdev, system)
        assert sorted(system.stopped) == sorted([one.fileno(), other.fileno()])
