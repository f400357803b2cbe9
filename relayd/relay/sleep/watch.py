"""Closes sessions before the computer sleeps, and lets the relay go on after it.

A sleeping computer shows nothing, yet a session is billed until it is closed. logind waits for
holders of a delay lock; without logind the kernel reports the resume.
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
"""s before logind's own limit at which the lock is released at the latest."""
USUAL_DELAY = 5.0
"""s that logind waits for locks unless it is configured otherwise (InhibitDelayMaxSec)."""
LONGEST_LIMIT = 30.0
"""s that a sleep is delayed at most, even if logind allows more: a laptop gets hot in a bag."""
SHORTEST_SLEEP = 1.0
"""s: a shorter difference comes from reading the two clocks one after the other."""
RETRY_FIRST, RETRY_CAP = 1.0, 60.0
"""s between two tries to reach the bus."""

_log = get("sleep")


def limit_for(longest_delay: float) -> float:
    """Return the seconds that closing may take if logind waits `longest_delay` seconds.

    If it does not wait at all, closing races with the sleep and gets the usual time.
    """
    delay = longest_delay if longest_delay > 0 else USUAL_DELAY
    return min(LONGEST_LIMIT, delay - min(MARGIN, delay / 4))


def bus_address() -> str:
    """Return the D-Bus address of the system's bus."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESS


class SleepWatch:
    """Reports the computer's sleep: `on_sleep` before it, `on_wake` after it.

    Between the two, logind's own short awakenings (suspend-then-hibernate) are not reported. After
    an unannounced sleep only `on_wake` is called. All in the event loop that runs `run()`.
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

        `address` is that of the system bus (default: the usual one), `slept` returns the seconds
        that the computer has slept since its boot.
        """
        self._on_sleep, self._on_wake = on_sleep, on_wake
        self._address = address or bus_address()
        self._backoff = backoff or Backoff(RETRY_FIRST, RETRY_CAP)
        self._slept = slept
        self._slept_before = slept()
        self._limit = limit_for(USUAL_DELAY)
        self._lock: SleepLock | None = None
        self._asleep = False
        self._warned_events: set[str] = set()

    async def run(self) -> None:
        """Watch until cancelled, even without a bus or logind."""
        with ExitStack() as stack:
            stack.callback(self._release)
            if self._asleep:  # an earlier run failed during a sleep, whose end may go unreported
                self._wake()
            self._watch_clock(stack)
            await self._follow_logind()
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
        if not changes.changed() or self._asleep:  # logind reports the end itself
            return
        if self._slept() - self._slept_before >= SHORTEST_SLEEP:
            self._wake()

    async def _follow_logind(self) -> None:
        """Serve one connection after another; ends if there has never been a bus."""
        loop, was_there = asyncio.get_running_loop(), False
        while True:
            began = loop.time()
            try:
                async with Logind.connected(self._address) as logind:
                    was_there = True
                    await self._serve(logind)
                    reason = "the connection ended"
            except BusUnavailable as fault:
                reason = str(fault)
                if isinstance(fault, BusMissing) and not was_there:
                    _log.debug(LogEvent.SLEEP_NO_BUS, reason=reason)
                    return
            self._release()  # unannounced sleeps would only be delayed
            if self._asleep:
                self._wake()
            self._warn(LogEvent.SLEEP_BUS_UNAVAILABLE, reason)
            await asyncio.sleep(self._backoff.next_wait(loop.time() - began))

    async def _serve(self, logind: Logind) -> None:
        """Handle logind's events until the connection ends."""
        while (event := await logind.next_event()) is not LogindEvent.LOST:
            match event:
                case LogindEvent.ARRIVED:
                    await self._on_logind_start(logind)
                case LogindEvent.SLEEPING:
                    await self._go_to_sleep()
                case LogindEvent.AWAKE:
                    self._wake()
                    await self._take_lock(logind)
                case LogindEvent.LEFT:
                    # Keep the lock: a restarted logind still counts it.
                    if self._asleep:
                        self._wake()

    async def _on_logind_start(self, logind: Logind) -> None:
        self._limit = limit_for(await logind.longest_delay())
        if await logind.is_preparing():
            await self._go_to_sleep()
            return
        if self._asleep:
            self._wake()
        await self._take_lock(logind)

    async def _go_to_sleep(self) -> None:
        """Close everything within the limit, then let the computer sleep."""
        if self._asleep:  # reported by both signal and property
            return
        self._asleep = True
        _log.info(LogEvent.SLEEP_BEGINS, limit=self._limit)
        try:
            async with asyncio.timeout(self._limit) as timeout:
                await self._on_sleep()
        except Exception as fault:  # noqa: BLE001 - the computer sleeps anyway
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
        except Exception as fault:  # noqa: BLE001 - keep watching
            _log.error(LogEvent.SLEEP_FAILED, exc_info=fault)

    async def _take_lock(self, logind: Logind) -> None:
        """Take a lock, and only then release an older one."""
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
        """Warn the first time; log repetitions at debug level."""
        if event in self._warned_events:
            _log.debug(event, reason=reason)
        else:
            self._warned_events.add(event)
            _log.warning(event, reason=reason)
