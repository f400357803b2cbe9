"""The watch of the machine's sleep, over a real bus."""

import asyncio
import socket
import time
from pathlib import Path

import pytest
import structlog

from relayd.clock import Backoff
from relayd.relay.sleep import logind
from relayd.relay.sleep.watch import LONGEST_LIMIT, SleepWatch, limit_for
from tests.sleep.conftest import Listener
from tests.sleep.machine import Machine

LOCKED = "locked sleep relayd delay 1"


async def lock_has_come(watch: SleepWatch) -> None:
    """Wait until the lock that logind gave has arrived."""
    async with asyncio.timeout(20):
        while watch._lock is None:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)


async def test_the_lock_is_taken_at_the_start_and_released_at_the_end(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address):
        await machine.expect(LOCKED)
    await machine.expect("released 0")
    assert listener.has_no_more_calls()


async def test_the_machine_sleeps_only_when_the_sessions_are_closed(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address):
        await machine.expect(LOCKED)
        listener.closed.clear()
        machine.command("suspend")
        await listener.expect("sleep")
        machine.command("list")
        await machine.expect("locks 1")
        listener.closed.set()
        await machine.expect("released 0")
        await machine.expect("asleep")
        await listener.expect("closed")


async def test_after_each_sleep_the_relay_is_woken_once_and_the_lock_taken_again(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address):
        for _ in range(3):
            await machine.expect(LOCKED)
            machine.command("suspend")
            await machine.expect("released 0")
            await machine.expect("asleep")
            machine.command("wake")
            for word in ("sleep", "closed", "wake"):
                await listener.expect(word)
        await machine.expect(LOCKED)
        assert listener.has_no_more_calls()


async def test_a_close_that_hangs_delays_the_sleep_no_longer_than_logind_waits(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind("--delay", "0.4")
    async with listener.watching(machine.address):
        await machine.expect(LOCKED)
        listener.closed.clear()
        with structlog.testing.capture_logs() as logs:
            machine.command("suspend")
            await listener.expect("sleep")
            await machine.expect("released 0")
        assert [entry["event"] for entry in logs] == ["sleep.begins", "sleep.not_ready"]
        await machine.expect("asleep")
        machine.command("wake")
        await listener.expect("wake")
        await machine.expect(LOCKED)


async def test_an_error_of_the_relay_neither_delays_the_sleep_nor_ends_the_watch(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address):
        listener.fault = RuntimeError("no")
        for _ in range(2):
            await machine.expect(LOCKED)
            machine.command("suspend")
            await listener.expect("sleep")
            await machine.expect("released 0")
            await machine.expect("asleep")
            machine.command("wake")
            await listener.expect("wake")


async def test_a_child_process_does_not_hold_the_lock(machine: Machine, listener: Listener) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address) as watch:
        await machine.expect(LOCKED)
        await lock_has_come(watch)
        child = await asyncio.create_subprocess_exec("sleep", "60", close_fds=False)
        try:
            machine.command("suspend")
            await machine.expect("released 0")
        finally:
            child.kill()
            await child.wait()


async def test_without_a_lock_sessions_are_closed_all_the_same(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind("--refuse")
    with structlog.testing.capture_logs() as logs:
        async with listener.watching(machine.address):
            for _ in range(2):
                await machine.expect("refused")
                machine.command("suspend")
                await machine.expect("asleep")
                machine.command("wake")
                for word in ("sleep", "closed", "wake"):
                    await listener.expect(word)
            await machine.expect("refused")
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["sleep.lock_refused"], "logged once"
    assert "Permission denied" in warnings[0]["reason"]


async def test_a_logind_that_comes_later_or_is_restarted_is_followed(
    machine: Machine, listener: Listener
) -> None:
    async with listener.watching(machine.address):
        await machine.start_logind()
        await machine.expect(LOCKED)
        await machine.stop_logind()
        await machine.start_logind()
        await machine.expect(LOCKED)
        machine.command("suspend")
        await listener.expect("sleep")
        await machine.expect("released 0")
    await listener.expect("closed")


async def test_the_relay_is_woken_when_logind_ends_during_a_sleep(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address):
        await machine.expect(LOCKED)
        machine.command("suspend")
        await machine.expect("released 0")
        await machine.stop_logind()
        for word in ("sleep", "closed", "wake"):
            await listener.expect(word)


async def test_a_relay_that_is_started_when_the_sleep_has_begun_closes_too(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind("--preparing")
    async with listener.watching(machine.address):
        for word in ("sleep", "closed"):
            await listener.expect(word)
        machine.command("wake")
        await listener.expect("wake")
        await machine.expect(LOCKED)


@pytest.mark.parametrize("asleep", [False, True])
async def test_a_bus_that_is_killed_and_comes_back_is_followed(
    machine: Machine, listener: Listener, *, asleep: bool
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address) as watch:
        await machine.expect(LOCKED)
        await lock_has_come(watch)
        if asleep:
            machine.command("suspend")
            await listener.expect("sleep")
            await listener.expect("closed")
            await machine.expect("released 0")
            await machine.expect("asleep")
        await machine.stop_bus()
        if asleep:
            await listener.expect("wake")
        else:
            await machine.expect("released 0")
        await machine.stop_logind()
        await machine.start_bus()
        await machine.start_logind()
        await machine.expect(LOCKED)


async def test_a_watch_that_failed_during_a_sleep_wakes_the_relay_when_it_runs_again(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"unix:path={tmp_path}/no-bus"
    watch = SleepWatch(listener.on_sleep, listener.on_wake, address=address)

    async def sleep_and_fail() -> None:
        await watch._prepare_for_sleep()
        raise ZeroDivisionError  # an unexpected error

    with monkeypatch.context() as failing:
        failing.setattr(watch, "_watch_logind", sleep_and_fail)
        with pytest.raises(ZeroDivisionError):
            await watch.run()
    again = asyncio.create_task(watch.run())
    for word in ("sleep", "closed", "wake"):
        await listener.expect(word)
    again.cancel()
    await asyncio.wait({again})


async def test_without_a_bus_it_logs_that_once_and_opens_nothing(
    tmp_path: Path, listener: Listener
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with listener.watching(f"unix:path={tmp_path}/no-bus"):
            async with asyncio.timeout(20):
                while not logs:  # noqa: ASYNC110 - nothing announces a log line
                    await asyncio.sleep(0)
            tasks = {task.get_name() for task in asyncio.all_tasks()}
            assert "relayd-dbus" not in tasks
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("sleep.no_bus", "debug")


@pytest.mark.parametrize("address", ["nonsense", "unix:nothing=1", "tcp:host=127.0.0.1,port=x"])
async def test_an_invalid_address_does_not_end_the_watch(listener: Listener, address: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with listener.watching(address):
            async with asyncio.timeout(20):
                while len(logs) < 2:  # noqa: ASYNC110 - nothing announces a log line
                    await asyncio.sleep(0.01)
    levels = [entry["log_level"] for entry in logs]
    assert levels[:2] == ["warning", "debug"], "warned of once"


async def test_a_bus_that_never_answers_is_given_up_and_tried_again(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logind, "CALL_TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{tmp_path}/bus")
        mute.listen()
        mute.setblocking(False)
        loop = asyncio.get_running_loop()
        async with listener.watching(f"unix:path={tmp_path}/bus"):
            for _ in range(2):
                async with asyncio.timeout(20):
                    caller, _ = await loop.sock_accept(mute)
                caller.close()
            quiet, _ = await loop.sock_accept(mute)
            with quiet:
                async with asyncio.timeout(20):
                    again, _ = await loop.sock_accept(mute)
                again.close()


async def test_signals_of_another_user_of_the_bus_are_ignored(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address):
        await machine.expect(LOCKED)
        machine.command("forge")
        await machine.expect("forged")
        machine.command("list")
        await machine.expect("locks 1")
        assert listener.has_no_more_calls()


def test_the_limit_ends_before_logind_stops_waiting() -> None:
    assert limit_for(5.0) == 4.5
    assert limit_for(0.4) == pytest.approx(0.3)
    assert limit_for(0.0) == 4.5, "logind does not wait: the usual time, in a race"
    assert limit_for(2**64 / 1e6) == LONGEST_LIMIT, "infinity"


def set_clock() -> None:
    """Set the wall clock to its current time: the kernel reports that all the same."""
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())
    except PermissionError:
        pytest.skip("ONLY ROOT MAY SET THE CLOCK, SO A RESUME WITHOUT LOGIND IS NOT TESTED")


async def test_a_resume_that_was_not_announced_wakes_the_relay(
    tmp_path: Path, listener: Listener
) -> None:
    async with listener.watching(f"unix:path={tmp_path}/no-bus"):
        await asyncio.sleep(0)
        for _ in range(2):
            listener.slept += 3600
            set_clock()
            await listener.expect("wake")
        assert listener.has_no_more_calls()


async def test_a_clock_that_is_set_is_no_resume(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    def slept() -> float:
        looked.set()
        return 100.0

    watch = SleepWatch(
        listener.on_sleep, listener.on_wake, address=f"unix:path={tmp_path}/no-bus", slept=slept
    )
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    looked.clear()
    set_clock()
    async with asyncio.timeout(20):
        await looked.wait()
    assert listener.has_no_more_calls()
    running.cancel()
    await asyncio.wait({running})


async def test_an_announced_sleep_wakes_the_relay_once_though_the_kernel_reports_it_too(
    machine: Machine, listener: Listener
) -> None:
    await machine.start_logind()
    async with listener.watching(machine.address):
        await machine.expect(LOCKED)
        machine.command("suspend")
        await machine.expect("released 0")
        await machine.expect("asleep")
        listener.slept += 3600
        set_clock()
        machine.command("wake")
        for word in ("sleep", "closed", "wake"):
            await listener.expect(word)
        await machine.expect(LOCKED)
        set_clock()
        machine.command("list")
        await machine.expect("locks 1")
        assert listener.has_no_more_calls()


async def test_without_timerfd_only_logind_is_watched(
    machine: Machine, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PermissionError("sandbox")

    monkeypatch.setattr("relayd.relay.sleep.watch.ClockChanges", refuse)
    await machine.start_logind()
    async with listener.watching(machine.address):
        await machine.expect(LOCKED)


def test_a_watch_opens_nothing_before_it_runs(listener: Listener) -> None:
    SleepWatch(listener.on_sleep, listener.on_wake, backoff=Backoff(1, 1))
