"""A background job that fails never ends the relay and is always restarted."""

import asyncio

import pytest
from structlog.testing import capture_logs

from relayd.akool.upkeep import CreditWatch
from relayd.relay.background import in_background, keep_running


class Waits:
    """Records the waits, and cancels the job's task after `most` of them."""

    def __init__(self, most: int) -> None:
        self.all: list[float] = []
        self._most = most

    async def __call__(self, seconds: float) -> None:
        self.all.append(seconds)
        if len(self.all) >= self._most:
            raise asyncio.CancelledError


async def test_a_failed_job_is_restarted_after_waits_that_grow_to_a_minute() -> None:
    waits = Waits(9)

    async def job() -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await keep_running("credit", job, sleep=waits)
    assert waits.all[0] == 1.0
    assert waits.all[0] < waits.all[2] < waits.all[4]
    assert 45 <= waits.all[-1] <= 75
    (entry,) = logs
    assert entry["event"] == "background.failed"
    assert entry["job"] == "credit"
    assert "TCPTransport" in entry["reason"]


async def test_each_distinct_failure_is_logged_once() -> None:
    reasons = iter(["a", "b", "a", "b", "c"])

    async def job() -> None:
        raise ValueError(next(reasons))

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await keep_running("x", job, sleep=Waits(5))
    assert [entry["reason"] for entry in logs] == [
        "ValueError: a",
        "ValueError: b",
        "ValueError: c",
    ]


async def test_a_limit_of_the_system_is_named_without_a_traceback() -> None:
    async def job() -> None:
        raise RuntimeError("can't start new thread")

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await keep_running("budget", job, sleep=Waits(3))
    (entry,) = logs
    assert entry["reason"].startswith("no thread can be started")
    assert entry["exc_info"] is None


async def test_a_job_that_returns_is_not_restarted() -> None:
    async def job() -> None:
        pass

    await keep_running("x", job)


async def test_only_the_end_of_its_block_cancels_a_job() -> None:
    ended: list[str] = []
    cancelled_inside = asyncio.Event()

    async def job() -> None:
        if not cancelled_inside.is_set():
            cancelled_inside.set()
            raise asyncio.CancelledError  # as a library's own cancel scope may let through
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("job")

    async def at_once(_seconds: float) -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(keep_running("x", job, sleep=at_once))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["job"]

    async with in_background("y", asyncio.Event().wait) as task:  # type: ignore[arg-type]  # returns True, but never returns
        await asyncio.sleep(0)
        assert task.get_name() == "relayd-y"
    assert task.cancelled()


async def test_a_credit_lookup_that_fails_unexpectedly_ends_no_call() -> None:
    class Client:
        async def credit(self) -> float:
            raise RuntimeError("the handler is closed")

    watch = CreditWatch(Client())  # type: ignore[arg-type]  # has the method used
    async with in_background("credit", watch.run) as task:
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
