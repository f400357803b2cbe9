"""`relayd emulator`: the emulator as a program, from binding its port to the end of its threads."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module

import uvicorn

from relayd import logs
from relayd.emulator.account import AccountRules
from relayd.emulator.sessions import SessionRules
from relayd.errors import AddressUnavailable, ExitCode, LibraryUnavailable
from relayd.logs import LogEvent

LARGEST_PORT = 65535
GRACEFUL_SHUTDOWN = 2
"""s that running requests may still take after a stop."""
_WILDCARDS = {"", "0.0.0.0", "::"}  # noqa: S104  compared, not bound


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    """The settings of `relayd emulator`; the defaults suit one user on one machine."""

    host: str = "127.0.0.1"
    port: int = 8700
    """0 for any free port."""
    account: AccountRules = field(default_factory=AccountRules)
    sessions: SessionRules = field(default_factory=SessionRules)
    admin_anywhere: bool = False
    """Let other machines see sessions and set faults."""


class EmulatorServer:
    """One emulator: bound when made, serving until stop() is called."""

    def __init__(
        self, settings: EmulatorSettings, on_ready: Callable[[str], None] = lambda _url: None
    ) -> None:
        """Bind the port.

        Raises AddressUnavailable when it is taken, LibraryUnavailable when the emulator's
        optional libraries are not installed.
        """
        _require_libraries()
        self._settings = settings
        self._on_ready = on_ready
        self._socket = _bound(settings.host, settings.port)
        self._server: uvicorn.Server | None = None
        self._stopped = False

    @property
    def url(self) -> str:
        """Its URL on this machine, with the real port."""
        host, port = self._settings.host, self._socket.getsockname()[1]
        if host in _WILDCARDS:
            host = "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """Ask serve() to end; from any thread or a signal handler, may be called more than once."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True

    async def serve(self) -> None:
        """Serve until stop(); then end all sessions, connections, threads and sockets."""
        # Its libraries are an optional extra, so they are imported late.
        from relayd.emulator.app import Emulator  # noqa: PLC0415

        emulator = Emulator(
            account=self._settings.account,
            sessions=self._settings.sessions,
            admin_anywhere=self._settings.admin_anywhere,
        )
        config = uvicorn.Config(
            emulator.app,
            log_config=None,
            log_level="critical",  # answers cut on purpose are expected; real errors we log
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN,
        )
        self._server = _Server(config, lambda: self._on_ready(self.url))
        self._server.should_exit = self._stopped
        try:
            async with emulator:
                await self._server.serve(sockets=[self._socket])
        finally:
            self._socket.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal itself."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def run(settings: EmulatorSettings) -> int:
    """Run the emulator in the foreground until SIGTERM or SIGINT; returns the exit code.

    Raises AddressUnavailable or LibraryUnavailable.
    """
    server = EmulatorServer(settings, on_ready=_announce)
    asyncio.run(_serve_until_signal(server))
    return ExitCode.CLEAN


async def _serve_until_signal(server: EmulatorServer) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.serve()


def _announce(url: str) -> None:
    logs.get("emulator").info(LogEvent.EMULATOR_READY, url=url)
    sys.stdout.write(f"relayd emulator ready at {url}\n")
    sys.stdout.flush()


def _require_libraries() -> None:
    try:
        import_module("relayd.emulator.app")
    except ImportError as fault:
        raise LibraryUnavailable(
            f"The emulator needs {fault.name}, which cannot be loaded",
            hint='pip install "relayd[emulator]"',
        ) from fault


def _bound(host: str, port: int) -> socket.socket:
    if not 0 <= port <= LARGEST_PORT:
        raise AddressUnavailable(f"{port} is no port; ports are 0 to {LARGEST_PORT}")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server((address[0], port), family=family, backlog=128)
    except (OSError, UnicodeError) as fault:
        raise AddressUnavailable(
            f"{host}:{port} cannot be bound: {fault}", hint="choose another with --host and --port"
        ) from fault
