"""Signals of a process whose event loop runs."""

import asyncio
import os
import signal

import pytest
from structlog.testing import capture_logs

from relayd.process import early_signals
from relayd.process.signals import REPEATED_WITHIN, StopSignals, StopStep, reload_requests
from relayd.process.signals import stopped_by_signals as stopped


def steps(*moments: float) -> list[StopStep]:
    signals = StopSignals()
    return [signals.receive(moment) for moment in moments]


def test_the_first_stop_shuts_down_the_second_reminds_and_the_third_exits() -> None:
    assert steps(0, 5, 10, 15) == [StopStep.BEGIN, StopStep.REMIND, StopStep.EXIT, StopStep.EXIT]


def test_one_press_of_ctrl_c_that_a_launcher_forwards_counts_once() -> None:
    at_once = REPEATED_WITHIN / 2
    assert steps(0, at_once, 5, 5 + at_once) == [
        StopStep.BEGIN,
        StopStep.NOTHING,
        StopStep.REMIND,
        StopStep.NOTHING,
    ]


async def test_a_second_stop_says_what_is_pending_and_a_third_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    exited = asyncio.Event()

    def exit_now(code: int) -> None:
        codes.append(code)
        exited.set()

    monkeypatch.setattr("relayd.process.signals.REPEATED_WITHIN", 0.0)
    with capture_logs() as logs, stopped(exit_now=exit_now) as stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            assert not codes
            os.kill(os.getpid(), number)
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await stop.wait()
        async with asyncio.timeout(5):
            await exited.wait()
    assert codes == [128 + signal.SIGINT]
    (reminder,) = logs
    assert "closing the session" in reminder["doing"]
    assert "one more signal ends at once" in reminder["hint"]


async def test_earlier_signal_handlers_are_restored_afterwards() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    handled = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        own = signal.getsignal(signal.SIGTERM)
        with stopped():
            assert signal.getsignal(signal.SIGTERM) is not own
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, handled)
    assert [signal.getsignal(number) for number in numbers] == before


async def test_a_hangup_that_requests_a_reload_ends_nothing() -> None:
    with stopped(hangup_ends=False) as stop, reload_requests() as requested:
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            await requested.wait()
        assert not stop.is_set()


async def test_a_reload_requested_before_the_event_loop_ran_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        early_signals._note_hangup(signal.SIGHUP, None)
        with reload_requests() as requested:
            assert requested.is_set()
        with reload_requests() as requested:
            assert not requested.is_set(), "it is reported once"
    finally:
        signal.signal(signal.SIGHUP, before)
