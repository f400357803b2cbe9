"""A relay whose output is lost: unhealthy and named everywhere, and well again by itself."""

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import START, RunningRelay, StartRelay, free_port, wait_for

pytestmark = pytest.mark.relay


@contextlib.contextmanager
def receiver(port: int) -> Iterator[threading.Event]:
    """Take one TCP push and whatever it sends, until the block ends; tells when there is one."""
    connected = threading.Event()

    def take(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connected.set()
                while connection.recv(65536) and not over.is_set():
                    pass

    over = threading.Event()
    with socket.create_server(("127.0.0.1", port)) as server:
        thread = threading.Thread(target=take, args=(server,))
        thread.start()
        yield connected
        over.set()
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def up(relay: RunningRelay) -> dict[str, float]:
    lines = relay.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("relayd_output_up{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def output_of(relay: RunningRelay, name: str) -> Any:
    return relay.status()["outputs"][name]


def test_a_killed_receiver_makes_the_relay_unhealthy_until_it_is_back(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    port = free_port()
    name = f"tcp://127.0.0.1:{port}"
    with receiver(port) as connected:
        relay = start_relay("output.1.kind=stream", f"output.1.url={name}")
        relay.wait_state("live")
        assert connected.wait(START)
        wait_for("health", lambda: relay.get("/healthz").status_code == 200, 10)
        assert up(relay) == {f"{tmp_path}/out.mkv": 1.0, name: 1.0, "preview": 1.0}
    wait_for("the loss", lambda: relay.get("/healthz").status_code == 503, 10)
    assert f"output {name} is lost: " in relay.get("/healthz").text
    assert up(relay) == {f"{tmp_path}/out.mkv": 1.0, name: 0.0, "preview": 1.0}
    status = relay.status()
    assert status["state"] == "live", "the other output still shows the call"
    assert not status["healthy"]
    with receiver(port) as connected:
        assert connected.wait(20)
        wait_for("health", lambda: relay.get("/healthz").status_code == 200, 10)
        assert up(relay)[name] == 1.0
    assert relay.stop() == 0


def test_a_recording_whose_folder_was_removed_is_lost_until_it_is_made_again(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "out.mkv").write_text("precious")
    name = f"{folder}/out.mkv"
    relay = start_relay(f"output.0.url={name}")
    relay.wait_state("live")
    wait_for("the file", lambda: relay.status()["files"] == {name: [f"{folder}/out-1.mkv"]}, 10)
    assert "out-1.mkv" in relay.events()
    shutil.rmtree(folder)
    wait_for("the loss", lambda: relay.get("/healthz").status_code == 503, 10)
    wait_for("its reason", lambda: "No such file" in output_of(relay, name), 10)
    folder.mkdir()
    wait_for("health", lambda: output_of(relay, name) == "ok", 20)
    assert relay.status()["files"][name][-1] == name
    relay.wait_state("live")
    assert relay.stop() == 0
