"""Counting open files: real files, real processes, and a fake /sys."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relayd.output.device_use import DeviceUse, Visible

HOLD = "import sys; held = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


@contextmanager
def held_by_another(path: Path | str, script: str = HOLD) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def sys_tree(folder: Path, refcnt: str, *devices: str) -> Path:
    """Create a /sys whose loopback devices are existing character devices such as /dev/null."""
    (folder / "module/v4l2loopback").mkdir(parents=True)
    (folder / "module/v4l2loopback/refcnt").write_text(refcnt + "\n")
    for number, device in enumerate(devices):
        entry = folder / f"class/video4linux/video{number}"
        entry.mkdir(parents=True)
        (entry / "max_openers").write_text("10\n")
        found = Path(device).stat().st_rdev
        (entry / "dev").write_text(f"{os.major(found)}:{os.minor(found)}\n")
    webcam = folder / "class/video4linux/video9"
    webcam.mkdir(parents=True)
    (webcam / "dev").write_text("81:9\n")
    return folder


def test_another_process_that_has_it_open_is_seen_through_any_path(tmp_path: Path) -> None:
    file, link = tmp_path / "video0", tmp_path / "by-name"
    file.touch()
    link.symlink_to(file)
    device_use = DeviceUse(str(link))
    assert device_use.visible() == Visible()
    with held_by_another(file):
        assert device_use.visible() == Visible(here=1)
    assert device_use.visible() == Visible()


def test_our_own_open_files_are_not_counted(tmp_path: Path) -> None:
    file = tmp_path / "video0"
    file.touch()
    with file.open():
        assert DeviceUse(str(file)).visible() == Visible()


def test_the_total_is_the_modules_use_count_minus_our_own_open_files(tmp_path: Path) -> None:
    device_use = DeviceUse("/dev/full", sys_root=sys_tree(tmp_path, "3", "/dev/full", "/dev/ptmx"))
    assert device_use.total() == 3
    with Path("/dev/full").open("wb"):
        assert device_use.total() == 2


def test_the_other_devices_that_share_the_use_count_are_named(tmp_path: Path) -> None:
    root = sys_tree(tmp_path, "0", "/dev/full", "/dev/ptmx")
    assert DeviceUse("/dev/full", sys_root=root).siblings() == {"/dev/video1"}
    assert DeviceUse("/dev/ptmx", sys_root=root).siblings() == {"/dev/video0"}


def test_open_files_of_other_devices_are_counted_separately(tmp_path: Path) -> None:
    root = sys_tree(tmp_path, "0", "/dev/full", "/dev/zero")
    device_use = DeviceUse("/dev/full", sys_root=root)
    before = device_use.visible()
    with held_by_another("/dev/zero"):
        assert device_use.visible() == Visible(before.here, before.elsewhere + 1)


def test_a_use_count_during_which_we_opened_a_device_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sys_tree(tmp_path, "2", "/dev/full")
    device_use = DeviceUse("/dev/full", sys_root=root)
    own = iter([0, 1, 1, 1])
    monkeypatch.setattr(DeviceUse, "_own", lambda *_: next(own))
    assert device_use.total() == 1


@pytest.mark.parametrize("refcnt", ["", "many"])
def test_without_a_use_count_there_is_no_total(tmp_path: Path, refcnt: str) -> None:
    root = sys_tree(tmp_path, refcnt, "/dev/full")
    assert DeviceUse("/dev/full", sys_root=root).total() is None


def test_another_drivers_device_has_no_total(tmp_path: Path) -> None:
    root = sys_tree(tmp_path, "0", "/dev/full")
    assert DeviceUse("/dev/ptmx", sys_root=root).total() is None


def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        DeviceUse("/dev/video-that-is-not-there")


LOCK = HOLD.replace("print(", "import fcntl; fcntl.flock(held, fcntl.LOCK_EX); print(")


@pytest.mark.parametrize("other", ["hidden", "seen"])
def test_a_relay_that_cannot_be_inspected_is_seen_by_its_lock_and_counted_once(
    tmp_path: Path, other: str
) -> None:
    """The device of another relay counts once, whether we may inspect that relay or not."""
    root = sys_tree(tmp_path / "sys", "0", "/dev/full", "/dev/zero")
    (tmp_path / "dev").mkdir()
    for number, device in enumerate(("/dev/full", "/dev/zero")):
        (tmp_path / f"dev/video{number}").symlink_to(device)
    proc = Path("/proc")
    if other == "hidden":
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "locks").symlink_to("/proc/locks")
    device_use = DeviceUse("/dev/full", sys_root=root, proc_root=proc, dev_root=tmp_path / "dev")
    before = device_use.visible()
    with held_by_another("/dev/zero", LOCK):
        assert device_use.visible() == Visible(before.here, before.elsewhere + 1)
    with held_by_another("/dev/full", LOCK):
        assert device_use.visible() == Visible(before.here + 1, before.elsewhere)
