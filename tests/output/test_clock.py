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
TICK = 0.05


class Recorder:
    """An output that remembers; can be events to fail."""

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


class Rig:
    """A output_clock on a scripted clock, run in the test's own thread."""

    def __init__(self, clock: Any, **settings: Any) -> None:
        self.clock = clock
        self.swapped: LatestSlot[SwappedFrame] = LatestSlot()
        self.output = Recorder(clock)
        self.kinds: list[tuple[float, Shown]] = []
        self.output_clock = OutputClock(
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
        self.clock.at(seconds, self.output_clock._stop.set)
        self.output_clock.run()
        return Counter(kind for _, kind in self.kinds)


def test_standby_is_shown_at_the_first_tick_before_any_frame(clock: Any) -> None:
    rig = Rig(clock)
    rig.play(0.5)
    assert rig.output.shown[0] == (0.0, STANDBY)
    assert {kind for _, kind in rig.kinds} == {Shown.STANDBY}


def test_each_fresh_frame_is_shown_once_and_no_gap_is_above_100_ms(clock: Any) -> None:
    rig = Rig(clock)
    rng = np.random.default_rng(7)
    for n in range(200):
        rig.arrive(n * TICK + 0.02 + rng.uniform(-0.012, 0.012))
    counts = rig.play(10.0)
    times = [at for at, _ in rig.output.shown]
    assert min(np.diff(times)) >= 0.035
    assert max(np.diff(times)) <= 0.065
    assert counts[Shown.FRESH] >= 190
    assert 199 <= len(times) <= 201


def test_a_picture_is_shown_when_it_arrives(clock: Any) -> None:
    rig = Rig(clock)
    for n in range(800):
        rig.arrive(n * TICK + 0.0101)
    rig.play(40.0)
    ages = []
    for at, frame in rig.output.shown[-100:]:
        assert isinstance(frame, SwappedFrame)
        ages.append(at - (frame.received_at - 1000))
    assert max(ages) == 0.0


def test_a_short_stall_repeats_the_last_frame_and_a_long_one_shows_standby(clock: Any) -> None:
    rig = Rig(clock, hold_for=3.0)
    for n in range(20):
        rig.arrive(n * TICK + 0.01)
    last = 19 * TICK + 0.01
    rig.play(6.0)
    repeated = [at for at, kind in rig.kinds if kind is Shown.REPEATED]
    standby = [at for at, kind in rig.kinds if kind is Shown.STANDBY and at > last]
    assert repeated[-1] <= last + 3.0 < standby[0] <= last + 3.0 + 2 * TICK
    assert standby[-1] > 5.9


def test_a_new_frame_after_standby_is_shown_within_a_tick(clock: Any) -> None:
    rig = Rig(clock, hold_for=0.5)
    rig.arrive(0.11)
    rig.arrive(2.0)
    rig.play(3.0)
    assert any(2.0 <= at <= 2.0 + TICK and kind is Shown.FRESH for at, kind in rig.kinds)


def test_hold_keeps_the_last_frame_for_good(clock: Any) -> None:
    rig = Rig(clock, policy=Fallback.HOLD, hold_for=0.5)
    rig.arrive(0.11)
    counts = rig.play(60.0)
    assert counts[Shown.STANDBY] == 3
    assert rig.kinds[-1][1] is Shown.REPEATED


def test_a_frame_that_was_cleared_is_never_shown_again(clock: Any) -> None:
    rig = Rig(clock, policy=Fallback.HOLD)
    rig.arrive(0.11)
    clock.at(0.52, rig.swapped.clear)
    rig.play(2.0)
    assert {kind for at, kind in rig.kinds if at > 0.52} == {Shown.STANDBY}


@pytest.mark.parametrize("policy", [Fallback.STANDBY, Fallback.HOLD])
def test_no_pixel_of_the_source_is_shown_unless_raw_is_configured(
    clock: Any, policy: Fallback
) -> None:
    source: LatestSlot[SourceFrame] = LatestSlot()
    rig = Rig(clock, policy=policy, source=source, hold_for=0.2)
    raw = SourceFrame(np.full(SIZE.shape, 200, np.uint8), 0.0)
    for n in range(40):
        clock.at(n * TICK, lambda: source.put(SourceFrame(raw.i420, clock.now())))
    rig.play(2.0)
    assert all(not (frame.i420 == 200).any() for _, frame in rig.output.shown)


def test_raw_shows_the_source_while_it_is_fresh_and_standby_after(clock: Any) -> None:
    source: LatestSlot[SourceFrame] = LatestSlot()
    rig = Rig(clock, policy=Fallback.RAW, source=source, hold_for=0.5)
    picture = np.full(SIZE.shape, 200, np.uint8)
    for n in range(20):
        clock.at(n * TICK, lambda: source.put(SourceFrame(picture, clock.now())))
    rig.play(3.0)
    raw = [at for at, kind in rig.kinds if kind is Shown.RAW]
    assert 1.4 < raw[-1] < 1.5
    assert rig.kinds[-1][1] is Shown.STANDBY


def test_a_frame_of_another_size_never_reaches_an_output(clock: Any) -> None:
    rig = Rig(clock)
    rig.arrive(0.1, shape=Geometry(32, 16).shape)
    counts = rig.play(1.0)
    assert set(counts) == {Shown.STANDBY}


def test_a_frame_from_long_before_the_start_is_not_shown(clock: Any) -> None:
    rig = Rig(clock, hold_for=3.0)
    rig.swapped.put(SwappedFrame(np.full(SIZE.shape, 90, np.uint8), clock.now() - 3.1))
    assert set(rig.play(1.0)) == {Shown.STANDBY}


def test_the_standby_picture_can_be_changed(clock: Any) -> None:
    rig = Rig(clock)
    other = StandbyFrame(black(SIZE), "other")
    clock.at(0.51, lambda: rig.output_clock.set_standby(other))
    rig.play(1.0)
    assert rig.output.shown[-1][1] is other


def test_a_machine_that_slept_skips_ticks_instead_of_hurrying(clock: Any) -> None:
    rig = Rig(clock)

    def sleep() -> Any:
        clock.time += 0.42

    clock.at(1.01, sleep)
    rig.play(2.0)
    times = [at for at, _ in rig.output.shown]
    assert min(np.diff(times)) >= 0.034
    stats = rig.output_clock.stats()
    assert stats.skipped in {7, 8}
    assert 0.4 < stats.gaps.longest < 0.5
    assert stats.gaps.counts[GAP_BOUNDS.index(0.5)] == 1


def test_a_hook_that_fails_does_not_stop_the_ticks(clock: Any) -> None:
    rig = Rig(clock)

    def fail(frame: Any, kind: Any, at: float) -> Any:
        raise ValueError("hook")

    rig.output_clock._on_shown = fail
    rig.play(1.0)
    assert 20 <= len(rig.output.shown) <= 21


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
    output_clock = OutputClock([bad, good], swapped, STANDBY, fps=50, on_event=on_event)
    bad.failure = CameraUnavailable("/dev/video0 refused a picture")
    output_clock.start()
    try:
        while not output_clock.stats().lost:
            threading.Event().wait(0.01)
        assert output_clock.stats().lost == ("bad",)
        before = len(good.shown)
        bad.failure = None
        assert back.wait(5)
        assert len(good.shown) > before
        while not bad.shown:
            threading.Event().wait(0.01)
    finally:
        output_clock.stop()
    assert events == [("bad", OutputChange.LOST), ("bad", OutputChange.BACK)]
    assert bad.closed == 1
    assert output_clock.stats().lost == ()


def test_an_output_that_comes_back_by_another_name_is_reported_under_the_one_it_was_lost_by() -> (
    None
):
    class Replugged(Recorder):
        def open(self) -> None:
            super().open()
            self.name = "/dev/video8"

    camera = Replugged(MonotonicClock(), "/dev/video7")
    events: list[tuple[str, OutputChange]] = []
    back = threading.Event()

    def on_event(event: Any) -> None:
        events.append((event.output, event.change))
        if event.change is OutputChange.BACK:
            back.set()

    output_clock = OutputClock([camera], LatestSlot(), STANDBY, fps=20, on_event=on_event)
    output_clock.start()
    camera.failure = CameraUnavailable("gone")
    while not output_clock.stats().lost:
        pass
    camera.failure = None
    assert back.wait(5.0)
    output_clock.stop()
    assert events == [("/dev/video7", OutputChange.LOST), ("/dev/video7", OutputChange.BACK)]


def test_stop_does_not_wait_for_an_output_that_stays_lost() -> None:
    class Wall:
        def now(self) -> Any:
            return 1000.0

    bad = Recorder(Wall(), "bad")
    bad.failure = CameraUnavailable("gone")
    output_clock = OutputClock([bad], LatestSlot(), STANDBY, fps=50)
    output_clock.start()
    while not output_clock.stats().lost:
        threading.Event().wait(0.01)
    output_clock.stop()
    ours = ("relayd-output-clock", "relayd-reopen")
    assert not [t for t in threading.enumerate() if t.name.startswith(ours)]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15.0
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_an_output_that_is_missing_at_the_start_is_awaited_while_the_others_are_shown() -> None:
    events: list[OutputEvent] = []
    missing, there = Recorder(MonotonicClock(), "missing"), Recorder(MonotonicClock(), "there")
    missing.failure = CameraUnavailable("no such device", hint="make one")
    output_clock = OutputClock(
        [missing, there], LatestSlot(), STANDBY, fps=50, on_event=events.append
    )
    assert output_clock.trouble(missing) == ""
    output_clock.mark_lost(missing, missing.failure)
    output_clock.start()
    try:
        until(lambda: there.shown and missing.opened)
        assert output_clock.trouble(missing) == "no such device (make one)"
        assert output_clock.trouble(there) == ""
        missing.failure = None
        until(lambda: missing.shown)
    finally:
        output_clock.stop()
    assert output_clock.trouble(missing) == ""
    assert [(event.output, event.change, event.reason) for event in events] == [
        ("missing", OutputChange.LOST, "no such device (make one)"),
        ("missing", OutputChange.BACK, ""),
    ]


def test_a_new_reason_why_an_output_is_lost_is_reported_and_an_old_one_is_not_repeated() -> None:
    events: list[OutputEvent] = []
    lost = Recorder(MonotonicClock(), "camera")
    lost.failure = CameraUnavailable("no such device")
    output_clock = OutputClock([lost], LatestSlot(), STANDBY, fps=50, on_event=events.append)
    output_clock.mark_lost(lost, lost.failure)
    try:
        until(lambda: lost.opened >= 1)
        lost.failure = CameraUnavailable("written by another program")
        until(lambda: len(events) > 1)
    finally:
        output_clock.stop()
    assert [event.reason for event in events] == ["no such device", "written by another program"]


def test_a_camera_chosen_by_its_label_is_found_when_it_is_made_and_its_readers_are_counted(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    driver = make(readers=1)
    listed: list[VideoDevice] = []
    camera = CameraOutput(
        "auto", SIZE, 20, system=driver, sys_root=tmp_path, list_devices=lambda: listed
    )
    events: list[OutputEvent] = []
    readers: list[tuple[str, int | None]] = []
    watched = WatchedCamera(
        camera,
        lambda device, count: readers.append((device, count)),
        lambda path, report: ReadersWatch(path, report, system=driver),
    )
    output_clock = OutputClock([watched], LatestSlot(), STANDBY, fps=20, on_event=events.append)
    with pytest.raises(CameraUnavailable) as missing:
        watched.open()
    output_clock.mark_lost(watched, missing.value)
    output_clock.start()
    try:
        until(lambda: output_clock.stats().shown[Shown.STANDBY] > 2)
        assert readers == []
        found = (True, False, (), 0.0, True, True, "")
        listed.append(VideoDevice("/dev/video0", "relayd", "v4l2 loopback", True, *found))
        until(lambda: readers == [("/dev/video0", 1)] and driver.written)
        driver.write_error = errno.ENODEV  # it is unplugged, and takes its readers along
        driver.open_error = errno.ENODEV
        until(lambda: readers[-1] == ("/dev/video0", 0))
    finally:
        output_clock.stop()
        watched.close()
    assert [(event.output, event.change) for event in events][:3] == [
        ("auto", OutputChange.LOST),
        ("auto", OutputChange.BACK),
        ("/dev/video0", OutputChange.LOST),
    ]
    assert "there is no virtual camera" in events[0].reason
    assert "modprobe v4l2loopback" in events[0].reason


@pytest.mark.parametrize(
    ("wrong", "right", "hint"),
    [
        ({"exclusive_caps": False}, {"exclusive_caps": True}, "modprobe -r v4l2loopback"),
        ({"keep_format": True}, {"keep_format": False}, "keep_format=0"),
    ],
    ids=["exclusive_caps", "keep_format"],
)
def test_a_camera_set_up_wrongly_at_the_start_is_reported_with_its_hint_and_taken_once_it_is_right(
    make: Callable[..., Any],
    tmp_path: Path,
    wrong: dict[str, bool],
    right: dict[str, bool],
    hint: str,
) -> None:
    driver = make(**wrong)
    camera = CameraOutput("/dev/video0", SIZE, 20, system=driver, sys_root=tmp_path)
    events: list[OutputEvent] = []
    output_clock = OutputClock([camera], LatestSlot(), STANDBY, fps=20, on_event=events.append)
    with pytest.raises(CameraUnavailable) as refused:
        camera.open()
    output_clock.mark_lost(camera, refused.value)
    output_clock.start()
    try:
        for name, value in right.items():
            setattr(driver, name, value)
        until(lambda: driver.written > 2)
    finally:
        output_clock.stop()
        camera.close()
    assert hint in events[0].reason
    assert [event.change for event in events] == [OutputChange.LOST, OutputChange.BACK]


def test_the_camera_is_opened_once_whatever_happens_to_the_frames(
    clock: Any, make: Callable[..., Any], tmp_path: Path
) -> None:
    driver = make()
    camera = CameraOutput("/dev/video0", SIZE, 20, system=driver, sys_root=tmp_path)
    camera.open()
    rig = Rig(clock, hold_for=0.2)
    rig.output_clock._kept[0].output = camera
    for n in range(5):
        rig.arrive(n + 0.01)
    rig.play(5.0)
    assert driver.written == 101  # both ends of five seconds
    assert len(driver.pictures()) == 101 * SIZE.nbytes
    assert len(driver.fds) == 1
    camera.close()
