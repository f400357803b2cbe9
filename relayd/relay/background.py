"""Background jobs of the relay: one that fails is logged and restarted.

The call does not depend on them, so an error in one neither ends the call nor stops the job for
good.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from relayd.clock import Backoff
from relayd.logs import LogEvent, get
from relayd.process import limits

RESTART_BACKOFF = 1.0, 60.0
"""s, first and longest wait before a failed job is restarted."""
GOOD_AFTER = 60.0
"""s of running after which a job's next failure counts as the first again."""
REMEMBERED = 20
"""Failure messages that are not logged again; some contain numbers that change."""

_log = get("background")


async def keep_running(
    name: str,
    job: Callable[[], Coroutine[Any, Any, None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run `job` until it returns, restarting it whenever it raises.

    Each distinct failure is logged once, as `background.failed`: a system limit by its name,
    anything else with its traceback. Cancelling this task cancels the job and ends it.
    """
    loop, backoff = asyncio.get_running_loop(), Backoff(*RESTART_BACKOFF, good_after=GOOD_AFTER)
    logged: deque[str] = deque(maxlen=REMEMBERED)
    while True:
        began = loop.time()
        try:
            await job()
        except asyncio.CancelledError as fault:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure: BaseException = fault  # something within the job was cancelled, not the job
        except Exception as fault:  # noqa: BLE001 - any failure restarts the job
            failure = fault
        else:
            return
        limit = limits.error_for(failure)
        reason = str(limit or f"{type(failure).__name__}: {failure}")
        if reason not in logged:
            logged.append(reason)
            trace = None if limit else failure
            _log.error(LogEvent.BACKGROUND_FAILED, job=name, reason=reason, exc_info=trace)
        await sleep(backoff.next_wait(loop.time() - began))


@asynccontextmanager
async def in_background(
    name: str, job: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[asyncio.Task[None]]:
    """Keep `job` running in a task `relayd-NAME` while the block runs; then cancel it."""
    task = asyncio.create_task(keep_running(name, job), name=f"relayd-{name}")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
