"""Who looks at a camera: the driver's event by its double, openings by the real inotify."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from relayd.errors import CameraUnavailable
from relayd.frames import StandbyFrame
from relayd.output import readers, v4l2
from relayd.output.inotify import FileEvent, FileWatch
from relayd.output.openers import Bounds, Census
from relayd.output.readers import (
    PROBE,
    RECOUNT,
    ClientUsage,
    Openings,
    ReadersWatch,
    WatchedCamera,
    best_sight,
)

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
    """A census that says what the test says."""

    def __init__(self, bounds: Bounds | None = None, visible: int = 0) -> None:
        self._bounds, self._visible = bounds or Bounds(), visible

    def set(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def bounds(self) -> Bounds:
        return self._bounds

    def visible(self) -> int:
        return self._visible


@pytest.fixture
def node(tmp_path: Path) -> Path:
    file = tmp_path / "video0"
    file.touch()
    return file


@pytest.fixture
def openings_of(node: Path) -> Iterator[Callable[..., Openings]]:
    made: list[Openings] = []

    def make(**census: Any) -> Openings:
        made.append(Openings(str(node), 100.0, cast("Census", CountedElsewhere(**census))))
        return made[-1]

    yield make
    for openings in made:
        openings.close()


# The kernel's word on a file


def test_opening_and_closing_are_told_in_their_order_and_writing_is_not(node: Path):
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


def test_a_file_that_is_deleted_is_told(node: Path):
    watch = FileWatch(str(node))
    node.unlink()
    assert FileEvent.GONE in watch.read()
    watch.close()


def test_a_file_that_is_not_there_cannot_be_watched(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        FileWatch(str(tmp_path / "none"))


# Counting openings


def test_who_has_it_open_for_a_second_is_a_reader(node: Path, openings_of: Callable[..., Openings]):
    openings = openings_of()
    assert openings.look(100.0) == 0
    with node.open():
        assert openings.look(101.0) == 0
        assert openings.due(101.0) == pytest.approx(PROBE)
        assert openings.look(101.5) == 0
        assert openings.due(101.5) == pytest.approx(0.5)
        assert openings.look(102.0) == 1
    assert openings.look(102.1) == 0
    assert openings.due(102.1) == RECOUNT


def test_a_probe_is_no_reader_and_hides_none(node: Path, openings_of: Callable[..., Openings]):
    openings = openings_of()
    with node.open():
        openings.look(100.0)
        assert openings.look(102.0) == 1
        for moment in (103.0, 103.7, 104.4):
            with node.open():
                assert openings.look(moment) == 1
            assert openings.look(moment + 0.3) == 1
    assert openings.look(105.0) == 0


def test_a_probe_alone_is_never_a_reader(node: Path, openings_of: Callable[..., Openings]):
    openings = openings_of()
    for number in range(20):
        with node.open():
            assert openings.look(100.0 + number) == 0
        assert openings.look(100.9 + number) == 0


def test_who_had_it_open_before_we_came_is_a_reader_at_once(openings_of: Callable[..., Openings]):
    assert openings_of(visible=2).look(100.0) == 2
    assert openings_of(bounds=Bounds(1, 1)).look(100.0) == 1


def test_closings_told_as_one_leave_no_reader_that_is_not_there(
    node: Path, openings_of: Callable[..., Openings]
):
    openings = openings_of(bounds=Bounds(0, 2))
    fds = []
    for moment in (100.0, 101.0):
        fds.append(os.open(node, os.O_RDONLY))
        openings.look(moment)
    assert openings.look(103.0) == 2
    for fd in fds:
        os.close(fd)  # two in a row: the kernel tells one
    cast("Any", openings._census).set(Bounds(0, 0))
    assert openings.look(104.0) == 0


def test_two_closings_in_a_row_are_told_as_one_by_the_kernel(node: Path):
    fds = [os.open(node, os.O_RDONLY) for _ in range(2)]
    watch = FileWatch(str(node))
    for fd in fds:
        os.close(fd)
    assert watch.read() == [FileEvent.CLOSED]
    watch.close()


def test_who_opened_it_by_another_node_of_the_device_is_counted_by_the_module(
    openings_of: Callable[..., Openings],
):
    openings = openings_of()
    cast("Any", openings._census).set(Bounds(1, 1))
    assert openings.look(101.0) == 0
    assert openings.look(102.0) == 1


def test_when_the_kernel_lost_count_it_is_counted_anew(
    openings_of: Callable[..., Openings], monkeypatch: pytest.MonkeyPatch
):
    openings = openings_of(visible=3)
    openings._since.clear()
    monkeypatch.setattr(FileWatch, "read", lambda _self: [FileEvent.MISSED])
    assert openings.look(101.0) == 3


# The driver's own count


@pytest.mark.parametrize("version", ["0.13.2", "0.15.0"])
def test_the_drivers_count_is_taken_at_once_and_at_each_change(
    make: Callable[..., Any], version: str
):
    double = make(version=version, readers=1)
    usage = ClientUsage("/dev/video0", double)
    assert usage.look(0.0) == 1
    assert usage.look(0.0) == 1
    double.stream_to(0)
    assert usage.look(0.0) == 0
    assert usage.due(0.0) is None
    usage.close()


def test_a_driver_without_the_event_is_left_as_it_was(make: Callable[..., Any]):
    double = make(version="0.12.7")
    with pytest.raises(OSError, match="Invalid"):
        ClientUsage("/dev/video0", double)
    assert not double.fds


def test_the_structs_of_events_are_the_kernels():
    assert v4l2.VIDIOC_DQEVENT == 0x80885659
    assert v4l2.VIDIOC_SUBSCRIBE_EVENT == 0x4020565A


def test_the_event_is_preferred_to_counting(make: Callable[..., Any], node: Path):
    new, old = make(path=str(node)), make(path=str(node), version="0.12.7")
    first, second = best_sight(str(node), new, 0.0), best_sight(str(node), old, 0.0)
    assert (type(first), type(second)) == (ClientUsage, Openings)
    first.close()
    second.close()


# The actor


def test_each_change_of_the_event_is_told_within_a_moment(make: Callable[..., Any]):
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
):
    monkeypatch.setattr(readers, "PROBE", 0.2)
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


def test_what_cannot_be_seen_is_told_as_unknown(make: Callable[..., Any], tmp_path: Path):
    path, heard = str(tmp_path / "none"), Heard()
    watch = ReadersWatch(path, heard, system=make(path=path, version="0.12.7"))
    watch.start()
    assert heard.counts == [None]
    watch.stop()


def test_a_device_that_goes_away_makes_its_readers_unknown(make: Callable[..., Any], node: Path):
    heard = Heard()
    watch = ReadersWatch(str(node), heard, system=make(path=str(node), version="0.12.7"))
    watch.start()
    heard.wait_for(0)
    node.unlink()
    heard.wait_for(0, None)
    watch.stop()


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


def test_a_camera_is_watched_from_its_opening_to_before_its_closing():
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


def test_a_camera_that_cannot_be_opened_is_not_watched():
    diary: list[str] = []
    camera = Camera(diary)
    camera.broken = True
    output = WatchedCamera(camera, lambda *_what: None)
    with pytest.raises(CameraUnavailable):
        output.open()
    output.close()
    assert diary == ["camera closed"]


def test_the_doubles_bell_rings_as_the_kernels_would(make: Callable[..., Any]):
    double = make()
    fd = double.open("/dev/video0", os.O_RDONLY | os.O_NONBLOCK)
    v4l2.subscribe_client_usage(double, fd)
    assert v4l2.next_client_usage(double, fd) == 0
    assert v4l2.next_client_usage(double, fd) is None
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        v4l2.subscribe_client_usage(make(version="0.12.7"), fd)
    assert caught.value.errno == errno.EINVAL
    double.close(fd)
