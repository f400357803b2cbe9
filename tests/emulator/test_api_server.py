import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from relayd.emulator.server import EmulatorServer, EmulatorSettings, run
from relayd.errors import AddressUnavailable, ExitCode, LibraryUnavailable
from relayd.http.client import HttpClient
from relayd.media.frames import I420

PROGRAM = """
import sys
from relayd import logs
from relayd.emulator.server import EmulatorSettings, run
from relayd.emulator.sessions import SessionRules
logs.configure()
sys.exit(run(EmulatorSettings(port=0, sessions=SessionRules(queue_seconds=0.05))))
"""


@contextmanager
def emulator_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the emulator as a program; yields the process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        match = re.fullmatch(r"relayd emulator ready at (http://127\.0\.0\.1:[1-9]\d*)\n", ready)
        assert match, ready
        yield process, match[1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_program_ends_cleanly_by_signal_with_an_open_session(
    client_of: Callable[[str], Any], portrait: bytes, camera_picture: I420, number: signal.Signals
) -> None:
    with emulator_process() as (process, url):
        caller = client_of(url)
        session = await caller.create(portrait)
        publisher = await caller.publish(session, camera_picture)
        player = await caller.play(session)
        await player.picture_after(0.0)
        threads = psutil.Process(process.pid).num_threads()
        assert threads > 2
        process.send_signal(number)
        stdout, stderr = await asyncio.to_thread(process.communicate, timeout=10)
        assert process.returncode == ExitCode.CLEAN
        assert stdout == ""
        assert '"reason": "shutdown"' in stderr
        assert "Traceback" not in stderr
        assert "Warning" not in stderr
        assert session["front_rtc_token"] not in stderr
        await publisher.close()
        await player.close()


async def test_a_slow_answer_does_not_delay_the_stop(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any]
) -> None:
    emulator = start_emulator()
    caller = client_of(emulator.url)
    await caller.fault(fault="slow", delay=60.0, endpoint="info")
    waiting = asyncio.create_task(caller.post("info", {"_id": "x"}))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(6):
        await asyncio.to_thread(emulator.stop)
    await asyncio.gather(waiting, return_exceptions=True)


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=f"127.0.0.1:{port}") as caught:
            run(EmulatorSettings(port=port))
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 0), ("no such host", 1), ("", 70000)])
def test_an_address_that_is_not_ours_is_an_error(host: str, port: int) -> None:
    with pytest.raises(AddressUnavailable):
        EmulatorServer(EmulatorSettings(host=host, port=port))


@pytest.mark.parametrize("library", ["cv2", "aiortc"])
def test_a_missing_optional_library_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    def refuse(name: str) -> None:
        assert name == "relayd.emulator.app"
        raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    monkeypatch.setattr("relayd.emulator.server.import_module", refuse)
    with pytest.raises(LibraryUnavailable, match=rf"{library}.*relayd\[emulator\]"):
        EmulatorServer(EmulatorSettings(port=0))


def test_settings_and_server_need_no_optional_library() -> None:
    program = (
        "import sys; sys.modules.update(cv2=None, aiortc=None); "
        "from relayd.emulator.server import EmulatorSettings, run\n"
        "from relayd.errors import LibraryUnavailable\n"
        "try: run(EmulatorSettings(port=0))\n"
        "except LibraryUnavailable as fault: print(fault)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert 'pip install "relayd[emulator]"' in done.stdout


def test_a_start_that_fails_under_a_parent_ends_with_its_reason_and_no_crash() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "relayd", "emulator", "--port", port, "--with-parent"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as program:
            assert program.stderr
            complaint = program.stderr.read()
            assert program.wait(20) == 69
    assert "cannot be bound" in complaint
    assert "Fatal" not in complaint


def test_a_stop_before_the_start_takes_effect() -> None:
    server = EmulatorServer(EmulatorSettings(port=0))
    server.stop()
    asyncio.run(server.serve())


def test_ipv6_works_if_the_machine_has_it() -> None:
    try:
        server = EmulatorServer(EmulatorSettings(host="::1", port=0))
    except AddressUnavailable:
        pytest.skip("no IPv6 here")
    assert re.fullmatch(r"http://\[::1\]:\d+", server.url)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()

    async def look() -> int:
        async with HttpClient() as http:
            return (await http.request("GET", server.url + "/emulator/state")).status

    assert asyncio.run(look()) == 200
    server.stop()
    thread.join()
