"""Who looks at a camera: the driver's event by its double, openings by the real inotify."""

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


class Heard:
    """What a watch told, and when."""

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


class CountedElsewhere:
    """A device use that says what the test says."""

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
def openings_of(node: Path) -> Iterator[Callable[..., OpenTracker]]:
    made: list[OpenTracker] = []

    def make(*device_use: Any) -> OpenTracker:
        counted = CountedElsewhere(*device_use)
        made.append(OpenTracker(str(node), 100.0, cast("DeviceUse", counted)))
        return made[-1]

    yield make
    for openings in made:
        openings.close()


def counts(openings: OpenTracker, total: int | None, **visible: int) -> None:
    """Let the module's use count be `total`, and /proc show this."""
    device_use = cast("CountedElsewhere", openings._device_use)
    device_use.now_total, device_use.now_visible = total, Visible(**visible)


def settled(openings: OpenTracker, at: float) -> int | None:
    """Look at `at`, once more when nothing moves any more, and once all of it has lasted."""
    for moment in (at, at + SETTLE, at + SETTLE + PROBE):
        readers = openings.count(moment)
    return readers


# The kernel's word on a file


def test_opening_and_closing_are_told_in_their_order_and_writing_is_not(node: Path) -> None:
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


def test_a_file_that_is_deleted_is_told(node: Path) -> None:
    watch = FileWatch(str(node))
    node.unlink()
    assert FileEvent.GONE in watch.read()
    watch.close()


def test_a_file_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileWatch(str(tmp_path / "none"))


# Counting openings


def test_who_has_it_open_for_a_second_is_a_reader(
    node: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of()
    assert openings.count(100.0) == 0
    with node.open():
        assert openings.count(101.0) == 0
        assert openings.due(101.0) == pytest.approx(PROBE)
        assert openings.count(101.5) == 0
        assert openings.due(101.5) == pytest.approx(0.5)
        assert openings.count(102.0) == 1
    assert openings.count(102.1) == 0
    assert openings.due(102.1) == RECOUNT_INTERVAL


def test_a_probe_is_no_reader_and_hides_none(
    node: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of()
    with node.open():
        openings.count(100.0)
        assert openings.count(102.0) == 1
        for moment in (103.0, 103.7, 104.4):
            with node.open():
                assert openings.count(moment) == 1
            assert openings.count(moment + 0.3) == 1
    assert openings.count(105.0) == 0


def test_a_probe_alone_is_never_a_reader(
    node: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of()
    for number in range(20):
        with node.open():
            assert openings.count(100.0 + number) == 0
        assert openings.count(100.9 + number) == 0


def test_who_had_it_open_before_we_came_is_a_reader_unless_it_was_a_probe(
    openings_of: Callable[..., OpenTracker],
) -> None:
    for openings in (openings_of(None, Visible(here=1)), openings_of(1)):
        assert openings.count(100.0) == 0
        assert openings.count(100.0 + PROBE) == 1


def test_closings_told_as_one_leave_no_reader_that_is_not_there(
    node: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(0)
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    counts(openings, 2)
    assert settled(openings, 101.0) == 2
    for fd in fds:
        os.close(fd)  # two in a row: the kernel tells one
    counts(openings, 0)
    assert settled(openings, 104.0) == 0


# With a second device, whose openings the same use count counts


def test_closings_told_as_one_leave_no_reader_while_another_device_is_written(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(1, Visible(elsewhere=1), str(sibling))
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    counts(openings, 3)  # and from now on /proc shows nothing
    assert settled(openings, 101.0) == 2
    for fd in fds:
        os.close(fd)
    counts(openings, 1)
    assert settled(openings, 104.0) == 0


def test_openings_told_as_one_lose_no_reader_while_another_device_is_written(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(1, Visible(elsewhere=1), str(sibling))
    with node.open():
        probe = os.open(node, os.O_RDONLY)
        counts(openings, 3)
        assert settled(openings, 101.0) == 2
        os.close(probe)
        counts(openings, 2)
        assert settled(openings, 104.0) == 1


def test_who_opens_another_device_is_no_reader_of_this_one(
    sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(0, None, str(sibling))
    with sibling.open():
        counts(openings, 1)
        assert settled(openings, 101.0) == 0


def test_both_devices_being_opened_at_once_is_told_where_it_adds_up(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(0, None, str(sibling))
    with node.open(), sibling.open():
        counts(openings, 2)
        assert settled(openings, 101.0) == 1
        with node.open(), node.open(), sibling.open():
            counts(openings, 5)  # one of four openings is not told: it may be anybody's
            assert settled(openings, 104.0) is None


def test_a_hidden_reader_that_was_there_before_us_is_unknown_and_not_nobody(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    before = node.open()
    openings = openings_of(1, None, str(sibling))
    assert openings.count(100.0) == 0
    assert openings.count(100.0 + PROBE) is None
    with node.open():
        counts(openings, 2)
        assert settled(openings, 102.0) is None
        before.close()
        counts(openings, 1)
        assert settled(openings, 104.0) is None
    counts(openings, 0)
    assert settled(openings, 106.0) == 0


def test_the_unknown_ends_when_one_possibility_is_left(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    before = node.open()
    openings = openings_of(1, None, str(sibling))
    assert settled(openings, 100.0) is None
    before.close()
    counts(openings, 0)
    assert settled(openings, 102.0) == 0
    with node.open():
        counts(openings, 1)
        assert settled(openings, 104.0) == 1


def test_proc_decides_where_it_shows_all_and_is_asked_again(
    sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(2, Visible(here=1), str(sibling))
    assert settled(openings, 100.0) is None
    counts(openings, 2, here=1, elsewhere=1)
    openings.count(100.0 + open_tracker.PROC_INTERVAL)
    assert openings.count(100.0 + open_tracker.PROC_INTERVAL + PROBE) == 1


def test_those_that_proc_shows_all_are_counted_on_their_device(
    sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    assert settled(openings_of(5, Visible(2, 3), str(sibling)), 100.0) == 2


def test_one_look_in_the_midst_of_a_change_is_not_believed(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(1, Visible(elsewhere=1), str(sibling))
    with node.open():
        counts(openings, 2)
        assert settled(openings, 101.0) == 1
        counts(openings, 1)
        assert openings.count(103.0) == 1
        assert openings.due(103.0) == SETTLE
        counts(openings, 2)
        assert settled(openings, 103.1) == 1


def test_who_never_rests_does_not_keep_the_count_from_being_set_right(
    node: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(0)
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    counts(openings, 2)
    assert settled(openings, 101.0) == 2
    os.close(fds[0])
    os.close(fds[1])
    counts(openings, 0)
    for tenth in range(round(SETTLE_LIMIT * 10) + 1):
        node.open().close()
        last = openings.count(104.0 + tenth / 10)
    assert last == 0


def test_who_opened_either_device_by_a_node_that_we_do_not_know_makes_it_unknown(
    sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(0, None, str(sibling))
    counts(openings, 1)
    assert settled(openings, 101.0) is None
    counts(openings, 0)
    assert settled(openings, 104.0) == 0


def test_what_does_not_fit_is_begun_anew(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(1, Visible(elsewhere=1), str(sibling))
    node.open().close()
    counts(openings, 0)  # the other device's writer left by a node that we do not know
    assert settled(openings, 101.0) == 0


def test_an_opening_shared_by_processes_is_not_taken_for_two(
    node: Path, sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(3, Visible(here=2), str(sibling))
    assert (openings._least, openings._most) == (1, 3)
    assert settled(openings, 100.0) is None
    openings = openings_of(3, Visible(elsewhere=2), str(sibling))
    assert (openings._least, openings._most) == (0, 2)


def test_what_was_missed_on_both_devices_is_not_put_on_one() -> None:
    changes = partial(open_tracker._Changes, here=1, elsewhere=1, any_here=True, any_elsewhere=True)
    assert changes().share(2) == 1
    assert changes(missed=True).share(2) is None


def test_another_device_that_we_cannot_watch_leaves_what_is_told_of_this_one(
    node: Path, tmp_path: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(0, None, str(tmp_path / "not in this container"))
    with node.open():
        counts(openings, 1)
        assert settled(openings, 101.0) == 1
        with node.open(), node.open():
            counts(openings, 3)  # two told as one, or one and one elsewhere
            assert settled(openings, 104.0) is None


def test_a_watch_that_fails_half_way_leaves_nothing_open(
    node: Path,
    sibling: Path,
    openings_of: Callable[..., OpenTracker],
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
        openings_of(0, None, str(sibling))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_device_that_comes_or_goes_ends_the_sight(
    sibling: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    openings = openings_of(0)
    cast("Any", openings._device_use).now_siblings = frozenset([str(sibling)])
    with pytest.raises(FileNotFoundError):
        openings.count(101.0)


def test_two_closings_in_a_row_are_told_as_one_by_the_kernel(node: Path) -> None:
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    watch = FileWatch(str(node))
    for fd in fds:
        os.close(fd)
    assert watch.read() == [FileEvent.CLOSED]
    watch.close()


def test_who_opened_it_by_another_node_of_the_device_is_counted_by_the_module(
    openings_of: Callable[..., OpenTracker],
) -> None:
    openings = openings_of(0)
    counts(openings, 1)
    assert openings.count(101.0) == 0
    assert settled(openings, 101.1) == 1


def test_when_the_kernel_lost_count_it_is_counted_anew(
    openings_of: Callable[..., OpenTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = openings_of()
    counts(openings, None, here=3)
    monkeypatch.setattr(FileWatch, "read", lambda _self: [FileEvent.MISSED])
    assert openings.count(101.0) == 0
    monkeypatch.setattr(FileWatch, "read", lambda _self: [])
    assert openings.count(101.0 + PROBE) == 3


def test_a_closing_of_what_was_never_counted_counts_nobody_and_ends_nothing(
    node: Path, openings_of: Callable[..., OpenTracker]
) -> None:
    unseen = node.open()
    openings = openings_of()
    unseen.close()
    assert openings.count(101.0) == 0
    with node.open():
        openings.count(102.0)
        assert openings.count(102.0 + PROBE) == 1


# The driver's own count


@pytest.mark.parametrize("version", ["0.13.2", "0.15.0"])
def test_the_drivers_count_is_taken_at_once_and_at_each_change(
    make: Callable[..., Any], version: str
) -> None:
    double = make(version=version, readers=1)
    usage = ClientUsage("/dev/video0", double)
    assert usage.count(0.0) == 1
    assert usage.count(0.0) == 1
    double.stream_to(0)
    assert usage.count(0.0) == 0
    assert usage.due(0.0) is None
    usage.close()


def test_a_driver_without_the_event_is_left_as_it_was(make: Callable[..., Any]) -> None:
    double = make(version="0.12.7")
    with pytest.raises(OSError, match="Invalid"):
        ClientUsage("/dev/video0", double)
    assert not double.fds


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


def test_each_change_of_the_event_is_told_within_a_moment(make: Callable[..., Any]) -> None:
    double, heard = make(), Heard()
    watch = ReadersWatch("/dev/video0", heard, system=double)
    watch.start()
    heard.wait_for(0)
    began = time.monotonic()
    double.stream_to(1)
    heard.wait_for(0, 1)
    assert time.monotonic() - began < 0.5
    double.stream_to(0)
    heard.wait_for(0, 1, 0)
    watch.stop()
    assert not double.fds


def test_openings_are_told_by_the_actor_on_a_driver_without_the_event(
    make: Callable[..., Any], node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_tracker, "PROBE", 0.2)
    double, heard = make(path=str(node), version="0.12.7"), Heard()
    watch = ReadersWatch(str(node), heard, system=double)
    watch.start()
    heard.wait_for(0)
    with node.open():
        pass
    with node.open():
        began = time.monotonic()
        heard.wait_for(0, 1)
        assert time.monotonic() - began > 0.15
    heard.wait_for(0, 1, 0)
    watch.stop()


def test_what_cannot_be_seen_is_told_as_unknown(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "UNKNOWN_AFTER", 0.0)
    path, heard = str(tmp_path / "none"), Heard()
    watch = ReadersWatch(path, heard, system=make(path=path, version="0.12.7"))
    watch.start()
    heard.wait_for(None)
    watch.stop()


def test_a_device_that_goes_away_makes_its_readers_unknown_after_a_while_and_no_sooner(
    make: Callable[..., Any], node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "RETRY", 0.1)
    monkeypatch.setattr(readers, "UNKNOWN_AFTER", 0.5)
    heard = Heard()
    watch = ReadersWatch(str(node), heard, system=make(path=str(node), version="0.12.7"))
    watch.start()
    heard.wait_for(0)
    node.unlink()
    began = time.monotonic()
    heard.wait_for(0, None)
    assert time.monotonic() - began > 0.4
    node.touch()
    heard.wait_for(0, None, 0)
    watch.stop()


def test_sight_that_is_lost_for_a_moment_is_regained_and_nothing_is_told(
    make: Callable[..., Any], node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "RETRY", 0.05)
    monkeypatch.setattr(readers, "UNKNOWN_AFTER", 0.4)  # each loss is one of its own
    monkeypatch.setattr(open_tracker, "PROBE", 0.1)
    heard = Heard()
    watch = ReadersWatch(str(node), heard, system=make(path=str(node), version="0.12.7"))
    watch.start()
    heard.wait_for(0)
    for _ in range(2):
        node.unlink()
        node.touch()
        time.sleep(0.5)
        assert heard.counts == [0]
    with node.open():
        heard.wait_for(0, 1)
    watch.stop()


class Blind:
    """A sight that fails in a way that nobody foresaw, and tells whether it was closed."""

    mask = select.POLLIN
    description = "blindly"

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.open = True

    def fileno(self) -> int:
        return self.read_end

    def count(self, now: float) -> int | None:
        raise ValueError("unforeseen")

    def due(self, now: float) -> float | None:
        return None

    def close(self) -> None:
        self.open = False
        os.close(self.read_end)
        os.close(self.write_end)


def test_a_fault_that_nobody_foresaw_makes_readers_unknown_and_closes_the_sight(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "UNKNOWN_AFTER", 0.0)
    heard, blind = Heard(), Blind()
    watch = ReadersWatch("/dev/video0", heard, open_counter=lambda *_: blind, system=make())
    watch.start()
    heard.wait_for(None)
    watch.stop()
    assert not blind.open


@pytest.mark.parametrize("lacking", ["descriptors", "threads"])
def test_a_watch_that_cannot_begin_leaves_the_camera_working_and_nothing_open(
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
    told: list[tuple[str, int | None]] = []
    double = make()
    output = WatchedCamera(
        Camera([]),
        lambda *what: told.append(what),
        lambda path, tell: ReadersWatch(path, tell, system=double),
    )
    before = list(Path("/proc/self/fd").iterdir())
    output.open()
    assert told == [("/dev/video7", None)]
    output.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
    assert not double.fds


class Camera:
    """A camera that keeps a diary."""

    def __init__(self, diary: list[str]) -> None:
        self.name = "auto"
        self.diary = diary
        self.broken = False

    def open(self) -> None:
        if self.broken:
            raise CameraUnavailable("gone")
        self.name = "/dev/video7"
        self.diary.append("camera open")

    def show(self, frame: object) -> None:
        self.diary.append("shown")

    def close(self) -> None:
        self.name = "auto"
        self.diary.append("camera closed")


class Watch:
    def __init__(self, path: str, tell: Callable[[int | None], None], diary: list[str]) -> None:
        self.path, self.tell, self.diary = path, tell, diary

    def start(self) -> None:
        self.diary.append(f"watch {self.path}")
        self.tell(1)

    def stop(self) -> None:
        self.diary.append("watch ended")


def test_a_camera_is_watched_from_its_opening_to_before_its_closing() -> None:
    diary: list[str] = []
    told: list[tuple[str, int | None]] = []
    output = WatchedCamera(
        Camera(diary),
        lambda *what: told.append(what),
        lambda path, tell: cast("ReadersWatch", Watch(path, tell, diary)),
    )
    output.open()
    assert output.name == "/dev/video7"
    output.show(StandbyFrame(np.zeros((3, 2), np.uint8), "standby"))
    output.close()
    output.close()
    assert diary == [
        "camera open", "watch /dev/video7", "shown", "watch ended", "camera closed",
        "camera closed",
    ]  # fmt: skip
    assert told == [("/dev/video7", 1), ("/dev/video7", 0)]


def test_a_camera_that_cannot_be_opened_is_not_watched() -> None:
    diary: list[str] = []
    camera = Camera(diary)
    camera.broken = True
    output = WatchedCamera(camera, lambda *_what: None)
    with pytest.raises(CameraUnavailable):
        output.open()
    output.close()
    assert diary == ["camera closed"]


def test_the_doubles_bell_rings_as_the_kernels_would(make: Callable[..., Any]) -> None:
    double = make()
    fd = double.open("/dev/video0", os.O_RDONLY | os.O_NONBLOCK)
    v4l2.subscribe_client_usage(double, fd)
    assert v4l2.next_client_usage(double, fd) == 0
    assert v4l2.next_client_usage(double, fd) is None
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        v4l2.subscribe_client_usage(make(version="0.12.7"), fd)
    assert caught.value.errno == errno.EINVAL
    double.close(fd)
