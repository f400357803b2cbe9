"""A fake service on a real socket: it behaves as documented until scripted otherwise."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import stamina

from relayd.akool.client import AkoolClient
from relayd.akool.credentials import ApiKey
from relayd.http.client import HttpClient

HEAD_TIMEOUT = 1.0
"""s for a request to arrive on a new connection, as with real servers."""


@dataclass
class Call:
    """One request that came in."""

    name: str
    headers: dict[str, str]
    body: Any


Reply = dict[str, Any] | list[Any] | bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def http_answer(body: object, status: int = 200, **headers: str) -> bytes:
    """Return a whole HTTP answer; `body` is JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class Service:
    """Keeps the sessions it made; answers by script if there is one, else as documented."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self.open: set[str] = set()
        self.status = 2
        self._scripts: dict[str, list[Reply]] = {}
        self._made = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._arrived: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def on(self, name: str, *replies: Reply) -> None:
        """Answer calls to `name` (a path's last part) with these in turn; the last one stays."""
        self._scripts[name] = list(replies)

    def count(self, name: str) -> int:
        return sum(call.name == name for call in self.calls)

    async def idle(self) -> None:
        """Wait until no call is being answered: its client may have died meanwhile."""
        while self._serving:
            await asyncio.wait(self._serving)

    async def arrived(self, name: str) -> None:
        """Wait until a call to `name` has come in."""
        await self._arrived[name].wait()

    def session(self) -> dict[str, Any]:
        """Make a session and return its create answer."""
        self._made += 1
        session_id = f"684f8fb744b8795862e45c{self._made:02d}"
        self.open.add(session_id)
        data = {
            "_id": session_id,
            "faceswap_status": 1,
            "front_user_id": "1",
            "algorithm_user_id": "3",
            "front_rtc_token": "007eJxTYFj-uGvaue3C3",
            "channel_id": f"20250616032959101_{self._made}",
            "app_id": "",
        }
        return {"code": 1000, "msg": "OK", "data": data}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):  # a client may give up before it sends
                first = await reader.readuntil(b"\r\n\r\n")
            head = first.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in head[1:])
            }
            content = await reader.readexactly(int(headers.get("content-length", "0")))
            path = head[0].split()[1]
            name = "credit" if path.endswith("quota/info") else path.rsplit("/", 1)[1]
            call = Call(name, headers, json.loads(content) if content else None)
            self.calls.append(call)
            self._arrived[name].set()
            script = self._scripts.get(name)
            reply = (script.pop(0) if len(script) > 1 else script[0]) if script else None
            if callable(reply):
                await reply(writer)
            else:
                if reply is None:
                    reply = self._documented(call)
                writer.write(reply if isinstance(reply, bytes) else http_answer(reply))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    def _documented(self, call: Call) -> Reply:
        face = {"landmarks_str": ["249,510:460,516:343,657:351,739"]}
        known: dict[str, Reply] = {
            "credit": {"code": 1000, "data": {"credit": 89.5}},
            "detect_faces": {"error_code": 0, "error_msg": "SUCCESS", "faces_obj": {"0": face}},
            "getToken": {"code": 1000, "data": {"token": "bearer-of-the-tests", "expire": 864000}},
            "info": {"code": 1000, "data": {"faceswap_status": self.status}},
        }
        if call.name == "create":
            return self.session()
        if call.name in {"close", "update", "info"} and call.body["_id"] not in self.open:
            return {"code": 1008, "msg": "does not exist"}
        if call.name == "close":
            self.open.discard(call.body["_id"])
        return known.get(call.name, {"code": 1000, "msg": "OK"})


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    await server.wait_closed()


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient(read_timeout=5.0) as made:
        yield made


@pytest.fixture
def client(service: Service, http: HttpClient) -> AkoolClient:
    return AkoolClient(service.url, ApiKey("the-key-of-the-tests"), http, call_deadline=2.0)


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Retry at once, with at most three attempts per call."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
