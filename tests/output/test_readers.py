"""Counting a camera's readers: events of a fake driver, openings with the real inotify."""

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from relayd.errors import CameraUnavailable
from relayd.media.frames import StandbyFrame
from relayd.output import open_tracker, readers, v4l2
from relayd.output.device_use import DeviceUse, Visible
from relayd.output.inotify import FileEvent, FileWatch
from relayd.output.open_tracker import PROBE, RECOUNT_INTERVAL, SETTLE, SETTLE_LIMIT, OpenTracker
from relayd.output.readers import ClientUsage, ReadersWatch, WatchedCamera, best_reader_counter

SOON = 2.0  # s


class Reported:
    """The counts that a watch reported."""

    def __init__(self) -> None:
        self.counts: list[int | None] = []
        self._changed = threading.Condition()

    def __call__(self, count: int | None) -> None:
        with self._changed:
            self.counts.append(count)
            self._changed.notify_all()

    def wait_for(self, *counts: int | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.counts == list(counts), SOON)
        assert self.counts == list(counts)


class FakeDeviceUse:
    """A device use with the numbers that the test sets."""

    def __init__(
        self, total: int | None = None, visible: Visible | None = None, *siblings: str
    ) -> None:
        self.now_total, self.now_visible = total, visible or Visible()
        self.now_siblings = frozenset(siblings)

    def total(self) -> int | None:
        return self.now_total

    def siblings(self) -> frozenset[str]:
        return self.now_siblings

    def visible(self) -> Visible:
        return self.now_visible


@pytest.fixture
def node(tmp_path: Path) -> Path:
    file = tmp_path / "video0"
    file.touch()
    return file


@pytest.fixture
def sibling(tmp_path: Path) -> Path:
    file = tmp_path / "video1"
    file.touch()
    return file


@pytest.fixture
def make_tracker(node: Path) -> Iterator[Callable[..., OpenTracker]]:
    made: list[OpenTracker] = []

    def make(*device_use: Any) -> OpenTracker:
        counted = FakeDeviceUse(*device_use)
        made.append(OpenTracker(str(node), 100.0, cast("DeviceUse", counted)))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


def counts(tracker: OpenTracker, total: int | None, **visible: int) -> None:
    """Set the module's use count to `total`, and what /proc shows."""
    device_use = cast("FakeDeviceUse", tracker._device_use)
    device_use.now_total, device_use.now_visible = total, Visible(**visible)


def settled(tracker: OpenTracker, at: float) -> int | None:
    """Count at `at`, again once it has settled, and once everything has lasted long enough."""
    for moment in (at, at + SETTLE, at + SETTLE + PROBE):
        readers = tracker.count(moment)
    return readers


# The kernel's events of a file


def test_opening_and_closing_are_reported_in_order_and_writing_is_not(node: Path) -> None:
    watch = FileWatch(str(node))
    for how in (os.O_RDONLY, os.O_RDWR):
        fd = os.open(node, how)
        if how == os.O_RDWR:
            os.write(fd, b"a picture")
            os.write(fd, b"a picture")
        assert watch.read() == [FileEvent.OPENED]
        os.close(fd)
        assert watch.read() == [FileEvent.CLOSED]
    assert watch.read() == []
    watch.close()


def test_a_deleted_file_is_reported(node: Path) -> None:
    watch = FileWatch(str(node))
    node.unlink()
    assert FileEvent.GONE in watch.read()
    watch.close()


def test_a_missing_file_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileWatch(str(tmp_path / "none"))


# Counting openings


def test_a_program_that_has_it_open_for_a_second_is_a_reader(
    node: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker()
    assert tracker.count(100.0) == 0
    with node.open():
        assert tracker.count(101.0) == 0
        assert tracker.due(101.0) == pytest.approx(PROBE)
        assert tracker.count(101.5) == 0
        assert tracker.due(101.5) == pytest.approx(0.5)
        assert tracker.count(102.0) == 1
    assert tracker.count(102.1) == 0
    assert tracker.due(102.1) == RECOUNT_INTERVAL


def test_a_probe_is_not_a_reader_and_hides_none(
    node: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker()
    with node.open():
        tracker.count(100.0)
        assert tracker.count(102.0) == 1
        for moment in (103.0, 103.7, 104.4):
            with node.open():
                assert tracker.count(moment) == 1
            assert tracker.count(moment + 0.3) == 1
    assert tracker.count(105.0) == 0


def test_a_probe_alone_is_never_a_reader(
    node: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker()
    for number in range(20):
        with node.open():
            assert tracker.count(100.0 + number) == 0
        assert tracker.count(100.9 + number) == 0


def test_a_program_that_had_it_open_before_is_a_reader_unless_it_was_a_probe(
    make_tracker: Callable[..., OpenTracker],
) -> None:
    for tracker in (make_tracker(None, Visible(here=1)), make_tracker(1)):
        assert tracker.count(100.0) == 0
        assert tracker.count(100.0 + PROBE) == 1


def test_merged_closings_leave_no_reader_behind(
    node: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(0)
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    counts(tracker, 2)
    assert settled(tracker, 101.0) == 2
    for fd in fds:
        os.close(fd)  # two in a row: the kernel reports one
    counts(tracker, 0)
    assert settled(tracker, 104.0) == 0


# With a second device that shares the use count


def test_merged_closings_leave_no_reader_behind_while_another_device_is_written(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(1, Visible(elsewhere=1), str(sibling))
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    counts(tracker, 3)  # and from now on /proc shows nothing
    assert settled(tracker, 101.0) == 2
    for fd in fds:
        os.close(fd)
    counts(tracker, 1)
    assert settled(tracker, 104.0) == 0


def test_merged_openings_lose_no_reader_while_another_device_is_written(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(1, Visible(elsewhere=1), str(sibling))
    with node.open():
        probe = os.open(node, os.O_RDONLY)
        counts(tracker, 3)
        assert settled(tracker, 101.0) == 2
        os.close(probe)
        counts(tracker, 2)
        assert settled(tracker, 104.0) == 1


def test_a_program_that_opens_another_device_is_not_a_reader_of_this_one(
    sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(0, None, str(sibling))
    with sibling.open():
        counts(tracker, 1)
        assert settled(tracker, 101.0) == 0


def test_both_devices_opened_at_once_are_counted_if_the_events_add_up(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(0, None, str(sibling))
    with node.open(), sibling.open():
        counts(tracker, 2)
        assert settled(tracker, 101.0) == 1
        with node.open(), node.open(), sibling.open():
            counts(tracker, 5)  # one of four tracker is not reported: it may be on either
            assert settled(tracker, 104.0) is None


def test_a_hidden_reader_from_before_the_start_is_unknown_and_not_zero(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    before = node.open()
    tracker = make_tracker(1, None, str(sibling))
    assert tracker.count(100.0) == 0
    assert tracker.count(100.0 + PROBE) is None
    with node.open():
        counts(tracker, 2)
        assert settled(tracker, 102.0) is None
        before.close()
        counts(tracker, 1)
        assert settled(tracker, 104.0) is None
    counts(tracker, 0)
    assert settled(tracker, 106.0) == 0


def test_the_count_is_known_again_when_one_possibility_is_left(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    before = node.open()
    tracker = make_tracker(1, None, str(sibling))
    assert settled(tracker, 100.0) is None
    before.close()
    counts(tracker, 0)
    assert settled(tracker, 102.0) == 0
    with node.open():
        counts(tracker, 1)
        assert settled(tracker, 104.0) == 1


def test_proc_decides_if_it_shows_all_and_is_read_again(
    sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(2, Visible(here=1), str(sibling))
    assert settled(tracker, 100.0) is None
    counts(tracker, 2, here=1, elsewhere=1)
    tracker.count(100.0 + open_tracker.PROC_INTERVAL)
    assert tracker.count(100.0 + open_tracker.PROC_INTERVAL + PROBE) == 1


def test_programs_that_proc_shows_are_counted_on_their_device(
    sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    assert settled(make_tracker(5, Visible(2, 3), str(sibling)), 100.0) == 2


def test_a_count_during_a_change_is_not_trusted(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(1, Visible(elsewhere=1), str(sibling))
    with node.open():
        counts(tracker, 2)
        assert settled(tracker, 101.0) == 1
        counts(tracker, 1)
        assert tracker.count(103.0) == 1
        assert tracker.due(103.0) == SETTLE
        counts(tracker, 2)
        assert settled(tracker, 103.1) == 1


def test_constant_openings_do_not_keep_the_count_from_being_corrected(
    node: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(0)
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    counts(tracker, 2)
    assert settled(tracker, 101.0) == 2
    os.close(fds[0])
    os.close(fds[1])
    counts(tracker, 0)
    for tenth in range(round(SETTLE_LIMIT * 10) + 1):
        node.open().close()
        last = tracker.count(104.0 + tenth / 10)
    assert last == 0


def test_an_opening_through_an_unknown_node_makes_the_count_unknown(
    sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(0, None, str(sibling))
    counts(tracker, 1)
    assert settled(tracker, 101.0) is None
    counts(tracker, 0)
    assert settled(tracker, 104.0) == 0


def test_a_contradiction_restarts_the_count(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(1, Visible(elsewhere=1), str(sibling))
    node.open().close()
    counts(tracker, 0)  # the other device's writer left through an unknown node
    assert settled(tracker, 101.0) == 0


def test_an_opening_shared_by_processes_is_not_counted_twice(
    node: Path, sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(3, Visible(here=2), str(sibling))
    assert (tracker._least, tracker._most) == (1, 3)
    assert settled(tracker, 100.0) is None
    tracker = make_tracker(3, Visible(elsewhere=2), str(sibling))
    assert (tracker._least, tracker._most) == (0, 2)


def test_lost_events_on_both_devices_are_not_attributed_to_one() -> None:
    changes = partial(open_tracker._Changes, here=1, elsewhere=1, any_here=True, any_elsewhere=True)
    assert changes().share(2) == 1
    assert changes(missed=True).share(2) is None


def test_another_device_that_cannot_be_watched_does_not_affect_events_of_this_one(
    node: Path, tmp_path: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(0, None, str(tmp_path / "not in this container"))
    with node.open():
        counts(tracker, 1)
        assert settled(tracker, 101.0) == 1
        with node.open(), node.open():
            counts(tracker, 3)  # two merged, or one and one elsewhere
            assert settled(tracker, 104.0) is None


def test_a_watch_that_fails_half_way_leaves_nothing_open(
    node: Path,
    sibling: Path,
    make_tracker: Callable[..., OpenTracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(watch: FileWatch, path: str) -> None:
        if path == str(sibling):
            raise OSError(errno.EMFILE, "Too many open files")
        really(watch, path)

    really = FileWatch.__init__
    monkeypatch.setattr(FileWatch, "__init__", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Too many"):
        make_tracker(0, None, str(sibling))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_device_that_is_added_or_removed_ends_the_counter(
    sibling: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    tracker = make_tracker(0)
    cast("Any", tracker._device_use).now_siblings = frozenset([str(sibling)])
    with pytest.raises(FileNotFoundError):
        tracker.count(101.0)


def test_two_closings_in_a_row_are_merged_by_the_kernel(node: Path) -> None:
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    watch = FileWatch(str(node))
    for fd in fds:
        os.close(fd)
    assert watch.read() == [FileEvent.CLOSED]
    watch.close()


def test_a_program_that_opened_another_node_of_the_device_is_counted_by_the_module(
    make_tracker: Callable[..., OpenTracker],
) -> None:
    tracker = make_tracker(0)
    counts(tracker, 1)
    assert tracker.count(101.0) == 0
    assert settled(tracker, 101.1) == 1


def test_after_a_queue_overflow_it_is_counted_again(
    make_tracker: Callable[..., OpenTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = make_tracker()
    counts(tracker, None, here=3)
    monkeypatch.setattr(FileWatch, "read", lambda _self: [FileEvent.MISSED])
    assert tracker.count(101.0) == 0
    monkeypatch.setattr(FileWatch, "read", lambda _self: [])
    assert tracker.count(101.0 + PROBE) == 3


def test_a_closing_that_was_never_counted_changes_nothing(
    node: Path, make_tracker: Callable[..., OpenTracker]
) -> None:
    unseen = node.open()
    tracker = make_tracker()
    unseen.close()
    assert tracker.count(101.0) == 0
    with node.open():
        tracker.count(102.0)
        assert tracker.count(102.0 + PROBE) == 1


# The driver's own count


@pytest.mark.parametrize("version", ["0.13.2", "0.15.0"])
def test_the_drivers_count_is_read_at_the_start_and_at_each_change(
    make: Callable[..., Any], version: str
) -> None:
    driver = make(version=version, readers=1)
    usage = ClientUsage("/dev/video0", driver)
    assert usage.count(0.0) == 1
    assert usage.count(0.0) == 1
    driver.stream_to(0)
    assert usage.count(0.0) == 0
    assert usage.due(0.0) is None
    usage.close()


def test_nothing_stays_open_on_a_driver_without_the_event(make: Callable[..., Any]) -> None:
    driver = make(version="0.12.7")
    with pytest.raises(OSError, match="Invalid"):
        ClientUsage("/dev/video0", driver)
    assert not driver.fds


def test_the_structs_of_events_are_the_kernels() -> None:
    assert v4l2.VIDIOC_DQEVENT == 0x80885659
    assert v4l2.VIDIOC_SUBSCRIBE_EVENT == 0x4020565A


def test_the_event_is_preferred_to_counting(make: Callable[..., Any], node: Path) -> None:
    new, old = make(path=str(node)), make(path=str(node), version="0.12.7")
    first, second = (
        best_reader_counter(str(node), new, 0.0),
        best_reader_counter(str(node), old, 0.0),
    )
    assert (type(first), type(second)) == (ClientUsage, OpenTracker)
    first.close()
    second.close()


# The actor


def test_each_change_of_the_event_is_reported_promptly(make: Callable[..., Any]) -> None:
    driver, reported = make(), Reported()
    watch = ReadersWatch("/dev/video0", reported, system=driver)
    watch.start()
    reported.wait_for(0)
    began = time.monotonic()
    driver.stream_to(1)
    reported.wait_for(0, 1)
    assert time.monotonic() - began < 0.5
    driver.stream_to(0)
    reported.wait_for(0, 1, 0)
    watch.stop()
    assert not driver.fds


def test_openings_are_reported_by_the_actor_on_a_driver_without_the_event(
    make: Callable[..., Any], node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_tracker, "PROBE", 0.2)
    driver, reported = make(path=str(node), version="0.12.7"), Reported()
    watch = ReadersWatch(str(node), reported, system=driver)
    watch.start()
    reported.wait_for(0)
    with node.open():
        pass
    with node.open():
        began = time.monotonic()
        reported.wait_for(0, 1)
        assert time.monotonic() - began > 0.15
    reported.wait_for(0, 1, 0)
    watch.stop()


def test_readers_that_cannot_be_counted_are_reported_as_unknown(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "UNKNOWN_AFTER", 0.0)
    path, reported = str(tmp_path / "none"), Reported()
    watch = ReadersWatch(path, reported, system=make(path=path, version="0.12.7"))
    watch.start()
    reported.wait_for(None)
    watch.stop()


def test_a_removed_device_makes_its_readers_unknown_after_a_while_and_not_before(
    make: Callable[..., Any], node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "RETRY", 0.1)
    monkeypatch.setattr(readers, "UNKNOWN_AFTER", 0.5)
    reported = Reported()
    watch = ReadersWatch(str(node), reported, system=make(path=str(node), version="0.12.7"))
    watch.start()
    reported.wait_for(0)
    node.unlink()
    began = time.monotonic()
    reported.wait_for(0, None)
    assert time.monotonic() - began > 0.4
    node.touch()
    reported.wait_for(0, None, 0)
    watch.stop()


def test_a_short_failure_is_recovered_and_nothing_is_reported(
    make: Callable[..., Any], node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "RETRY", 0.05)
    monkeypatch.setattr(
        readers, "UNKNOWN_AFTER", 0.4
    )  # shorter than the pause between two failures
    monkeypatch.setattr(open_tracker, "PROBE", 0.1)
    reported = Reported()
    watch = ReadersWatch(str(node), reported, system=make(path=str(node), version="0.12.7"))
    watch.start()
    reported.wait_for(0)
    for _ in range(2):
        node.unlink()
        node.touch()
        time.sleep(0.5)
        assert reported.counts == [0]
    with node.open():
        reported.wait_for(0, 1)
    watch.stop()


class BrokenCounter:
    """A counter that fails unexpectedly, and records whether it was closed."""

    mask = select.POLLIN
    description = "not at all"

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.open = True

    def fileno(self) -> int:
        return self.read_end

    def count(self, now: float) -> int | None:
        raise ValueError("unexpected")

    def due(self, now: float) -> float | None:
        return None

    def close(self) -> None:
        self.open = False
        os.close(self.read_end)
        os.close(self.write_end)


def test_an_unexpected_error_makes_readers_unknown_and_closes_the_counter(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "UNKNOWN_AFTER", 0.0)
    reported, broken = Reported(), BrokenCounter()
    watch = ReadersWatch("/dev/video0", reported, open_counter=lambda *_: broken, system=make())
    watch.start()
    reported.wait_for(None)
    watch.stop()
    assert not broken.open


@pytest.mark.parametrize("lacking", ["descriptors", "threads"])
def test_a_watch_that_cannot_start_leaves_the_camera_working_and_nothing_open(
    lacking: str, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    if lacking == "descriptors":
        monkeypatch.setattr(os, "eventfd", refuse)
    else:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    reports: list[tuple[str, int | None]] = []
    driver = make()
    output = WatchedCamera(
        Camera([]),
        lambda *what: reports.append(what),
        lambda path, report: ReadersWatch(path, report, system=driver),
    )
    before = list(Path("/proc/self/fd").iterdir())
    output.open()
    assert reports == [("/dev/video7", None)]
    output.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
    assert not driver.fds


class Camera:
    """A camera that records its calls."""

    def __init__(self, calls: list[str]) -> None:
        self.name = "auto"
        self.calls = calls
        self.broken = False

    def open(self) -> None:
        if self.broken:
            raise CameraUnavailable("gone")
        self.name = "/dev/video7"
        self.calls.append("camera open")

    def show(self, frame: object) -> None:
        self.calls.append("shown")

    def close(self) -> None:
        self.name = "auto"
        self.calls.append("camera closed")


class Watch:
    def __init__(self, path: str, report: Callable[[int | None], None], calls: list[str]) -> None:
        self.path, self.report, self.calls = path, report, calls

    def start(self) -> None:
        self.calls.append(f"watch {self.path}")
        self.report(1)

    def stop(self) -> None:
        self.calls.append("watch ended")


def test_a_camera_is_watched_from_its_opening_to_before_its_closing() -> None:
    calls: list[str] = []
    reports: list[tuple[str, int | None]] = []
    output = WatchedCamera(
        Camera(calls),
        lambda *what: reports.append(what),
        lambda path, report: cast("ReadersWatch", Watch(path, report, calls)),
    )
    output.open()
    assert output.name == "/dev/video7"
    output.show(StandbyFrame(np.zeros((3, 2), np.uint8), "standby"))
    output.close()
    output.close()
    assert calls == [
        "camera open", "watch /dev/video7", "shown", "watch ended", "camera closed",
        "camera closed",
    ]  # fmt: skip
    assert reports == [("/dev/video7", 1), ("/dev/video7", 0)]


def test_a_camera_that_cannot_be_opened_is_not_watched() -> None:
    calls: list[str] = []
    camera = Camera(calls)
    camera.broken = True
    output = WatchedCamera(camera, lambda *_what: None)
    with pytest.raises(CameraUnavailable):
        output.open()
    output.close()
    assert calls == ["camera closed"]


def test_the_fakes_event_rings_as_the_kernels_would(make: Callable[..., Any]) -> None:
    driver = make()
    fd = driver.open("/dev/video0", os.O_RDONLY | os.O_NONBLOCK)
    v4l2.subscribe_client_usage(driver, fd)
    assert v4l2.next_client_usage(driver, fd) == 0
    assert v4l2.next_client_usage(driver, fd) is None
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        v4l2.subscribe_client_usage(make(version="0.12.7"), fd)
    assert caught.value.errno == errno.EINVAL
    driver.close(fd)
