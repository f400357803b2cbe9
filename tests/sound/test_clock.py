"""The tick: even, joined, and without bursts after a stall."""

import threading
import time
from threading import Event

import pytest
import structlog

from relayd.sound.clock import HELD, SoundClock


class Steps:
    """A clock in which waiting takes no time; it ends after some waits."""

    def __init__(self, waits: int) -> None:
        self._waits, self._now = waits, 100.0

    def now(self) -> float:
        return self._now

    def sleep_until(self, moment: float, stop: Event) -> bool:
        self._now = max(self._now, moment)
        self._waits -= 1
        return self._waits < 0 or stop.is_set()

    def work(self, seconds: float) -> None:
        self._now += seconds


def ticks_of(works: list[float]) -> tuple[list[int], SoundClock]:
    """Return the ms of each call since the first, when the calls take so long; two a wake-up."""
    clock = Steps(len(works) // 2)
    dues: list[int] = []

    def on_tick(due: float) -> None:
        clock.work(works[len(dues)])
        dues.append(round((due - 100.0) * 1000))

    tick = SoundClock(on_tick, clock)
    tick._run()
    return dues, tick


def test_calls_are_due_at_multiples_of_10_ms_whatever_they_take() -> None:
    dues, tick = ticks_of([0.0, 0.004, 0.0099, 0.0])
    assert dues == [0, 10, 20, 30]
    assert tick.counts.skipped == 0


def test_a_short_delay_is_caught_up_without_a_call_lost() -> None:
    dues, tick = ticks_of([0.025, 0.0, 0.0, 0.0])
    assert dues == [0, 10, 20, 30]
    assert tick.counts.skipped == 0


def test_after_a_stall_calls_are_left_out() -> None:
    dues, tick = ticks_of([0.0, 0.0, 0.0, 0.505, 0.0, 0.0])
    assert dues == [0, 10, 20, 30, 520, 530]
    assert tick.counts.skipped == 48
    assert tick.counts.ticks == 6


def test_no_call_comes_before_it_is_due_or_later_than_promised() -> None:
    clock, lates = Steps(50), list[float]()
    SoundClock(lambda due: lates.append(clock.now() - due), clock)._run()
    assert len(lates) == 100
    assert min(lates) == pytest.approx(0.0, abs=1e-9)
    assert max(lates) == pytest.approx(HELD, abs=1e-9)


def test_stop_returns_when_the_last_call_has_returned() -> None:
    entered, calls = Event(), []

    def on_tick(_due: float) -> None:
        entered.set()
        time.sleep(0.05)
        calls.append(threading.current_thread().name)

    tick = SoundClock(on_tick)
    tick.start()
    assert entered.wait(10)
    tick.stop()
    count = len(calls)
    assert set(calls) == {"relayd-sound"}
    time.sleep(0.05)
    assert len(calls) == count
    tick.stop()


def test_a_beat_that_raises_is_logged_once_and_the_beats_go_on() -> None:
    clock, calls = Steps(50), []

    def on_tick(due: float) -> None:
        calls.append(due)
        raise ValueError("broken")

    with structlog.testing.capture_logs() as logs:
        SoundClock(on_tick, clock)._run()
    assert len(calls) == 100
    assert [line["event"] for line in logs] == ["sound.tick_failed"]


def test_stop_before_start_does_nothing() -> None:
    SoundClock(lambda _due: pytest.fail("called")).stop()
