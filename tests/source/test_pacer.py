import threading
from collections.abc import Callable
from threading import Event

import numpy as np
import pytest

from relayd.media.frames import Geometry, SourceFrame, black
from relayd.media.slots import LatestSlot
from relayd.source.pacer import Pacer

PICTURE = black(Geometry(16, 16))


class Rig:
    """A clock that jumps from moment to moment, and puts the pictures that are due."""

    def __init__(self, seconds: float) -> None:
        self.time, self.end = 100.0, 100.0 + seconds
        self.slot: LatestSlot[SourceFrame] = LatestSlot()
        self.arrivals: list[float] = []
        self.delivered: list[tuple[float, SourceFrame]] = []
        self.at: dict[float, Callable[[], None]] = {}

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float, stop: Event) -> bool:
        while not stop.is_set():
            picture = min([*self.arrivals[:1], moment])
            action = min([*self.at, moment])
            if min(picture, action) >= moment:
                break
            self.time = max(self.time, min(picture, action))
            if action < picture:
                self.at.pop(action)()
            else:
                self.slot.put(SourceFrame(PICTURE, self.arrivals.pop(0)))
        else:
            return True
        self.time = max(self.time, moment)
        return False

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
        self.run(pacer)
        return pacer

    def run(self, pacer: Pacer) -> None:
        self.at[self.end] = pacer.stop
        pacer._run()


@pytest.mark.parametrize("rate", [1, 12, 19, 20, 24, 25, 30, 50, 60, 240])
def test_any_rate_becomes_20_fps(rate: float) -> None:
    rig = Rig(20)
    rig.source(rate)
    pacer = rig.play()
    assert len(rig.delivered) == pytest.approx(400, abs=2)
    gaps = np.diff([at for at, _ in rig.delivered])
    assert gaps.min() >= 0.0249
    assert gaps.max() <= 0.1001
    shown = len({frame.captured_at for _, frame in rig.delivered})
    assert shown == pytest.approx(min(rate, 20) * 20, abs=3)
    assert pacer.counters.repeated == len(rig.delivered) - shown
    assert pacer.counters.dropped == pytest.approx(max(0, rate - 20) * 20, abs=rate / 10 + 3)


@pytest.mark.parametrize("rate", [12, 15, 20, 24, 25, 29.97, 30, 50, 60])
def test_a_picture_is_delivered_when_it_arrives(rate: float) -> None:
    rig = Rig(20)
    rig.source(rate)
    rig.play()
    waits: dict[float, float] = {}
    for at, frame in rig.delivered:
        waits.setdefault(frame.captured_at, at - frame.captured_at)
    settled = [wait for captured, wait in waits.items() if captured > 100.5]
    assert max(settled) <= 1e-6


def test_a_picture_is_not_delivered_beyond_the_maximum_age() -> None:
    rig = Rig(6)
    rig.source(30, stop=2)
    pacer = rig.play(max_age=1.0)
    assert rig.delivered[-1][0] == pytest.approx(103, abs=0.1)
    assert pacer.counters.starved == pytest.approx(60, abs=3)


def test_a_cleared_slot_ends_delivery_at_once() -> None:
    rig = Rig(4)
    rig.source(30, stop=1)
    rig.at[101.5] = rig.slot.clear
    rig.play(max_age=10)
    assert rig.delivered[-1][0] == pytest.approx(101.5, abs=0.051)


def test_nothing_is_delivered_while_paused() -> None:
    rig = Rig(4)
    rig.source(30)
    pacer = Pacer(rig.slot, lambda f: rig.delivered.append((rig.time, f)), 20, max_age=2, clock=rig)
    rig.at = {101.0: pacer.pause, 103.0: pacer.resume}
    rig.run(pacer)
    assert not [at for at, _ in rig.delivered if 101.06 < at < 102.94]
    assert rig.delivered[-1][0] > 103.5


def test_it_starts_and_stops_its_own_thread() -> None:
    slot: LatestSlot[SourceFrame] = LatestSlot()
    arrived = threading.Event()
    pacer = Pacer(slot, lambda _: arrived.set(), 50, max_age=60)
    pacer.start()
    import time  # noqa: PLC0415  # only for this test

    slot.put(SourceFrame(PICTURE, time.monotonic()))
    assert arrived.wait(2)
    pacer.stop()
    assert "relayd-pacer" not in {thread.name for thread in threading.enumerate()}


def test_a_pacer_that_was_never_started_can_be_stopped() -> None:
    Pacer(LatestSlot(), lambda _: None, 20, max_age=1).stop()


def test_a_delivery_that_fails_costs_its_tick_and_no_other() -> None:
    rig, tried = Rig(5), []

    def deliver(frame: SourceFrame) -> None:
        tried.append(frame)
        if len(tried) == 3:
            raise OSError("no more memory")

    rig.source(20)
    rig.run(Pacer(rig.slot, deliver, 20, max_age=2.0, clock=rig))
    assert len(tried) == pytest.approx(100, abs=2)
