"""A reverse proxy that serves a relay below a sub path, one connection a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass
class SubPathProxy:
    """Takes `/PREFIX` off each path and passes the rest on."""

    upstream: tuple[str, int]
    prefix: str
    keep_host: bool
    """Whether the client's Host header goes upstream, or the upstream's own address."""
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one request and its answer on."""
        writers = [writer]
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            upstream_reader, upstream = await asyncio.open_connection(*self.upstream)
            writers.append(upstream)
            upstream.write(self._rewritten(head).encode("latin-1"))
            both = [_pump(reader, upstream), _pump(upstream_reader, writer)]
            tasks = [asyncio.create_task(one) for one in both]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in writers:
                one.close()
                with suppress(ConnectionError):
                    await one.wait_closed()

    def _rewritten(self, head: str) -> str:
        first, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        method, path, version = first.split(" ")
        path = path.removeprefix(self.prefix) if path.startswith(f"{self.prefix}/") else "/outside"
        kept = [one for one in fields if not one.lower().startswith("connection:")]
        if not self.keep_host:
            host = f"Host: {self.upstream[0]}:{self.upstream[1]}"
            kept = [host if one.lower().startswith("host:") else one for one in kept]
        return "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""])


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def proxied(
    upstream: tuple[str, int], prefix: str = "/relay", *, keep_host: bool = True
) -> AsyncIterator[SubPathProxy]:
    """Serve `upstream` below `prefix` on a free port of this machine."""
    proxy = SubPathProxy(upstream, prefix, keep_host)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
