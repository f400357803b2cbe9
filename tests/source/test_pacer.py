import threading
from collections.abc import Callable
from threading import Event

import numpy as np
import pytest

from relayd.media.frames import Geometry, SourceFrame, black
from relayd.media.slots import LatestSlot
from relayd.source.pacer import Pacer

PICTURE = black(Geometry(16, 16))


class Stage:
    """A clock that jumps from beat to beat, and on the way puts the pictures that are due."""

    def __init__(self, seconds: float) -> None:
        self.time, self.end = 100.0, 100.0 + seconds
        self.slot: LatestSlot[SourceFrame] = LatestSlot()
        self.arrivals: list[float] = []
        self.delivered: list[tuple[float, SourceFrame]] = []
        self.at: dict[float, Callable[[], None]] = {}

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float, stop: Event) -> bool:
        while self.arrivals and self.arrivals[0] <= moment:
            self.slot.put(SourceFrame(PICTURE, self.arrivals.pop(0)))
        for when in [when for when in self.at if when <= moment]:
            self.at.pop(when)()
        self.time = max(self.time, moment)
        if moment > self.end:
            stop.set()
        return stop.is_set()

    def source(self, rate: float, start: float = 0.0, stop: float | None = None) -> None:
        span = (self.end - 100.0 if stop is None else stop) - start
        self.arrivals += [100.0 + start + n / rate for n in range(round(span * rate))]

    def play(self, fps: float = 20, max_age: float = 2.0) -> Pacer:
        pacer = Pacer(
            self.slot,
            lambda frame: self.delivered.append((self.time, frame)),
            fps,
            max_age=max_age,
            clock=self,
        )
        pacer._run()
        return pacer


@pytest.mark.parametrize("rate", [1, 12, 19, 20, 24, 25, 30, 50, 60, 240])
def test_any_rate_becomes_twenty_a_second(rate: float) -> None:
    stage = Stage(20)
    stage.source(rate)
    pacer = stage.play()
    assert len(stage.delivered) == pytest.approx(400, abs=2)
    gaps = np.diff([at for at, _ in stage.delivered])
    assert gaps.min() >= 0.0498
    assert gaps.max() <= 0.0505
    shown = len({frame.captured_at for _, frame in stage.delivered})
    assert shown == pytest.approx(min(rate, 20) * 20, abs=3)
    assert pacer.counters.repeated == len(stage.delivered) - shown
    assert pacer.counters.dropped == pytest.approx(max(0, rate - 20) * 20, abs=rate / 10 + 3)


def test_each_beat_brings_the_newest_picture() -> None:
    stage = Stage(2)
    stage.source(60)
    stage.play()
    for at, frame in stage.delivered:
        assert at - frame.captured_at <= 1 / 60 + 1e-6


def test_a_source_of_the_same_rate_waits_little_for_its_beat() -> None:
    stage = Stage(60)
    stage.source(20, start=0.025)  # the worst phase but one
    stage.play()
    late_ages = [at - frame.captured_at for at, frame in stage.delivered[-100:]]
    assert max(late_ages) <= 0.010
    assert len({frame.captured_at for _, frame in stage.delivered[-100:]}) == 100


def test_a_picture_is_not_delivered_beyond_its_age() -> None:
    stage = Stage(6)
    stage.source(30, stop=2)
    pacer = stage.play(max_age=1.0)
    assert stage.delivered[-1][0] == pytest.approx(103, abs=0.1)
    assert pacer.counters.starved == pytest.approx(60, abs=3)


def test_a_cleared_slot_ends_delivery_at_once() -> None:
    stage = Stage(4)
    stage.source(30, stop=1)
    stage.at[101.5] = stage.slot.clear
    stage.play(max_age=10)
    assert stage.delivered[-1][0] == pytest.approx(101.5, abs=0.051)


def test_nothing_is_delivered_while_paused() -> None:
    stage = Stage(4)
    stage.source(30)
    pacer = Pacer(
        stage.slot, lambda f: stage.delivered.append((stage.time, f)), 20, max_age=2, clock=stage
    )
    stage.at = {101.0: pacer.pause, 103.0: pacer.resume}
    pacer._run()
    assert not [at for at, _ in stage.delivered if 101.06 < at < 102.94]
    assert stage.delivered[-1][0] > 103.5


def test_it_starts_and_stops_a_thread_of_its_own() -> None:
    slot: LatestSlot[SourceFrame] = LatestSlot()
    arrived = threading.Event()
    pacer = Pacer(slot, lambda _: arrived.set(), 50, max_age=60)
    pacer.start()
    import time  # noqa: PLC0415  # this test's alone

    slot.put(SourceFrame(PICTURE, time.monotonic()))
    assert arrived.wait(2)
    pacer.stop()
    assert "relayd-pacer" not in {thread.name for thread in threading.enumerate()}


def test_a_pacer_never_started_can_be_stopped() -> None:
    Pacer(LatestSlot(), lambda _: None, 20, max_age=1).stop()


def test_a_delivery_that_fails_costs_its_beat_and_no_other() -> None:
    stage, tried = Stage(5), []

    def deliver(frame: SourceFrame) -> None:
        tried.append(frame)
        if len(tried) == 3:
            raise OSError("no more memory")

    stage.source(20)
    Pacer(stage.slot, deliver, 20, max_age=2.0, clock=stage)._run()
    assert len(tried) == pytest.approx(100, abs=2)
