import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relayd.errors import CameraUnavailable
from relayd.media.frames import Geometry, StandbyFrame, SwappedFrame, black
from relayd.output import device_choice, devices, v4l2
from relayd.output.camera import CameraOutput
from relayd.output.device_choice import find_device
from relayd.output.devices import VideoDevice
from relayd.v4l2 import calls

SIZE = Geometry(64, 48)
VERSIONS = ["0.12.7", "0.13.2", "0.15.0"]


def sys_tree(tmp_path: Path, version: str) -> Path:
    folder = tmp_path / "module/v4l2loopback"
    folder.mkdir(parents=True)
    if not version.startswith("0.12"):  # older modules have no version file
        (folder / "version").write_text(version + "\n")
    return tmp_path


def camera(
    driver: Any, tmp_path: Path, device: Any = "/dev/video0", **settings: Any
) -> CameraOutput:
    root = tmp_path if (tmp_path / "module").exists() else sys_tree(tmp_path, driver.version)
    return CameraOutput(device, SIZE, 20, system=driver, sys_root=root, **settings)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, SIZE.shape, np.uint8)


def test_struct_sizes_and_request_numbers_are_the_kernels_on_64_bit() -> None:
    assert struct.calcsize("P") == 8
    assert calls.VIDIOC_QUERYCAP == 0x80685600
    assert calls.VIDIOC_ENUM_FMT == 0xC0405602
    assert v4l2.VIDIOC_G_FMT == 0xC0D05604
    assert v4l2.VIDIOC_S_FMT == 0xC0D05605
    assert calls.VIDIOC_STREAMON == 0x40045612
    assert v4l2.VIDIOC_G_PARM == 0xC0CC5615
    assert v4l2.VIDIOC_S_PARM == 0xC0CC5616


@pytest.mark.parametrize("version", VERSIONS)
def test_each_picture_reaches_the_device_whole_and_unchanged(
    make: Callable[..., Any], tmp_path: Path, version: str
) -> None:
    driver = make(version=version)
    output = camera(driver, tmp_path)
    output.open()
    output.show(SwappedFrame(picture(1), 0.0))
    output.show(StandbyFrame(picture(2), "standby"))
    output.close()
    assert driver.pictures() == picture(1).tobytes() + picture(2).tobytes()


@pytest.mark.parametrize("version", VERSIONS)
def test_readers_see_the_configured_frame_rate(
    make: Callable[..., Any], tmp_path: Path, version: str
) -> None:
    driver = make(version=version)
    output = camera(driver, tmp_path)
    output.open()
    assert driver.fps[1] == (1, 20)
    output.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_camera_can_be_opened_again_after_a_run(
    make: Callable[..., Any], tmp_path: Path, version: str
) -> None:
    driver = make(version=version)
    for _ in range(2):
        output = camera(driver, tmp_path)
        output.open()
        output.show(SwappedFrame(picture(1), 0.0))
        output.close()
    assert driver.written == 2


def test_without_the_writers_mark_the_fake_shows_the_bug_of_0_12(
    make: Callable[..., Any],
) -> None:
    driver = make(version="0.12.7")
    fd = driver.open("/dev/video0", os.O_RDWR)
    v4l2.set_format(driver, fd, v4l2.i420_format(SIZE))
    driver.write(fd, picture(1).reshape(-1).data)
    driver.close(fd)
    assert driver._caps() == 0


def test_a_stuck_0_12_is_reported_with_the_command_that_fixes_it(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    driver = make(version="0.12.7", ready_for_output=False)
    with pytest.raises(
        CameraUnavailable, match=r"/dev/video0 no longer accepts pictures.*modprobe -r"
    ):
        camera(driver, tmp_path).open()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("state", [(True, False), (False, True)], ids=["fresh", "used"])
def test_a_camera_with_keep_format_is_refused_before_anything_is_set(
    make: Callable[..., Any], tmp_path: Path, version: str, state: tuple[bool, bool]
) -> None:
    output, capture = state
    driver = make(
        version=version, keep_format=True, ready_for_output=output, ready_for_capture=capture
    )
    with pytest.raises(CameraUnavailable, match="keep_format=1") as caught:
        camera(driver, tmp_path).open()
    assert caught.value.hint == "v4l2-ctl -d /dev/video0 -c keep_format=0"
    assert set(driver.requests) == {calls.VIDIOC_QUERYCAP, v4l2.VIDIOC_G_CTRL}
    driver.keep_format, driver.ready_for_output, driver.ready_for_capture = False, True, False
    repaired = camera(driver, tmp_path)
    repaired.open()
    repaired.close()


def test_a_camera_that_another_program_writes_is_left_alone(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    driver = make(version="0.12.7", ready_for_output=False, ready_for_capture=True)
    with pytest.raises(CameraUnavailable, match="another program"):
        camera(driver, tmp_path).open()
    assert set(driver.requests) == {calls.VIDIOC_QUERYCAP, v4l2.VIDIOC_G_CTRL}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_camera_that_browsers_would_not_list_is_refused_with_the_hint(
    make: Callable[..., Any], tmp_path: Path, version: str
) -> None:
    driver = make(version=version, exclusive_caps=False)
    with pytest.raises(CameraUnavailable, match="exclusive_caps=0") as caught:
        camera(driver, tmp_path).open()
    assert "modprobe -r v4l2loopback && sudo modprobe v4l2loopback" in caught.value.hint
    assert driver.written == 0


@pytest.mark.parametrize(
    ("wrong", "version"),
    [*(("keep_format", version) for version in VERSIONS[:2]),
     *(("exclusive_caps", version) for version in VERSIONS)],
)  # fmt: skip
def test_a_camera_that_is_lost_in_a_call_is_reopened_despite_wrong_settings(
    make: Callable[..., Any], tmp_path: Path, wrong: str, version: str
) -> None:
    driver = make(version=version)
    output = camera(driver, tmp_path)
    output.open()
    output.close()
    setattr(driver, wrong, wrong == "keep_format")
    output.open()
    output.show(SwappedFrame(picture(1), 0.0))
    output.close()
    assert driver.pictures() == picture(1).tobytes()
    with pytest.raises(CameraUnavailable, match=wrong):
        camera(driver, tmp_path).open()  # a first opening is refused


@pytest.mark.parametrize("version", VERSIONS)
def test_a_camera_that_is_still_read_is_opened_again_though_it_shows_both_sides(
    make: Callable[..., Any], tmp_path: Path, version: str
) -> None:
    driver = make(version=version, watched_at=(SIZE.width, SIZE.height))
    for _ in range(2):
        output = camera(driver, tmp_path)
        output.open()
        output.show(SwappedFrame(picture(1), 0.0))
        output.close()
    shows_both = driver._caps() == calls.CAP_OUTPUT | calls.CAP_CAPTURE
    assert shows_both is not version.startswith("0.15")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_device_that_stays_at_another_size_is_refused(
    make: Callable[..., Any], tmp_path: Path, version: str
) -> None:
    driver = make(version=version, watched_at=(1280, 720))
    with pytest.raises(CameraUnavailable, match="64x48"):
        camera(driver, tmp_path).open()
    assert driver.written == 0


def test_a_real_camera_is_never_written(make: Callable[..., Any], tmp_path: Path) -> None:
    driver = make(driver=b"uvcvideo", card=b"Integrated Webcam")
    with pytest.raises(CameraUnavailable, match=r"real device \(Integrated Webcam\)"):
        camera(driver, tmp_path).open()
    assert set(driver.requests) == {calls.VIDIOC_QUERYCAP}
    assert driver.written == 0


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOENT, "modprobe v4l2loopback devices=1 exclusive_caps=1 card_label=relayd"),
        (errno.EACCES, "usermod -aG video"),
        (errno.EBUSY, "max_openers"),
        (errno.ENODEV, "modprobe"),
    ],
)
def test_why_the_device_cannot_be_opened_is_reported_with_its_hint(
    make: Callable[..., Any], tmp_path: Path, number: int, text: str
) -> None:
    driver = make(open_error=number)
    with pytest.raises(CameraUnavailable) as caught:
        camera(driver, tmp_path).open()
    assert "/dev/video0" in str(caught.value)
    assert text in str(caught.value)


def test_a_file_that_is_not_a_device_is_refused_by_the_real_kernel(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.write_bytes(b"keep me")
    with pytest.raises(CameraUnavailable, match="not a video device"):
        CameraOutput(str(path), SIZE, 20, sys_root=tmp_path).open()
    assert path.read_bytes() == b"keep me"


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.EIO])
def test_a_failed_write_raises_and_the_camera_comes_back_when_it_can(
    make: Callable[..., Any], tmp_path: Path, number: int
) -> None:
    driver = make()
    output = camera(driver, tmp_path)
    output.open()
    driver.write_error = number
    with pytest.raises(CameraUnavailable, match="refused a picture"):
        output.show(SwappedFrame(picture(1), 0.0))
    driver.write_error = 0
    output.close()
    output.open()
    output.show(SwappedFrame(picture(2), 0.0))
    output.close()
    assert driver.pictures() == picture(2).tobytes()


def test_a_short_write_raises(make: Callable[..., Any], tmp_path: Path) -> None:
    driver = make(write_limit=100)
    output = camera(driver, tmp_path)
    output.open()
    with pytest.raises(CameraUnavailable, match="100 of 4608 bytes"):
        output.show(SwappedFrame(black(SIZE), 0.0))
    output.close()


def device(
    path: str, *, label: Any = "Dummy", loopback: Any = True, output: Any = True
) -> VideoDevice:
    return VideoDevice(
        path, label, "v4l2 loopback" if loopback else "uvcvideo", loopback, output, not output,
        (), 0.0, readable=True, writable=True, problem="",
    )  # fmt: skip


def test_auto_takes_the_one_labelled_relayd_and_never_a_real_camera() -> None:
    real = device("/dev/video0", label="relayd", loopback=False)
    other, own = device("/dev/video4"), device("/dev/video7", label="relayd")
    busy = device("/dev/video2", label="relayd", output=False)
    assert find_device([real, busy, other, own]) == "/dev/video7"
    assert find_device([real, busy, other]) == "/dev/video4"
    assert find_device([real, busy]) == "/dev/video2"
    with pytest.raises(CameraUnavailable, match="modprobe"):
        find_device([real])


@pytest.mark.parametrize("is_installed", [True, False])
def test_the_hint_leaves_the_options_of_an_installed_relayd_alone(
    is_installed: bool,  # noqa: FBT001 - both cases
    make: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = tmp_path / "relayd.conf"
    if is_installed:
        options.touch()
    monkeypatch.setattr(device_choice, "OPTIONS_FILE", options)
    fixes = []
    for driver in (make(version="0.12.7", ready_for_output=False), make(open_error=errno.ENODEV)):
        with pytest.raises(CameraUnavailable) as caught:
            camera(driver, tmp_path).open()
        fixes.append(caught.value.hint)
    with pytest.raises(CameraUnavailable) as caught:
        find_device([])
    for hint in [*fixes, caught.value.hint]:
        assert "sudo modprobe v4l2loopback" in hint
        assert ("devices=1" in hint) is not is_installed


def test_a_label_selects_the_loopback_with_it_and_never_a_real_camera() -> None:
    real = device("/dev/video0", label="studio", loopback=False)
    first, second = device("/dev/video2", label="studio", output=False), device("/dev/video3")
    assert find_device([real, second, first], "studio") == "/dev/video2"
    spare = device("/dev/video4", label="studio")
    assert find_device([real, first, spare], "studio") == "/dev/video4"
    with pytest.raises(CameraUnavailable, match=r'labelled "studio"; existing labels: "Dummy"'):
        find_device([real, second], "studio")
    with pytest.raises(CameraUnavailable, match="existing labels: none"):
        find_device([], "studio")


def test_a_label_longer_than_the_kernel_keeps_matches_the_truncated_label() -> None:
    wanted = "a camera with a name that is rather long"
    assert find_device([device("/dev/video2", label=wanted[:31])], wanted) == "/dev/video2"


def test_a_camera_chosen_by_label_is_named_by_its_path_once_opened(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    driver = make()
    output = camera(
        driver, tmp_path, "studio", list_devices=lambda: [device("/dev/video0", label="studio")]
    )
    assert output.name == "studio"
    output.open()
    assert output.name == "/dev/video0"
    output.close()
    assert output.name == "/dev/video0"


def test_devices_are_listed_with_what_is_wrong_with_each(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    driver = make(path=str(tmp_path / "dev/video0"), size=(640, 480))
    for name, label in {"video10": "Locked", "video0": "relayd", "v4l-subdev0": "x"}.items():
        entry = tmp_path / "class/video4linux" / name
        entry.mkdir(parents=True)
        (entry / "name").write_text(label + "\n")
    (tmp_path / "class/video4linux/video10/max_openers").write_text("10\n")
    first, second = devices.list_devices(tmp_path, tmp_path / "dev", driver)
    assert (first.label, first.is_loopback, first.can_output) == ("relayd", True, True)
    assert first.formats == ("YU12 640x480",)
    assert first.fps == 30
    assert first.problem == ""
    assert (second.label, second.is_loopback, second.can_output) == ("Locked", True, False)
    assert second.problem == "No such file or directory"
    assert not second.writable


@pytest.mark.parametrize("version", ["0.12.7", "0.13.2"])
def test_a_camera_that_was_never_written_to_is_listed_without_a_format(
    make: Callable[..., Any], tmp_path: Path, version: str
) -> None:
    driver = make(version=version, path=str(tmp_path / "dev/video0"))
    (tmp_path / "class/video4linux/video0").mkdir(parents=True)
    (found,) = devices.list_devices(tmp_path, tmp_path / "dev", driver)
    assert found.formats == ()


def test_no_video_devices_return_an_empty_list(tmp_path: Path) -> None:
    assert devices.list_devices(tmp_path) == []
    assert devices.module_version(tmp_path) == ""


def test_the_modules_version_is_read(tmp_path: Path) -> None:
    assert devices.module_version(sys_tree(tmp_path, "0.13.2")) == "0.13.2"


def test_a_loaded_module_without_a_version_is_an_old_one(tmp_path: Path) -> None:
    assert devices.module_version(sys_tree(tmp_path, "0.12.7")) == "0.12 or older"
