import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relayd.clock import MonotonicClock
from relayd.errors import CameraUnavailable
from relayd.media.frames import (
    Geometry,
    OutputFrame,
    SourceFrame,
    StandbyFrame,
    SwappedFrame,
    black,
)
from relayd.media.slots import LatestSlot
from relayd.output.base import OutputChange, OutputEvent
from relayd.output.camera import CameraOutput
from relayd.output.clock import GAP_BOUNDS, Fallback, OutputClock, Shown
from relayd.output.devices import VideoDevice
from relayd.output.readers import ReadersWatch, WatchedCamera

SIZE = Geometry(16, 16)
STANDBY = StandbyFrame(black(SIZE), "standby")
BEAT = 0.05


class Recorder:
    """An output that remembers; can be told to fail."""

    def __init__(self, clock: Any, name: Any = "recorder") -> None:
        self.clock, self.name = clock, name
        self.shown: list[tuple[float, OutputFrame]] = []
        self.failure: CameraUnavailable | None = None
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1
        if self.failure:
            raise self.failure

    def show(self, frame: Any) -> None:
        if self.failure:
            raise self.failure
        self.shown.append((self.clock.now() - 1000, frame))

    def close(self) -> None:
        self.closed += 1


class Stage:
    """A screen on a scripted clock, run in the test's own thread."""

    def __init__(self, clock: Any, **settings: Any) -> None:
        self.clock = clock
        self.swapped: LatestSlot[SwappedFrame] = LatestSlot()
        self.output = Recorder(clock)
        self.kinds: list[tuple[float, Shown]] = []
        self.screen = OutputClock(
            [self.output],
            self.swapped,
            STANDBY,
            fps=20,
            clock=clock,
            on_shown=lambda frame, kind, at: self.kinds.append((at - 1000, kind)),
            **settings,
        )

    def arrive(self, at: float, shape: Any = SIZE.shape) -> None:
        def put() -> Any:
            self.swapped.put(SwappedFrame(np.full(shape, 90, np.uint8), self.clock.now()))

        self.clock.at(at, put)

    def play(self, seconds: float) -> Counter[Shown]:
        self.clock.at(seconds, self.screen._stop.set)
        self.screen.run()
        return Counter(kind for _, kind in self.kinds)


def test_standby_is_shown_at_the_first_beat_before_any_frame(clock: Any) -> None:
    stage = Stage(clock)
    stage.play(0.5)
    assert stage.output.shown[0] == (0.0, STANDBY)
    assert {kind for _, kind in stage.kinds} == {Shown.STANDBY}


def test_each_fresh_frame_is_shown_once_and_no_gap_is_above_100_ms(clock: Any) -> None:
    stage = Stage(clock)
    rng = np.random.default_rng(7)
    for n in range(200):
        stage.arrive(n * BEAT + 0.02 + rng.uniform(-0.012, 0.012))
    counts = stage.play(10.0)
    times = [at for at, _ in stage.output.shown]
    assert max(np.diff(times)) < 0.1
    assert counts[Shown.FRESH] >= 190
    assert 199 <= len(times) <= 201


def test_the_beat_settles_shortly_after_the_arrivals(clock: Any) -> None:
    stage = Stage(clock)
    for n in range(2400):
        stage.arrive(n * BEAT + 0.0101)
    stage.play(120.0)
    ages = []
    for at, frame in stage.output.shown[-100:]:
        assert isinstance(frame, SwappedFrame)
        ages.append(at - (frame.received_at - 1000))
    assert max(ages) < 0.012
    assert min(ages) > 0.003


def test_a_short_stall_repeats_the_last_frame_and_a_long_one_shows_standby(clock: Any) -> None:
    stage = Stage(clock, hold_for=3.0)
    for n in range(20):
        stage.arrive(n * BEAT + 0.01)
    last = 19 * BEAT + 0.01
    stage.play(6.0)
    repeated = [at for at, kind in stage.kinds if kind is Shown.REPEATED]
    standby = [at for at, kind in stage.kinds if kind is Shown.STANDBY and at > last]
    assert repeated[-1] <= last + 3.0 < standby[0] <= last + 3.0 + 2 * BEAT
    assert standby[-1] > 5.9


def test_a_new_frame_after_standby_is_shown_within_a_beat(clock: Any) -> None:
    stage = Stage(clock, hold_for=0.5)
    stage.arrive(0.11)
    stage.arrive(2.0)
    stage.play(3.0)
    assert any(2.0 <= at <= 2.0 + BEAT and kind is Shown.FRESH for at, kind in stage.kinds)


def test_hold_keeps_the_last_frame_for_good(clock: Any) -> None:
    stage = Stage(clock, policy=Fallback.HOLD, hold_for=0.5)
    stage.arrive(0.11)
    counts = stage.play(60.0)
    assert counts[Shown.STANDBY] == 3
    assert stage.kinds[-1][1] is Shown.REPEATED


def test_a_frame_that_was_cleared_is_never_shown_again(clock: Any) -> None:
    stage = Stage(clock, policy=Fallback.HOLD)
    stage.arrive(0.11)
    clock.at(0.52, stage.swapped.clear)
    stage.play(2.0)
    assert {kind for at, kind in stage.kinds if at > 0.52} == {Shown.STANDBY}


@pytest.mark.parametrize("policy", [Fallback.STANDBY, Fallback.HOLD])
def test_no_pixel_of_the_source_is_shown_unless_raw_is_configured(
    clock: Any, policy: Fallback
) -> None:
    source: LatestSlot[SourceFrame] = LatestSlot()
    stage = Stage(clock, policy=policy, source=source, hold_for=0.2)
    raw = SourceFrame(np.full(SIZE.shape, 200, np.uint8), 0.0)
    for n in range(40):
        clock.at(n * BEAT, lambda: source.put(SourceFrame(raw.i420, clock.now())))
    stage.play(2.0)
    assert all(not (frame.i420 == 200).any() for _, frame in stage.output.shown)


def test_raw_shows_the_source_while_it_lives_and_standby_after(clock: Any) -> None:
    source: LatestSlot[SourceFrame] = LatestSlot()
    stage = Stage(clock, policy=Fallback.RAW, source=source, hold_for=0.5)
    picture = np.full(SIZE.shape, 200, np.uint8)
    for n in range(20):
        clock.at(n * BEAT, lambda: source.put(SourceFrame(picture, clock.now())))
    stage.play(3.0)
    raw = [at for at, kind in stage.kinds if kind is Shown.RAW]
    assert 1.4 < raw[-1] < 1.5
    assert stage.kinds[-1][1] is Shown.STANDBY


def test_a_frame_of_another_size_never_reaches_an_output(clock: Any) -> None:
    stage = Stage(clock)
    stage.arrive(0.1, shape=Geometry(32, 16).shape)
    counts = stage.play(1.0)
    assert set(counts) == {Shown.STANDBY}


def test_a_frame_from_long_before_the_start_is_not_shown(clock: Any) -> None:
    stage = Stage(clock, hold_for=3.0)
    stage.swapped.put(SwappedFrame(np.full(SIZE.shape, 90, np.uint8), clock.now() - 3.1))
    assert set(stage.play(1.0)) == {Shown.STANDBY}


def test_the_standby_picture_can_be_changed(clock: Any) -> None:
    stage = Stage(clock)
    other = StandbyFrame(black(SIZE), "other")
    clock.at(0.51, lambda: stage.screen.set_standby(other))
    stage.play(1.0)
    assert stage.output.shown[-1][1] is other


def test_a_machine_that_slept_skips_beats_instead_of_hurrying(clock: Any) -> None:
    stage = Stage(clock)

    def sleep() -> Any:
        clock.time += 0.42

    clock.at(1.01, sleep)
    stage.play(2.0)
    times = [at for at, _ in stage.output.shown]
    assert min(np.diff(times)) > 0.01
    stats = stage.screen.stats()
    assert stats.skipped in {7, 8}
    assert 0.4 < stats.gaps.longest < 0.5
    assert stats.gaps.counts[GAP_BOUNDS.index(0.5)] == 1


def test_a_hook_that_fails_does_not_stop_the_beat(clock: Any) -> None:
    stage = Stage(clock)

    def fail(frame: Any, kind: Any, at: float) -> Any:
        raise ValueError("hook")

    stage.screen._on_shown = fail
    stage.play(1.0)
    assert 20 <= len(stage.output.shown) <= 21


def test_a_lost_output_is_reported_and_reopened_while_the_others_go_on() -> None:
    swapped: LatestSlot[SwappedFrame] = LatestSlot()
    events: list[tuple[str, OutputChange]] = []
    back = threading.Event()

    def on_event(event: Any) -> Any:
        events.append((event.output, event.change))
        if event.change is OutputChange.BACK:
            back.set()

    class Wall:
        def now(self) -> Any:
            return 1000.0

    good, bad = Recorder(Wall(), "good"), Recorder(Wall(), "bad")
    screen = OutputClock([bad, good], swapped, STANDBY, fps=50, on_event=on_event)
    bad.failure = CameraUnavailable("/dev/video0 refused a picture")
    screen.start()
    try:
        while not screen.stats().lost:
            threading.Event().wait(0.01)
        assert screen.stats().lost == ("bad",)
        before = len(good.shown)
        bad.failure = None
        assert back.wait(5)
        assert len(good.shown) > before
        while not bad.shown:
            threading.Event().wait(0.01)
    finally:
        screen.stop()
    assert events == [("bad", OutputChange.LOST), ("bad", OutputChange.BACK)]
    assert bad.closed == 1
    assert screen.stats().lost == ()


def test_an_output_that_comes_back_by_another_name_is_told_by_the_one_it_was_lost_by() -> None:
    class Replugged(Recorder):
        def open(self) -> None:
            super().open()
            self.name = "/dev/video8"

    camera = Replugged(MonotonicClock(), "/dev/video7")
    told: list[tuple[str, OutputChange]] = []
    back = threading.Event()

    def hear(event: Any) -> None:
        told.append((event.output, event.change))
        if event.change is OutputChange.BACK:
            back.set()

    screen = OutputClock([camera], LatestSlot(), STANDBY, fps=20, on_event=hear)
    screen.start()
    camera.failure = CameraUnavailable("gone")
    while not screen.stats().lost:
        pass
    camera.failure = None
    assert back.wait(5.0)
    screen.stop()
    assert told == [("/dev/video7", OutputChange.LOST), ("/dev/video7", OutputChange.BACK)]


def test_stop_does_not_wait_for_an_output_that_stays_lost() -> None:
    class Wall:
        def now(self) -> Any:
            return 1000.0

    bad = Recorder(Wall(), "bad")
    bad.failure = CameraUnavailable("gone")
    screen = OutputClock([bad], LatestSlot(), STANDBY, fps=50)
    screen.start()
    while not screen.stats().lost:
        threading.Event().wait(0.01)
    screen.stop()
    ours = ("relayd-output-clock", "relayd-reopen")
    assert not [t for t in threading.enumerate() if t.name.startswith(ours)]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15.0
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_an_output_that_is_missing_at_the_start_is_waited_for_while_the_others_are_shown() -> None:
    told: list[OutputEvent] = []
    missing, there = Recorder(MonotonicClock(), "missing"), Recorder(MonotonicClock(), "there")
    missing.failure = CameraUnavailable("no such device", hint="make one")
    screen = OutputClock([missing, there], LatestSlot(), STANDBY, fps=50, on_event=told.append)
    assert screen.trouble(missing) == ""
    screen.lose(missing, missing.failure)
    screen.start()
    try:
        until(lambda: there.shown and missing.opened)
        assert screen.trouble(missing) == "no such device (make one)"
        assert screen.trouble(there) == ""
        missing.failure = None
        until(lambda: missing.shown)
    finally:
        screen.stop()
    assert screen.trouble(missing) == ""
    assert [(event.output, event.change, event.reason) for event in told] == [
        ("missing", OutputChange.LOST, "no such device (make one)"),
        ("missing", OutputChange.BACK, ""),
    ]


def test_a_new_reason_why_an_output_is_lost_is_told_and_an_old_one_is_not_repeated() -> None:
    told: list[OutputEvent] = []
    lost = Recorder(MonotonicClock(), "camera")
    lost.failure = CameraUnavailable("no such device")
    screen = OutputClock([lost], LatestSlot(), STANDBY, fps=50, on_event=told.append)
    screen.lose(lost, lost.failure)
    try:
        until(lambda: lost.opened >= 1)
        lost.failure = CameraUnavailable("written by another program")
        until(lambda: len(told) > 1)
    finally:
        screen.stop()
    assert [event.reason for event in told] == ["no such device", "written by another program"]


def test_a_camera_chosen_by_its_label_is_found_when_it_is_made_and_its_readers_are_counted(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    double = make(readers=1)
    listed: list[VideoDevice] = []
    camera = CameraOutput(
        "auto", SIZE, 20, system=double, sys_root=tmp_path, list_devices=lambda: listed
    )
    told: list[OutputEvent] = []
    readers: list[tuple[str, int | None]] = []
    watched = WatchedCamera(
        camera,
        lambda device, count: readers.append((device, count)),
        lambda path, tell: ReadersWatch(path, tell, system=double),
    )
    screen = OutputClock([watched], LatestSlot(), STANDBY, fps=20, on_event=told.append)
    with pytest.raises(CameraUnavailable) as missing:
        watched.open()
    screen.lose(watched, missing.value)
    screen.start()
    try:
        until(lambda: screen.stats().shown[Shown.STANDBY] > 2)
        assert readers == []
        found = (True, False, (), 0.0, True, True, "")
        listed.append(VideoDevice("/dev/video0", "relayd", "v4l2 loopback", True, *found))
        until(lambda: readers == [("/dev/video0", 1)] and double.written)
        double.write_error = errno.ENODEV  # it is unplugged, and takes its readers along
        double.open_error = errno.ENODEV
        until(lambda: readers[-1] == ("/dev/video0", 0))
    finally:
        screen.stop()
        watched.close()
    assert [(event.output, event.change) for event in told][:3] == [
        ("auto", OutputChange.LOST),
        ("auto", OutputChange.BACK),
        ("/dev/video0", OutputChange.LOST),
    ]
    assert "there is no virtual camera" in told[0].reason
    assert "modprobe v4l2loopback" in told[0].reason


@pytest.mark.parametrize(
    ("wrong", "right", "hint"),
    [
        ({"exclusive_caps": False}, {"exclusive_caps": True}, "modprobe -r v4l2loopback"),
        ({"keep_format": True}, {"keep_format": False}, "keep_format=0"),
    ],
    ids=["exclusive_caps", "keep_format"],
)
def test_a_camera_set_up_wrongly_at_the_start_is_told_with_its_hint_and_taken_once_it_is_right(
    make: Callable[..., Any],
    tmp_path: Path,
    wrong: dict[str, bool],
    right: dict[str, bool],
    hint: str,
) -> None:
    double = make(**wrong)
    camera = CameraOutput("/dev/video0", SIZE, 20, system=double, sys_root=tmp_path)
    told: list[OutputEvent] = []
    screen = OutputClock([camera], LatestSlot(), STANDBY, fps=20, on_event=told.append)
    with pytest.raises(CameraUnavailable) as refused:
        camera.open()
    screen.lose(camera, refused.value)
    screen.start()
    try:
        for name, value in right.items():
            setattr(double, name, value)
        until(lambda: double.written > 2)
    finally:
        screen.stop()
        camera.close()
    assert hint in told[0].reason
    assert [event.change for event in told] == [OutputChange.LOST, OutputChange.BACK]


def test_the_camera_is_opened_once_whatever_happens_to_the_frames(
    clock: Any, make: Callable[..., Any], tmp_path: Path
) -> None:
    double = make()
    camera = CameraOutput("/dev/video0", SIZE, 20, system=double, sys_root=tmp_path)
    camera.open()
    stage = Stage(clock, hold_for=0.2)
    stage.screen._posts[0].output = camera
    for n in range(5):
        stage.arrive(n + 0.01)
    stage.play(5.0)
    assert double.written == 101  # both ends of five seconds
    assert len(double.pictures()) == 101 * SIZE.nbytes
    assert len(double.fds) == 1
    camera.close()
