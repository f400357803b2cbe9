"""A machine with a bus and a logind, and a listener that records what a watch reports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relayd.clock import Backoff
from relayd.relay.sleep.watch import SleepWatch
from tests.sleep.machine import TIMEOUT, Machine, missing


@pytest.fixture(scope="session")
def lacks() -> str:
    return missing()


@pytest.fixture
async def machine(tmp_path: Path, lacks: str) -> AsyncIterator[Machine]:
    if lacks:
        pytest.skip(f"NO D-BUS, SO THE WATCH OF THE MACHINE'S SLEEP IS NOT TESTED: {lacks}")
    machine = Machine(tmp_path)
    await machine.start_bus()
    yield machine
    await machine.stop()


class Listener:
    """Records a watch's calls; `closed` lets `on_sleep` end."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[str] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.closed.set()
        self.fault: Exception | None = None
        self.slept = 100.0

    async def on_sleep(self) -> None:
        self._calls.put_nowait("sleep")
        if self.fault:
            raise self.fault
        await self.closed.wait()
        self._calls.put_nowait("closed")

    def on_wake(self) -> None:
        self._calls.put_nowait("wake")
        if self.fault:
            raise self.fault

    async def expect(self, expected: str) -> None:
        async with asyncio.timeout(TIMEOUT):
            assert await self._calls.get() == expected

    def has_no_more_calls(self) -> bool:
        return self._calls.empty()

    @asynccontextmanager
    async def watching(self, address: str) -> AsyncIterator[SleepWatch]:
        """Run a watch of the machine at `address` for a block."""
        watch = SleepWatch(
            self.on_sleep,
            self.on_wake,
            address=address,
            backoff=Backoff(0.05, 0.2),
            slept=lambda: self.slept,
        )
        running = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            ended = running.done()
            running.cancel()
            await asyncio.wait({running})
            assert not ended, "it runs until it is cancelled"


@pytest.fixture
def listener() -> Listener:
    return Listener()
