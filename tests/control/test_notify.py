import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.control.notify import Notifier, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's end of the protocol."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@relayd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.settimeout(2)
        yield name, receiver


def received(receiver: socket.socket) -> list[str]:
    return receiver.recv(4096).decode().split("\n")


def test_each_message_is_what_the_protocol_asks_for(manager: tuple[str, socket.socket]) -> None:
    name, receiver = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.active
    notifier.ready("Live")
    assert received(receiver) == ["READY=1", "STATUS=Live"]
    notifier.ready()
    assert received(receiver) == ["READY=1"]
    notifier.status("Standing by")
    assert received(receiver) == ["STATUS=Standing by"]
    notifier.alive()
    assert received(receiver) == ["WATCHDOG=1"]
    notifier.stopping("Closing")
    assert received(receiver) == ["STOPPING=1", "STATUS=Closing"]


def test_a_status_that_names_a_file_of_no_encoding_is_sent_with_escapes(
    manager: tuple[str, socket.socket],
) -> None:
    name, receiver = manager
    Notifier({"NOTIFY_SOCKET": name}).ready("/tmp/\udcff.mp4 is lost")
    assert received(receiver) == ["READY=1", r"STATUS=/tmp/\udcff.mp4 is lost"]


def test_a_reload_carries_the_monotonic_time(manager: tuple[str, socket.socket]) -> None:
    name, receiver = manager
    before = time.monotonic_ns() // 1000
    Notifier({"NOTIFY_SOCKET": name}).reloading()
    reloading, stamp = received(receiver)
    assert reloading == "RELOADING=1"
    key, value = stamp.split("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_a_line_break_in_a_status_cannot_forge_an_assignment(
    manager: tuple[str, socket.socket],
) -> None:
    name, receiver = manager
    Notifier({"NOTIFY_SOCKET": name}).status("bad\nREADY=1\n" + "x" * 9999)
    (line,) = received(receiver)
    assert line.startswith("STATUS=bad READY=1 xxx")
    assert len(line) < 600


def fill_queue(name: str) -> None:
    """Leave no room in a service manager's queue."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        while True:
            try:
                other.sendto(b"STATUS=another service", name.replace("@", "\0", 1))
            except BlockingIOError:
                return


def empty_queue(receiver: socket.socket) -> list[str]:
    receiver.setblocking(False)
    texts = []
    while True:
        try:
            texts += received(receiver)
        except BlockingIOError:
            return texts


def test_ready_is_sent_with_each_later_message_until_one_was_delivered(
    manager: tuple[str, socket.socket],
) -> None:
    name, receiver = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    fill_queue(name)
    notifier.ready("Standing by")
    notifier.status("Opening")
    assert "READY=1" not in empty_queue(receiver)
    notifier.status("Live")
    assert received(receiver) == ["READY=1", "STATUS=Live"]
    notifier.status("Degraded")
    notifier.alive()
    notifier.resend_ready()
    assert empty_queue(receiver) == ["STATUS=Degraded", "WATCHDOG=1"]


def test_a_lost_ready_can_be_resent_without_another_message(
    manager: tuple[str, socket.socket],
) -> None:
    name, receiver = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.resend_ready()
    fill_queue(name)
    notifier.ready("Live")
    notifier.resend_ready()
    assert "READY=1" not in empty_queue(receiver)
    notifier.resend_ready()
    notifier.resend_ready()
    assert empty_queue(receiver) == ["READY=1"]


def test_a_lost_ready_is_not_sent_during_a_reload_or_a_stop(
    manager: tuple[str, socket.socket],
) -> None:
    name, receiver = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    fill_queue(name)
    notifier.ready("Live")
    empty_queue(receiver)
    notifier.reloading()
    assert "READY=1" not in empty_queue(receiver)
    notifier.ready("Live")
    assert empty_queue(receiver) == ["READY=1", "STATUS=Live"]
    fill_queue(name)
    notifier.ready("Live")
    empty_queue(receiver)
    notifier.stopping("Closing")
    assert empty_queue(receiver) == ["STOPPING=1", "STATUS=Closing"]


def test_without_a_service_manager_nothing_happens() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        notifier = Notifier(environment)
        assert not notifier.active
        notifier.ready("Live")
        notifier.alive()


def test_a_service_manager_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notifier.ready()
    notifier.alive()


def test_a_full_queue_does_not_block(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        start = time.monotonic()
        for _ in range(2000):
            notifier.alive()
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked_for(
    environment: dict[str, str], interval: float | None
) -> None:
    assert watchdog_interval(environment) == interval
    assert Notifier(environment).watchdog == interval
