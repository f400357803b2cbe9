import asyncio
import select
import signal
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from relayd.control.api import Pictures
from relayd.control.server import STOP_DEADLINE, ControlServer
from relayd.errors import AddressUnavailable, ExitCode
from tests.control.credentials import BEARER, raw_get

NO_PICTURES = Pictures()


async def get(unix_path: Path, path: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(unix_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://relayd") as client:
        return await client.get(path)


async def test_port_0_takes_a_free_port_and_reports_it(app_of: Any) -> None:
    server = app_of(NO_PICTURES, tcp=("127.0.0.1", 0))
    await server.start()
    try:
        assert server.address[1] > 0
        assert server.url == f"http://127.0.0.1:{server.address[1]}/"
        async with httpx.AsyncClient(headers=BEARER) as client:
            assert (await client.get(server.url)).status_code == 200
    finally:
        await server.stop()


async def test_the_unix_socket_and_its_folder_are_the_owners_alone(
    app_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "control.sock"
    server = app_of(NO_PICTURES, unix_path=path)
    await server.start()
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (await get(path, "/api/status")).status_code == 200
    finally:
        await server.stop()
    assert not path.exists()


async def test_a_socket_file_that_a_killed_relay_left_is_replaced(
    app_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    server = app_of(NO_PICTURES, unix_path=path)
    await server.start()
    try:
        assert (await get(path, "/api/status")).status_code == 200
    finally:
        await server.stop()


async def test_a_socket_that_another_relay_serves_is_left_alone(
    app_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    first, second = (app_of(NO_PICTURES, unix_path=path) for _ in range(2))
    await first.start()
    try:
        with pytest.raises(AddressUnavailable, match="another relay"):
            await second.start()
        await second.stop()
        assert (await get(path, "/api/status")).status_code == 200
    finally:
        await first.stop()


async def test_a_file_of_another_kind_is_never_removed(app_of: Any, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(AddressUnavailable, match="another kind"):
        await app_of(NO_PICTURES, unix_path=path).start()
    assert path.read_text() == "precious"


async def test_a_port_in_use_is_named_with_key_value_and_hint_and_nothing_stays_bound(
    app_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        server = app_of(NO_PICTURES, unix_path=path, tcp=("127.0.0.1", port))
        with pytest.raises(AddressUnavailable) as refused:
            await server.start()
        await server.stop()
    assert f"[control] http = '127.0.0.1:{port}'" in refused.value.message
    assert "another port" in refused.value.hint
    assert refused.value.exit_code is ExitCode.UNAVAILABLE
    assert not path.exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a" * 300, "."])
async def test_an_address_that_is_not_ours_is_named(app_of: Any, host: str) -> None:
    with pytest.raises(AddressUnavailable, match=r"\[control\] http"):
        await app_of(NO_PICTURES, tcp=(host, 0)).start()


async def test_a_socket_path_that_cannot_be_is_named(app_of: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.sock", tmp_path / ("x" * 120)):
        with pytest.raises(AddressUnavailable, match=r"\[control\] socket"):
            await app_of(NO_PICTURES, unix_path=path).start()


async def test_stop_is_quick_with_viewers_open_even_stuck_ones(
    app_of: Any, feed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    feed.size = 2_000_000
    server = app_of(Pictures(output=feed), tcp=("127.0.0.1", 0))
    await server.start()
    viewers = []
    for _ in range(3):  # they never read, so the server's writes are stuck
        viewer = socket.create_connection(server.address)
        viewer.sendall(raw_get("/preview/output.mjpeg"))
        viewers.append(viewer)
        # Its first part fills the socket's buffers.
        await asyncio.get_running_loop().run_in_executor(None, select.select, [viewer], [], [], 3)
    start = time.monotonic()
    await server.stop()
    assert time.monotonic() - start < STOP_DEADLINE + 0.2
    for viewer in viewers:
        viewer.close()
    assert not caplog.records


async def test_stop_ends_reading_viewers_cleanly(
    client: httpx.AsyncClient, server: ControlServer, feed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.stream("GET", "/preview/output.mjpeg") as response:
        pictures = response.aiter_raw()
        while b"picture 000001" not in await anext(pictures):
            pass
        start = time.monotonic()
        await server.stop()
        assert time.monotonic() - start < STOP_DEADLINE
        assert [rest async for rest in pictures] == []
    assert not caplog.records


async def test_an_answer_in_flight_is_finished_and_one_that_hangs_is_aborted(
    app_of: Any, relay: Any
) -> None:
    entered = asyncio.Event()

    async def hang() -> None:
        entered.set()
        await asyncio.Event().wait()

    relay.pause = hang
    server = app_of(NO_PICTURES, tcp=("127.0.0.1", 0))
    await server.start()
    async with httpx.AsyncClient(base_url=server.url, headers=BEARER) as client:
        asking = asyncio.create_task(
            client.post("/api/pause", headers={"Content-Type": "application/json"})
        )
        await entered.wait()
        start = time.monotonic()
        await server.stop()
        assert time.monotonic() - start < STOP_DEADLINE + 0.2
        with pytest.raises(httpx.TransportError):
            await asking


async def test_stop_without_start_and_twice_does_nothing(app_of: Any) -> None:
    server = app_of(NO_PICTURES, tcp=("127.0.0.1", 0))
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()


async def test_the_signal_handlers_stay_the_relays(app_of: Any) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    server = app_of(NO_PICTURES, tcp=("127.0.0.1", 0))
    await server.start()
    await asyncio.sleep(0.05)
    try:
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    finally:
        await server.stop()


async def test_garbage_on_the_wire_does_no_harm(
    client: httpx.AsyncClient, server: ControlServer
) -> None:
    assert server.address
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000):
        with socket.create_connection(server.address) as attacker:
            attacker.sendall(garbage)
    assert (await client.get("/api/status")).status_code == 200
    assert threading.active_count() < 20


async def test_connections_that_fill_the_tcp_port_leave_the_unix_socket_free(
    app_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    server = app_of(NO_PICTURES, unix_path=path, tcp=("127.0.0.1", 0))
    await server.start()
    idle = [socket.create_connection(server.address) for _ in range(70)]
    try:
        await asyncio.sleep(0.2)
        assert (await get(path, "/api/status")).status_code == 200
    finally:
        for one in idle:
            one.close()
        await server.stop()
