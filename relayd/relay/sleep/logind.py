"""logind on the system's D-Bus: the lock that delays a sleep, and the signals that announce one.

The only module that uses the D-Bus library. Signals are accepted only from the bus itself and
from the connection that owns logind's name: any local user may send us a signal.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Final

from dbus_fast import Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

from relayd.errors import BusMissing, BusUnavailable, SleepLockRefused

DEFAULT_ADDRESS: Final = "unix:path=/run/dbus/system_bus_socket"
"""The address of the system bus unless $DBUS_SYSTEM_BUS_ADDRESS is set."""
CALL_TIMEOUT: Final = 10.0
"""s that the bus or logind may take to answer; both take milliseconds."""

_BUS: Final = "org.freedesktop.DBus"
_LOGIN: Final = "org.freedesktop.login1"
_LOGIN_PATH: Final = "/org/freedesktop/login1"
_MANAGER: Final = "org.freedesktop.login1.Manager"
_MATCHES: Final = (
    f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{_LOGIN}'",
    f"type='signal',sender='{_LOGIN}',path='{_LOGIN_PATH}',member='PrepareForSleep'",
)


class LogindEvent(Enum):
    """What logind, or the bus, reported."""

    ARRIVED = "arrived"
    """logind is running; also the first event if it ran before."""
    LEFT = "left"
    """logind released its name: it was stopped, is being restarted, or crashed."""
    SLEEPING = "sleeping"
    """The machine goes to sleep as soon as no lock is held."""
    AWAKE = "awake"
    """The machine woke up, or does not sleep after all."""
    LOST = "lost"
    """The connection to the bus ended; there are no further events."""


class SleepLock:
    """A delay lock: logind waits for its release, within limits, before the machine sleeps."""

    def __init__(self, fd: int) -> None:
        """Own `fd`; closing it releases the lock."""
        self._fd = fd

    def release(self) -> None:
        """Let the machine sleep; does nothing the second time."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class Logind:
    """logind, over one connection to the system bus. It need not run, or may start later."""

    def __init__(self, bus: MessageBus) -> None:
        """Use `bus`, which is already connected."""
        self._bus = bus
        self._owner = ""
        self._events: asyncio.Queue[LogindEvent] = asyncio.Queue()
        self._lock: SleepLock | None = None
        self._lock_serial = 0
        bus.add_message_handler(self._on_message)

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: str) -> AsyncIterator["Logind"]:
        """Connect to the bus at `address` for a block.

        Raises BusMissing if there is no socket, BusUnavailable if nothing answers.
        """
        bus = await _connect(address)
        logind = cls(bus)
        ended = asyncio.create_task(_until_disconnected(bus), name="relayd-dbus")
        ended.add_done_callback(logind._on_disconnect)
        try:
            await logind._subscribe()
            yield logind
        finally:
            bus.disconnect()
            await asyncio.wait({ended}, timeout=CALL_TIMEOUT)
            ended.cancel()
            logind._drop_lock()

    async def next_event(self) -> LogindEvent:
        """Wait for the next event."""
        return await self._events.get()

    async def take_lock(self, who: str, why: str) -> SleepLock:
        """Take a delay lock on the machine's sleep; `logind` shows its users who and why.

        Raises SleepLockRefused if logind refuses, BusUnavailable if it does not answer.
        """
        request = _logind_call(_MANAGER, "Inhibit", "ssss", ["sleep", who, why, "delay"])
        self._lock_serial = request.serial = self._bus.next_serial()
        reply = await self._call(request)
        lock, self._lock = self._lock, None
        if lock is None:
            raise SleepLockRefused(f"logind gave no lock: {_error_text(reply)}")
        return lock

    async def is_preparing(self) -> bool:
        """Whether the machine goes to sleep right now. Raises BusUnavailable."""
        return bool(await self._property("PreparingForSleep"))

    async def longest_delay(self) -> float:
        """Seconds for which logind waits for locks (InhibitDelayMaxSec). Raises BusUnavailable."""
        return await self._property("InhibitDelayMaxUSec") / 1e6

    async def _subscribe(self) -> None:
        for rule in _MATCHES:
            reply = await self._call(_bus_call("AddMatch", rule))
            if reply.message_type is MessageType.ERROR:
                raise BusUnavailable(f"the bus refuses subscriptions: {_error_text(reply)}")
        reply = await self._call(_bus_call("GetNameOwner", _LOGIN))
        if reply.message_type is MessageType.METHOD_RETURN:
            self._owner = reply.body[0]
            self._events.put_nowait(LogindEvent.ARRIVED)

    async def _property(self, name: str) -> int:
        request = _logind_call("org.freedesktop.DBus.Properties", "Get", "ss", [_MANAGER, name])
        reply = await self._call(request)
        if reply.message_type is MessageType.ERROR:
            raise BusUnavailable(f"logind does not report its {name}: {_error_text(reply)}")
        match reply.body:
            case [Variant(value=int() as value)]:
                return value
        raise BusUnavailable(f"logind's {name} is no number")

    async def _call(self, request: Message) -> Message:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                reply = await self._bus.call(request)
        except Exception as fault:
            raise BusUnavailable(f"no answer to {request.member}: {fault!r}") from fault
        if reply is None:  # the library ends calls like this when the connection closes
            raise BusUnavailable(f"no answer to {request.member}: the connection was closed")
        return reply

    def _on_message(self, message: Message) -> bool:
        """Handle a received message: its descriptors first, which the library never closes."""
        is_lock = message.reply_serial == self._lock_serial != 0
        for fd in message.unix_fds:
            if is_lock and self._lock is None:
                os.set_inheritable(fd, False)  # a child that held it would delay each sleep
                self._lock = SleepLock(fd)
            else:
                os.close(fd)
        if message.message_type is MessageType.SIGNAL:
            self._on_signal(message)
        return False

    def _on_signal(self, message: Message) -> None:
        match message.sender, message.interface, message.member, message.body:
            case (sender, "org.freedesktop.DBus", "NameOwnerChanged", [name, _, str() as owner]):
                if sender == _BUS and name == _LOGIN:
                    self._owner = owner
                    self._events.put_nowait(LogindEvent.ARRIVED if owner else LogindEvent.LEFT)
            case (sender, interface, "PrepareForSleep", [bool() as begins]):
                if sender == self._owner and interface == _MANAGER:
                    event = LogindEvent.SLEEPING if begins else LogindEvent.AWAKE
                    self._events.put_nowait(event)

    def _on_disconnect(self, _ended: asyncio.Task[None]) -> None:
        self._events.put_nowait(LogindEvent.LOST)

    def _drop_lock(self) -> None:
        """Release a lock that came too late to be used."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


async def _connect(address: str) -> MessageBus:
    try:
        bus = MessageBus(address, negotiate_unix_fd=True)
        async with asyncio.timeout(CALL_TIMEOUT):
            await bus.connect()
    except FileNotFoundError as fault:
        raise BusMissing(f"there is no system bus at {address}") from fault
    except Exception as fault:
        raise BusUnavailable(f"the system bus at {address} does not answer: {fault!r}") from fault
    return bus


async def _until_disconnected(bus: MessageBus) -> None:
    with suppress(Exception):  # the next attempt shows why it ended
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # untyped there


def _bus_call(member: str, argument: str) -> Message:
    return Message(
        destination=_BUS,
        path="/org/freedesktop/DBus",
        interface=_BUS,
        member=member,
        signature="s",
        body=[argument],
    )


def _logind_call(interface: str, member: str, signature: str, body: list[str]) -> Message:
    return Message(
        destination=_LOGIN,
        path=_LOGIN_PATH,
        interface=interface,
        member=member,
        flags=MessageFlag.NO_AUTOSTART,  # if logind is stopped, keep it so
        signature=signature,
        body=body,
    )


def _error_text(reply: Message) -> str:
    text = " ".join(str(part) for part in reply.body)
    return f"{reply.error_name}: {text}" if text else str(reply.error_name)
