"""Closes sessions before the machine sleeps, and reports when it is awake again.

A session is billed until it is closed, even if the machine sleeps. logind waits for holders of a
delay lock; without logind, the kernel shows a resume.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from relayd.clock import Backoff
from relayd.errors import BusMissing, BusUnavailable, SleepLockRefused
from relayd.logs import LogEvent, get
from relayd.relay.sleep.logind import DEFAULT_ADDRESS, Logind, LogindEvent, SleepLock
from relayd.relay.sleep.resume import ClockChanges, time_slept

MARGIN = 0.5
"""s before the end of logind's delay at which the lock is released at the latest."""
USUAL_DELAY = 5.0
"""s that logind waits for locks by default (InhibitDelayMaxSec)."""
LONGEST_LIMIT = 30.0
"""s that a sleep is delayed at most, even if logind allows more: a laptop in a bag gets hot."""
SHORTEST_SLEEP = 1.0
"""s; less is no sleep, but the delay between reading the two clocks."""
RETRY_FIRST, RETRY_CAP = 1.0, 60.0
"""s between two attempts to reach the bus."""

_log = get("sleep")


def limit_for(longest_delay: float) -> float:
    """Return the seconds that closing may take if logind waits `longest_delay` seconds.

    If it does not wait at all, closing races the sleep, and gets the usual time.
    """
    delay = longest_delay if longest_delay > 0 else USUAL_DELAY
    return min(LONGEST_LIMIT, delay - min(MARGIN, delay / 4))


def bus_address() -> str:
    """Return the D-Bus address of the system bus."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESS


class SleepWatch:
    """Reports the machine's sleep: calls `on_sleep` before it, `on_wake` after it.

    Short wake-ups in between (suspend-then-hibernate) are not reported. After a sleep that was
    not announced, only `on_wake` is called. All on the loop that runs `run()`.
    """

    def __init__(
        self,
        on_sleep: Callable[[], Awaitable[None]],
        on_wake: Callable[[], None],
        *,
        address: str | None = None,
        backoff: Backoff | None = None,
        slept: Callable[[], float] = time_slept,
    ) -> None:
        """Call `on_sleep`, which is cancelled at logind's limit, and `on_wake`.

        `address` is the system bus's (default: the usual one), `slept` returns the seconds that
        the machine has slept since its boot.
        """
        self._on_sleep, self._on_wake = on_sleep, on_wake
        self._address = address or bus_address()
        self._backoff = backoff or Backoff(RETRY_FIRST, RETRY_CAP)
        self._slept = slept
        self._slept_before = slept()
        self._limit = limit_for(USUAL_DELAY)
        self._lock: SleepLock | None = None
        self._asleep = False
        self._warned_of: set[str] = set()

    async def run(self) -> None:
        """Watch until cancelled, also without a bus or logind."""
        with ExitStack() as stack:
            stack.callback(self._release)
            if self._asleep:  # an earlier run failed during a sleep and missed its end
                self._wake()
            self._watch_clock(stack)
            await self._watch_logind()
            await asyncio.get_running_loop().create_future()

    def _watch_clock(self, stack: ExitStack) -> None:
        loop = asyncio.get_running_loop()
        try:
            changes = ClockChanges()
        except OSError as fault:
            _log.debug(LogEvent.SLEEP_NO_CLOCK_WATCH, reason=str(fault))
            return
        stack.callback(changes.close)
        loop.add_reader(changes.fileno(), self._on_clock_change, changes)
        stack.callback(loop.remove_reader, changes.fileno())

    def _on_clock_change(self, changes: ClockChanges) -> None:
        if not changes.changed() or self._asleep:  # logind reports the end of its own sleep
            return
        if self._slept() - self._slept_before >= SHORTEST_SLEEP:
            self._wake()

    async def _watch_logind(self) -> None:
        """Handle one connection after another; return if there has never been a bus."""
        loop, was_there = asyncio.get_running_loop(), False
        while True:
            began = loop.time()
            try:
                async with Logind.connected(self._address) as logind:
                    was_there = True
                    await self._handle_events(logind)
                    reason = "the connection ended"
            except BusUnavailable as fault:
                reason = str(fault)
                if isinstance(fault, BusMissing) and not was_there:
                    _log.debug(LogEvent.SLEEP_NO_BUS, reason=reason)
                    return
            self._release()  # without the bus it would only delay a sleep
            if self._asleep:
                self._wake()
            self._warn(LogEvent.SLEEP_BUS_UNAVAILABLE, reason)
            await asyncio.sleep(self._backoff.next_wait(loop.time() - began))

    async def _handle_events(self, logind: Logind) -> None:
        """Handle logind's events, until the connection ends."""
        while (event := await logind.next_event()) is not LogindEvent.LOST:
            match event:
                case LogindEvent.ARRIVED:
                    await self._on_logind_available(logind)
                case LogindEvent.SLEEPING:
                    await self._prepare_for_sleep()
                case LogindEvent.AWAKE:
                    self._wake()
                    await self._take_lock(logind)
                case LogindEvent.LEFT:
                    # The lock is kept: a logind that is restarted still counts it.
                    if self._asleep:
                        self._wake()

    async def _on_logind_available(self, logind: Logind) -> None:
        self._limit = limit_for(await logind.longest_delay())
        if await logind.is_preparing():
            await self._prepare_for_sleep()
            return
        if self._asleep:
            self._wake()
        await self._take_lock(logind)

    async def _prepare_for_sleep(self) -> None:
        """Close everything within the limit, then let the machine sleep."""
        if self._asleep:  # announced twice: by the signal and by the property
            return
        self._asleep = True
        _log.info(LogEvent.SLEEP_BEGINS, limit=self._limit)
        try:
            async with asyncio.timeout(self._limit) as timeout:
                await self._on_sleep()
        except Exception as fault:  # noqa: BLE001 - the machine sleeps anyway
            if timeout.expired():
                _log.warning(
                    LogEvent.SLEEP_NOT_READY, within=self._limit, fix="InhibitDelayMaxSec="
                )
            else:
                _log.error(LogEvent.SLEEP_FAILED, exc_info=fault)
        finally:
            self._release()

    def _wake(self) -> None:
        slept = self._slept()
        _log.info(LogEvent.SLEEP_ENDED, slept=max(0.0, round(slept - self._slept_before, 1)))
        self._asleep, self._slept_before = False, slept
        try:
            self._on_wake()
        except Exception as fault:  # noqa: BLE001 - the watch goes on
            _log.error(LogEvent.SLEEP_FAILED, exc_info=fault)

    async def _take_lock(self, logind: Logind) -> None:
        """Take a lock, and only then release the older one."""
        lock = None
        try:
            lock = await logind.take_lock("relayd", "closing face swap sessions")
        except SleepLockRefused as fault:
            self._warn(LogEvent.SLEEP_LOCK_REFUSED, str(fault))
        self._release()
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _warn(self, event: LogEvent, reason: str) -> None:
        """Warn the first time; repetitions are logged as debug."""
        if event in self._warned_of:
            _log.debug(event, reason=reason)
        else:
            self._warned_of.add(event)
            _log.warning(event, reason=reason)
