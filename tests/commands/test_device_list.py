"""What `relayd devices` prints; the devices answer as real drivers did."""

from pathlib import Path

import pytest

from relayd.commands.device_list import Listed, as_lines, as_records, look_at
from relayd.output.devices import list_devices
from tests.support.cameras import RecordedDevices, hardware_tree

NODES = {"video0": "webcam", "video1": "metadata", "video2": "loopback", "video3": "planes"}


@pytest.fixture
def found(tmp_path: Path) -> list[Listed]:
    (tmp_path / "v4l/by-id").mkdir(parents=True)
    (tmp_path / "v4l/by-id/usb-046d_C920-video-index0").symlink_to("../../video0")
    hardware_tree(tmp_path / "sys", [*NODES, "video9"])
    system = RecordedDevices(tmp_path, NODES)
    return look_at(list_devices(tmp_path / "sys", tmp_path, system), tmp_path, system)


def test_a_camera_is_listed_with_its_lasting_name_its_modes_and_what_relayd_takes(
    found: list[Listed], tmp_path: Path
) -> None:
    text = "\n".join(as_lines(found)).replace(str(tmp_path), "/dev")
    assert (
        text.split("\n/dev/video1")[0]
        == """\
/dev/video0  rw  capture  vivid
    /dev/v4l/by-id/usb-046d_C920-video-index0
    YUYV  320x180 60 fps, 640x360 40 fps, 640x480 25 fps, 1280x720 12.5 fps, 1920x1080 5 fps,\
 3840x2160 2 fps
    relayd takes yuyv422 640x480 at 25 fps for 640x480 at 20 fps"""
    )


def test_other_nodes_are_listed_as_what_they_are(found: list[Listed], tmp_path: Path) -> None:
    lines = [line.replace(str(tmp_path), "/dev") for line in as_lines(found)][4:]
    assert lines[0] == "/dev/video1  rw  metadata  vivid"
    assert lines[1].startswith("/dev/video2  rw  loopback camera  relayd")
    assert lines[2] == "/dev/video3  rw  separate planes  vivid"
    assert lines[3] == "/dev/video9  --  -  name of video9  No such file or directory"


def test_programs_get_the_same(found: list[Listed], tmp_path: Path) -> None:
    webcam, metadata = as_records(found)[:2]
    assert webcam["lasting_name"] == f"{tmp_path}/v4l/by-id/usb-046d_C920-video-index0"
    assert webcam["modes"][3] == {
        "format": "YUYV", "width": 1280, "height": 720, "fps": [12.5, 10.0, 5.0, 4.0, 2.0, 1.0]
    }  # fmt: skip
    assert (metadata["kind"], metadata["modes"]) == ("metadata", [])
