"""Counting openings: real files, real processes, and a /sys of our own."""

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
    """A /sys whose loopback devices are char devices that exist: /dev/null and its kin."""
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


def test_another_process_that_has_it_open_is_seen_by_whatever_path(tmp_path: Path) -> None:
    file, link = tmp_path / "video0", tmp_path / "by-name"
    file.touch()
    link.symlink_to(file)
    device_use = DeviceUse(str(link))
    assert device_use.visible() == Visible()
    with held_by_another(file):
        assert device_use.visible() == Visible(here=1)
    assert device_use.visible() == Visible()


def test_our_own_openings_are_none_of_others(tmp_path: Path) -> None:
    file = tmp_path / "video0"
    file.touch()
    with file.open():
        assert DeviceUse(str(file)).visible() == Visible()


def test_the_modules_use_count_less_our_own_openings_are_those_of_others(tmp_path: Path) -> None:
    device_use = DeviceUse("/dev/full", sys_root=sys_tree(tmp_path, "3", "/dev/full", "/dev/ptmx"))
    assert device_use.total() == 3
    with Path("/dev/full").open("wb"):
        assert device_use.total() == 2


def test_the_other_devices_that_share_the_use_count_are_named(tmp_path: Path) -> None:
    root = sys_tree(tmp_path, "0", "/dev/full", "/dev/ptmx")
    assert DeviceUse("/dev/full", sys_root=root).siblings() == {"/dev/video1"}
    assert DeviceUse("/dev/ptmx", sys_root=root).siblings() == {"/dev/video0"}


def test_those_seen_on_the_other_devices_are_counted_apart(tmp_path: Path) -> None:
    root = sys_tree(tmp_path, "0", "/dev/full", "/dev/zero")
    device_use = DeviceUse("/dev/full", sys_root=root)
    before = device_use.visible()
    with held_by_another("/dev/zero"):
        assert device_use.visible() == Visible(before.here, before.elsewhere + 1)


def test_a_use_count_during_which_we_opened_a_device_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sys_tree(tmp_path, "2", "/dev/full")
    device_use = DeviceUse("/dev/full", sys_root=root)
    own = iter([0, 1, 1, 1])
    monkeypatch.setattr(DeviceUse, "_own", lambda *_: next(own))
    assert device_use.total() == 1


@pytest.mark.parametrize("refcnt", ["", "many"])
def test_without_a_use_count_nothing_is_told(tmp_path: Path, refcnt: str) -> None:
    root = sys_tree(tmp_path, refcnt, "/dev/full")
    assert DeviceUse("/dev/full", sys_root=root).total() is None


def test_a_count_of_another_driver_tells_nothing(tmp_path: Path) -> None:
    root = sys_tree(tmp_path, "0", "/dev/full")
    assert DeviceUse("/dev/ptmx", sys_root=root).total() is None


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        DeviceUse("/dev/video-that-is-not-there")


LOCK = HOLD.replace("print(", "import fcntl; fcntl.flock(held, fcntl.LOCK_EX); print(")


@pytest.mark.parametrize("other", ["hidden", "seen"])
def test_a_relay_that_lets_nobody_look_is_seen_by_its_lock_and_no_other_twice(
    tmp_path: Path, other: str
) -> None:
    """The device of another relay counts once, whether we may look into that relay or not."""
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
