"""`python -m tests.agora.hub SOCKET`: Agora's cloud for tests, in its own process.

It lets users into channels and routes their pictures; tests control it over the same socket.
See tests.agora.wire for what is spoken. It runs until SIGTERM or SIGINT.
"""

import asyncio
import contextlib
import signal
import socket
import sys

from tests.agora.connection import Connection
from tests.agora.controls import Controls
from tests.agora.reception import Reception
from tests.agora.services import Services


class Hub:
    """Everything behind the socket."""

    def __init__(self) -> None:
        self._reception, self._services = Reception(), Services()
        self._controls = Controls(self._reception, self._services)
        self._serving: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve whoever connects, until cancelled."""
        reports = asyncio.create_task(self._reception.report())
        try:
            while True:
                peer, _ = await asyncio.get_running_loop().sock_accept(listener)
                task = asyncio.create_task(self._serve(Connection(peer)))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)
        finally:
            ending = [reports, *self._serving]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._speak(connection)
        except ValueError as fault:
            sys.stderr.write(f"hub: disconnected process {connection.pid}: {fault}\n")
        except (EOFError, ConnectionError):
            pass  # it disconnected first
        finally:
            await connection.close()

    async def _speak(self, connection: Connection) -> None:
        first = await connection.receive()
        match first.name:
            case "join":
                await self._reception.serve(connection, first.words)
            case "service":
                await self._services.serve(connection, first.words)
            case "control":
                await self._controls.serve(connection)
            case name:
                raise ValueError(f"nobody begins with {name!r}")


async def serve(path: str) -> None:
    """Serve at a socket path, and print that, until SIGTERM or SIGINT."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(path)
        listener.listen()
        running = asyncio.create_task(Hub().run(listener))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        sys.stdout.write(f"hub ready at {path}\n")
        sys.stdout.flush()
        with contextlib.suppress(asyncio.CancelledError):
            await running


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
