"""An event loop whose time jumps: a day passes in seconds, and no thread is needed."""

import asyncio
import selectors
from collections.abc import Callable
from threading import Event
from typing import Any


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc,valid-type] # chosen by the platform
    """Waits for nothing: as much time as it should wait has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing will ever happen any more"
        self.passed += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time begins at 0; what is given to threads is done on the spot."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as fault:  # noqa: BLE001 - as an executor does
            future.set_exception(fault)
        return future


class LoopClock:
    """A loop's time as a relay's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.time()

    def sleep_until(self, moment: float, stop: Event) -> bool:
        raise AssertionError("nobody sleeps in threads here")
