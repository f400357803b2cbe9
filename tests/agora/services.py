"""The processes that have loaded the stand-in library: their calls, and faults inside them."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.agora.connection import Connection
from tests.agora.wire import Message, encode

KEPT_CALLS = 50_000
"""Calls remembered: many minutes of a relay."""
APPLY_TIMEOUT = 5.0
"""s that the library may take to set a fault: less than a test waits for the hub."""


class Call(NamedTuple):
    """A call of the library's API."""

    name: str
    thread: int
    """The caller's thread id."""
    in_callback: bool
    """Made inside one of the library's own callbacks, which Agora forbids."""
    pid: int


@dataclass(slots=True)
class Preset:
    """Settings for later services."""

    hang: tuple[str, ...] = ()
    """Functions that never return, without "agora_"."""
    fail: dict[str, int] = field(default_factory=dict)
    """Functions that do nothing and return this."""
    init: int = 0
    """What agora_service_initialize returns."""


class Service:
    """One initialised service, from `service` to the end of its process."""

    def __init__(self, connection: Connection, words: tuple[str, ...]) -> None:
        pid, app_id, profile, scenario, string_uid, video = words
        self.connection = connection
        self.pid, self.app_id = int(pid), app_id
        self._settings = {
            "profile": int(profile),
            "scenario": int(scenario),
            "string_uid": int(string_uid),
            "video": int(video),
        }
        self.running = True
        self._applied = asyncio.Semaphore(0)

    def send_event(self, name: str, *words: str | int) -> None:
        """Send a line without an answer."""
        self.connection.post(encode(name, *words))

    async def order(self, name: str, *words: str | int) -> None:
        """Send `hang` or `fail`, and wait until calls show it; LookupError if that fails."""
        self.send_event(name, *words)
        try:
            async with asyncio.timeout(APPLY_TIMEOUT):
                await self._applied.acquire()
        except TimeoutError:
            raise LookupError(f"the service did not confirm within {APPLY_TIMEOUT:g} s") from None

    def handle(self, message: Message) -> Call | None:
        """Handle a line of the library; returns the call that it reports, if any."""
        match message.name, *message.words:
            case "call", name, thread, in_callback, pid:
                return Call(name, int(thread), in_callback == "1", int(pid))
            case ("applied",):
                self._applied.release()
                return None
            case _:
                raise ValueError(f"{message.name} {message.words} makes no sense")

    def described(self) -> dict[str, Any]:
        """What it is, for JSON."""
        about = {"pid": self.pid, "app_id": self.app_id, "running": self.running}
        return about | self._settings


class Services:
    """All services there have been since the last clear()."""

    def __init__(self) -> None:
        self.all: list[Service] = []
        self.calls: deque[Call] = deque(maxlen=KEPT_CALLS)
        self.preset = Preset()

    async def serve(self, connection: Connection, words: tuple[str, ...]) -> None:
        """Answer a service as the preset says, then record its calls until it ends."""
        service = Service(connection, words)
        self.all.append(service)
        for name in self.preset.hang:
            service.send_event("hang", name)
        for name, returns in self.preset.fail.items():
            service.send_event("fail", name, returns)
        service.send_event("inited", self.preset.init)
        try:
            async for message in connection.messages():
                if call := service.handle(message):
                    self.calls.append(call)
        finally:
            service.running = False

    def running(self, pid: int) -> Service | None:
        """The service of that process, or for 0 the newest, if it still runs."""
        wanted = (one for one in reversed(self.all) if one.running and pid in {0, one.pid})
        return next(wanted, None)

    def clear(self) -> None:
        """Forget presets, calls, and services that ended."""
        self.preset = Preset()
        self.calls.clear()
        self.all = [one for one in self.all if one.running]
