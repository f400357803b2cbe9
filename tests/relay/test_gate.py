"""How swapped frames get into the shown slot, and that no late one does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from relayd.media.frames import Geometry, StandbyFrame, SwappedFrame, black
from relayd.media.slots import LatestSlot
from relayd.output.clock import Fallback, OutputClock, Shown
from relayd.relay.gate import FrameGate

SIZE = Geometry(16, 16)
PICTURES = {epoch: np.full(SIZE.shape, epoch, np.uint8) for epoch in range(50)}


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float, stop: threading.Event) -> bool:
        self.time = moment
        return stop.is_set()


class Rig:
    """A gate with an output clock that never runs; the test asks what a tick would show."""

    def __init__(self, fallback: Fallback) -> None:
        self.clock = Clock()
        self.slot: LatestSlot[SwappedFrame] = LatestSlot()
        self.gate = FrameGate(self.slot, holds=fallback is Fallback.HOLD)
        standby = StandbyFrame(black(SIZE), "standby")
        self.output_clock = OutputClock(
            [], self.slot, standby, fps=20, policy=fallback, clock=self.clock
        )

    def put(self, epoch: int) -> bool:
        return self.gate.put(epoch, SwappedFrame(PICTURES[epoch], self.clock.now()))

    def shows(self) -> tuple[Shown, int]:
        """Return the kind of picture, and its value: the epoch of a swapped one."""
        frame, kind = self.output_clock._choose(self.clock.now())
        return kind, int(frame.i420[0, 0])


@pytest.fixture(params=[Fallback.STANDBY, Fallback.HOLD])
def rig(request: Any) -> Rig:
    return Rig(request.param)


def test_nothing_passes_before_an_epoch_is_shown(rig: Rig) -> None:
    assert not rig.put(1)
    assert rig.shows()[0] is Shown.STANDBY


def test_only_frames_of_the_shown_epoch_pass_and_are_counted(rig: Rig) -> None:
    rig.gate.show(2)
    assert [rig.put(epoch) for epoch in (1, 2, 3, 2)] == [False, True, False, True]
    assert rig.gate.passed == 2
    assert rig.shows() == (Shown.FRESH, 2)


def test_a_frame_of_the_last_call_is_not_the_first_of_the_next(rig: Rig) -> None:
    rig.gate.show(1)
    rig.put(1)
    # The arrival thread already has the frame when the last reader leaves.
    rig.gate.shut()
    assert not rig.put(1)
    rig.clock.time += 3600
    assert rig.shows()[0] is Shown.STANDBY
    rig.gate.show(2)
    assert not rig.put(1)
    assert rig.shows()[0] is Shown.STANDBY


def test_a_takeover_keeps_the_old_picture_until_the_first_of_the_new_session(rig: Rig) -> None:
    rig.gate.show(1)
    rig.put(1)
    assert rig.shows() == (Shown.FRESH, 1)
    rig.gate.show(2)
    assert rig.shows() == (Shown.REPEATED, 1)
    assert not rig.put(1)
    rig.put(2)
    assert rig.shows() == (Shown.FRESH, 2)


def test_showing_the_same_epoch_again_changes_nothing(rig: Rig) -> None:
    rig.gate.show(1)
    rig.put(1)
    rig.gate.show(1)
    assert rig.shows() == (Shown.FRESH, 1)


@pytest.mark.parametrize(
    ("fallback", "while_away"), [(Fallback.STANDBY, Shown.STANDBY), (Fallback.HOLD, Shown.REPEATED)]
)
def test_without_a_source_echoes_do_not_pass_and_only_hold_keeps_the_picture(
    fallback: Fallback, while_away: Shown
) -> None:
    rig = Rig(fallback)
    rig.gate.show(1)
    rig.put(1)
    rig.shows()
    rig.gate.freeze()
    assert not rig.put(1)
    assert rig.shows()[0] is while_away
    rig.gate.thaw()
    assert rig.put(1)
    assert rig.shows() == (Shown.FRESH, 1)


@pytest.mark.parametrize("fallback", [Fallback.STANDBY, Fallback.HOLD])
def test_a_picture_is_held_beyond_its_session_but_never_beyond_the_call(fallback: Fallback) -> None:
    rig = Rig(fallback)
    rig.gate.show(1)
    rig.put(1)
    rig.shows()
    rig.gate.freeze()
    rig.gate.show(None)
    rig.gate.thaw()
    assert (rig.shows()[0] is Shown.REPEATED) is (fallback is Fallback.HOLD)
    rig.gate.shut()
    assert rig.shows()[0] is Shown.STANDBY


def test_a_session_chosen_while_the_source_is_away_shows_nothing_until_it_is_back(rig: Rig) -> None:
    rig.gate.freeze()
    rig.gate.show(1)
    assert not rig.put(1)
    rig.gate.thaw()
    assert rig.put(1)


@contextmanager
def hammered(rig: Rig) -> Iterator[None]:
    """Offer frames of all epochs from four threads, as fast as possible."""
    stop = threading.Event()

    def offer() -> None:
        while not stop.is_set():
            for epoch in PICTURES:
                rig.put(epoch)

    threads = [threading.Thread(target=offer) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_frame_of_an_old_epoch_enters_after_a_change_however_threads_race(rig: Rig) -> None:
    with hammered(rig):
        for epoch in range(1, 40):
            rig.gate.show(epoch)
            (begun, _), enough = rig.slot.latest(), rig.gate.passed + 20
            while rig.gate.passed < enough:
                number, frame = rig.slot.latest()
                if number > begun and frame is not None:
                    assert int(frame.i420[0, 0]) == epoch


@pytest.mark.parametrize("close", [lambda gate: gate.show(None), FrameGate.freeze])
def test_the_slot_stays_empty_once_the_gate_is_shut_however_threads_race(
    close: Callable[[FrameGate], None],
) -> None:
    rig = Rig(Fallback.STANDBY)
    with hammered(rig):
        for epoch in range(1, 40):
            rig.gate.thaw()
            rig.gate.show(epoch)
            enough = rig.gate.passed + 5
            while rig.gate.passed < enough:
                pass
            close(rig.gate)
            passed = rig.gate.passed
            assert all(rig.slot.latest()[1] is None for _ in range(50))
            assert rig.gate.passed == passed
