"""Serves the control API on a unix socket and optionally over TCP, in the relay's event loop."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from relayd import logs
from relayd.control.api import ControlApp
from relayd.errors import AddressUnavailable
from relayd.logs import LogEvent
from relayd.process.folders import make_private

STOP_DEADLINE = 1.0
"""s that `stop` may take at most."""
_DRAIN_TIMEOUT = 0.7
"""s of it in which answers in flight may end; then connections are aborted."""
_MAX_CONNECTIONS = 64
"""More than a few open pages need; limits a runaway client."""
_BROWSER_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read here, bound elsewhere
"""The address that a local browser uses for a server on all addresses."""


class _QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers, as the relay handles signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Wake once a second, for the Date header, instead of ten times; and at once to stop."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()

    def begin_stop(self) -> None:
        """Accept no more connections, and let answers in flight end."""
        self.should_exit = True
        self._stopping.set()

    def abort(self) -> None:
        """Abort every connection, and cancel its tasks."""
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()


class ControlServer:
    """The control server; it can be started and stopped once."""

    def __init__(
        self, app: ControlApp, unix_path: Path | None = None, tcp: tuple[str, int] | None = None
    ) -> None:
        """Serve on `unix_path` and on `tcp` (host, port; port 0: any free one)."""
        self._app = app
        self._unix_path = unix_path
        self._tcp = tcp
        self._bound_inode: int | None = None
        self._servers: dict[_QuietServer, asyncio.Task[None]] = {}
        self._log = logs.get("control")
        self.address: tuple[str, int] | None = None
        """Host and actual port, once it is started over TCP."""

    @property
    def url(self) -> str | None:
        """The page's URL for a local browser, without the required token."""
        if self.address is None:
            return None
        host, port = self.address
        host = _BROWSER_HOSTS.get(host, host)
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def page_url(self) -> str | None:
        """The same with the token: only for the user, never for logs."""
        return f"{self.url}?token={self._app.access.token.text}" if self.url else None

    async def start(self) -> None:
        """Bind and serve.

        Raises AddressUnavailable if an address is in use or not ours; then nothing stays bound.
        """
        sockets: list[socket.socket] = []
        try:
            if self._unix_path is not None:
                sockets.append(_listen_unix(self._unix_path))
                self._bound_inode = self._unix_path.stat().st_ino
            if self._tcp is not None:
                listener = await _listen_tcp(*self._tcp)
                sockets.append(listener)
                self.address = self._tcp[0], listener.getsockname()[1]
                self._app.page_url = self.page_url
        except AddressUnavailable:
            for listener in sockets:
                listener.close()
            self._remove_unix_socket()
            raise
        for listener in sockets:
            server = self._make_server()
            self._servers[server] = asyncio.create_task(
                server.serve(sockets=[listener]), name="relayd-control"
            )
        self._log.info(
            LogEvent.CONTROL_LISTENING,
            socket=str(self._unix_path or ""),
            url=self.url,
            hint="`relayd status` prints the URL with the token that it needs" if self.url else "",
        )

    async def stop(self) -> None:
        """End streams, let answers in flight end, then abort; takes at most STOP_DEADLINE."""
        self._app.viewers.end_all()
        for server in self._servers:
            server.begin_stop()
        pending = await self._wait_for_end(_DRAIN_TIMEOUT)
        if pending:
            for server in self._servers:
                server.abort()
                server.force_exit = True
            await self._wait_for_end(STOP_DEADLINE - _DRAIN_TIMEOUT)
        for serving in self._servers.values():
            serving.cancel()
        for ended in await asyncio.gather(*self._servers.values(), return_exceptions=True):
            if isinstance(ended, Exception):
                self._log.error(LogEvent.CONTROL_FAILED, reason=repr(ended))
        self._remove_unix_socket()
        self._servers.clear()

    async def _wait_for_end(self, seconds: float) -> bool:
        """Wait for every server to end; returns True if one has not."""
        if not self._servers:
            return False
        _, pending = await asyncio.wait(self._servers.values(), timeout=seconds)
        return bool(pending)

    def _make_server(self) -> _QuietServer:
        """Create the server of one listener; each has its own connection limit."""
        return _QuietServer(
            uvicorn.Config(
                self._app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                http="h11",
                ws="none",
                limit_concurrency=_MAX_CONNECTIONS,
            )
        )

    def _remove_unix_socket(self) -> None:
        """Remove our socket file, but not another one in its place."""
        if self._unix_path is None or self._bound_inode is None:
            return
        with suppress(OSError):
            if self._unix_path.stat().st_ino == self._bound_inode:
                self._unix_path.unlink()
        self._bound_inode = None


async def try_to_bind(unix_path: Path | None, tcp: tuple[str, int] | None) -> None:
    """Bind what a server would, then release it; raises AddressUnavailable as `start` does."""
    if unix_path is not None:
        await asyncio.to_thread(_try_unix, unix_path)
    if tcp is not None:
        (await _listen_tcp(*tcp)).close()


async def _listen_tcp(host: str, port: int) -> socket.socket:
    """Listen on the first address of `host`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError, OverflowError) as fault:
        raise AddressUnavailable(
            f"[control] http = {f'{host}:{port}'!r}: {_reason(fault)}",
            hint='give an address of this machine, like "127.0.0.1:8642"',
        ) from fault
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as fault:
        listener.close()
        hint = (
            "choose another port, or stop what listens there"
            if fault.errno == errno.EADDRINUSE
            else 'give an address of this machine, like "127.0.0.1:8642"'
        )
        raise AddressUnavailable(
            f"[control] http = {f'{host}:{port}'!r}: {_reason(fault)}", hint=hint
        ) from fault
    return listener


def _try_unix(path: Path) -> None:
    _listen_unix(path).close()
    path.unlink(missing_ok=True)


def _listen_unix(path: Path) -> socket.socket:
    """Listen on a socket that only its owner may use; a missing folder is created."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        make_private(path.parent)
        _remove_stale(path)
        listener.bind(str(path))
        # Nobody can connect before listen(), so the mode is always right.
        path.chmod(0o600)
        listener.listen()
    except AddressUnavailable:
        listener.close()
        raise
    except OSError as fault:
        listener.close()
        raise AddressUnavailable(
            f"[control] socket = {str(path)!r}: {_reason(fault)}",
            hint="give a path, shorter than 108 bytes, in a folder that relayd may write",
        ) from fault
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket file that a killed relay left; raises if a server uses it."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressUnavailable(
            f"[control] socket = {str(path)!r}: there is a file of another kind",
            hint="remove it or give another path",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # a server listens, with a full queue
            pass
    raise AddressUnavailable(
        f"[control] socket = {str(path)!r}: another relay serves it",
        hint="stop that one or give another path",
    )


def _reason(fault: Exception) -> str:
    return (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
