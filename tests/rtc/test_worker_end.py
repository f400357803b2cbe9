"""However a worker ends: its end is reported once, and blocks nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from relayd.errors import JoinRefused, LinkLost, WorkerDied
from relayd.media.frames import SourceFrame, SwappedFrame, black
from relayd.rtc.link import LARGEST_PACKET, LinkEvent, LinkEventKind
from tests.rtc import strange
from tests.rtc.strange import GEOMETRY, StrangeWorker

if TYPE_CHECKING:
    from tests.rtc.conftest import EchoServer, Kit

SLACK = 5.0
"""s that a busy machine may add to a limit; what would block us lasts for LONG, 30 s."""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
def start(notes: Path) -> Iterator[Callable[..., StrangeWorker]]:
    started: list[StrangeWorker] = []

    def start(way: str, **changes: Any) -> StrangeWorker:
        worker = StrangeWorker(way, notes, **changes)
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.stop(1.0)
        assert not worker.alive


@pytest.fixture
def noted(notes: Path, kit: "Kit") -> Iterator[Callable[[], int]]:
    """Wait for the process that the library noted; it does not outlive the test."""

    def noted() -> int:
        assert kit.wait_for(notes.exists)
        return int(notes.read_text())

    yield noted
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(notes.read_text()), signal.SIGKILL)


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def packet_of(kind: str, **parts: object) -> str:
    return json.dumps({"kind": kind, "reason": ""} | parts)


def test_a_stop_is_not_delayed_by_a_process_that_keeps_the_workers_sockets(
    start: Callable[..., StrangeWorker], noted: Callable[[], int], kit: "Kit"
) -> None:
    worker = start("fork")
    holder = noted()
    assert kit.wait_for(lambda: LinkEventKind.READY in worker.kinds())
    began = time.monotonic()
    worker.stop(1.0)
    assert time.monotonic() - began < 1.0 + SLACK
    assert not worker.alive
    assert not is_gone(holder)


def test_the_death_of_a_worker_is_reported_though_another_process_keeps_its_sockets(
    start: Callable[..., StrangeWorker], noted: Callable[[], int], kit: "Kit"
) -> None:
    worker = start("fork")
    noted()
    assert kit.wait_for(lambda: LinkEventKind.READY in worker.kinds())
    worker.kill()
    assert kit.wait_for(lambda: LinkEventKind.DIED in worker.kinds())
    assert "SIGKILL" in str(worker.events[-1].error)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_what_the_library_started_ends_with_the_worker(
    start: Callable[..., StrangeWorker], noted: Callable[[], int], kit: "Kit", how: str
) -> None:
    worker = start("program")
    program = noted()
    if how == "stopped":
        worker.stop(1.0)
    else:
        worker.kill()
    assert kit.wait_for(lambda: is_gone(program))


def test_a_program_that_the_library_starts_inherits_nothing_but_the_standard_streams(
    start: Callable[..., StrangeWorker], notes: Path, kit: "Kit"
) -> None:
    start("descriptors")
    assert kit.wait_for(notes.exists)
    inherited = {int(line.split()[0]) for line in notes.read_text().splitlines()}
    assert inherited == {0, 1, 2}, notes.read_text()


@pytest.mark.parametrize("way", ["program", "hang"])
def test_a_killed_parent_leaves_neither_a_worker_nor_its_children(
    notes: Path, noted: Callable[[], int], kit: "Kit", way: str
) -> None:
    with subprocess.Popen(
        [sys.executable, strange.__file__, "parent", way],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, strange.NOTES: str(notes)},
    ) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        started = noted()
        parent.kill()
    assert kit.wait_for(lambda: is_gone(worker))
    assert kit.wait_for(lambda: is_gone(started))


def test_the_worker_does_not_get_the_terminals_signals(
    start: Callable[..., StrangeWorker], noted: Callable[[], int]
) -> None:
    worker = start("hang")
    noted()
    assert worker.pid is not None
    assert os.getsid(worker.pid) == worker.pid == os.getpgid(worker.pid)


def test_a_worker_ended_by_a_signal_without_a_name_is_reported_as_dead(
    start: Callable[..., StrangeWorker], noted: Callable[[], int], kit: "Kit"
) -> None:
    worker = start("hang")
    noted()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGRTMIN + 3)
    assert kit.wait_for(lambda: LinkEventKind.DIED in worker.kinds())
    assert f"signal {signal.SIGRTMIN + 3}" in str(worker.events[-1].error)


INVALID = {
    "no JSON": "hello",
    "cut off": packet_of("degraded", reason="x" * LARGEST_PACKET),
    "no UTF-8": "\xff\xfe\xff",
    "nothing": "",
    "no object": "[1]",
    "no kind": json.dumps({"reason": ""}),
    "no reason": json.dumps({"kind": "lost"}),
    "a number for a text": packet_of("lost", reason=7),
    "an error that is none": packet_of("lost", error="x"),
    "an endless wait": packet_of("lost", error={"class": "LinkLost", "message": "", "hint": ""})[
        :-2
    ]
    + ', "retry_after": Infinity}}',
    "statistics that are none": packet_of("stats", stats={"sent": "many"}),
    "too deep": "[" * 60_000,
    "its own death": packet_of("died"),
}


@pytest.mark.parametrize("packet", INVALID.values(), ids=INVALID)
def test_a_worker_that_sends_an_invalid_packet_is_killed_and_reported_dead_once(
    start: Callable[..., StrangeWorker], kit: "Kit", packet: str
) -> None:
    worker = start("talk", packets=[packet_of("ready"), packet, packet_of("lost")])
    assert kit.wait_for(lambda: not worker.alive and len(worker.events) > 1)
    worker.stop(1.0)
    assert worker.kinds() == [LinkEventKind.READY, LinkEventKind.DIED]
    assert isinstance(worker.events[-1].error, WorkerDied)


def test_what_a_newer_worker_adds_is_ignored(
    start: Callable[..., StrangeWorker], kit: "Kit"
) -> None:
    """An upgrade under a relay that runs gives that relay newer workers."""
    error = {"class": "LinkAsleep", "message": "asleep", "hint": "wake it", "retry_after": 2.0}
    packets = [
        packet_of("yawned"),
        packet_of("stats", stats={"sent": 3, "yawns": 2, "play_jitter": float("nan")}),
        packet_of("lost", error=error),
    ]
    worker = start("talk", packets=packets)
    assert kit.wait_for(lambda: LinkEventKind.LOST in worker.kinds())
    stats, lost = worker.events
    assert stats.stats is not None
    assert (stats.stats.sent, stats.stats.play_jitter) == (3, 0.0)
    assert isinstance(lost.error, LinkLost)
    assert str(lost.error) == "asleep (wake it)"
    assert lost.error.retry_after == 2.0


def test_a_lost_link_is_reported_once_although_its_worker_ends_as_well(
    start: Callable[..., StrangeWorker], kit: "Kit"
) -> None:
    worker = start("talk", packets=[packet_of("lost")])
    assert kit.wait_for(lambda: LinkEventKind.LOST in worker.kinds())
    worker.kill()
    assert kit.wait_for(lambda: not worker.alive)
    worker.stop(1.0)
    assert worker.kinds() == [LinkEventKind.LOST]


def test_a_library_that_takes_no_pictures_ends_the_worker(
    start: Callable[..., StrangeWorker], server: "EchoServer", kit: "Kit"
) -> None:
    pictures: list[SwappedFrame] = []
    worker = start("endless", on_picture=pictures.append)
    worker.join(kit.target(server))
    assert kit.wait_for(lambda: pictures)
    worker.publish(SourceFrame(black(GEOMETRY), time.monotonic()))
    assert kit.wait_for(lambda: LinkEventKind.DIED in worker.kinds())
    assert "status 1" in str(worker.events[-1].error)


def test_an_order_that_is_too_large_is_refused_with_a_message(
    start: Callable[..., StrangeWorker], server: "EchoServer", kit: "Kit"
) -> None:
    worker = start("endless")
    target = replace(kit.target(server), token="t" * LARGEST_PACKET)
    with pytest.raises(JoinRefused, match="token"):
        worker.join(target)
    with pytest.raises(JoinRefused, match="token"):
        worker.renew("t" * LARGEST_PACKET)
    worker.join(kit.target(server))
    assert worker.leave(5.0)


def test_a_worker_that_reads_no_orders_is_killed(
    start: Callable[..., StrangeWorker], noted: Callable[[], int], kit: "Kit"
) -> None:
    worker = start("hang")
    noted()

    def renew_often() -> None:
        for _ in range(1000):
            worker.renew("t" * 30_000)

    with pytest.raises(WorkerDied, match="did not read"):
        renew_often()
    assert kit.wait_for(lambda: LinkEventKind.DIED in worker.kinds())


@pytest.mark.parametrize("callback", ["on_picture", "on_event"])
def test_no_callback_is_called_after_a_stop_even_one_that_did_not_return(
    start: Callable[..., StrangeWorker], server: "EchoServer", kit: "Kit", callback: str
) -> None:
    entered, released = threading.Event(), threading.Event()
    calls: list[float] = []

    def block(_item: object) -> None:
        calls.append(time.monotonic())
        entered.set()
        released.wait(strange.LONG)

    worker = start("endless", **{callback: block})
    worker.join(kit.target(server))
    assert entered.wait(kit.timeout)
    threads = worker._event_thread, worker._picture_thread
    began = time.monotonic()
    worker.stop(1.0)
    stopped = time.monotonic()
    assert stopped - began < 1.0 + SLACK
    released.set()
    for thread in threads:
        thread.join(kit.timeout)
        assert not thread.is_alive()
    assert len(calls) == 1


def test_a_callback_that_raises_ends_neither_pictures_nor_events(
    start: Callable[..., StrangeWorker], server: "EchoServer", kit: "Kit"
) -> None:
    pictures: list[SwappedFrame] = []
    events: list[LinkEvent] = []

    def take(picture: SwappedFrame) -> None:
        pictures.append(picture)
        raise RuntimeError("no room")

    def on_event(event: LinkEvent) -> None:
        events.append(event)
        raise RuntimeError("broken")

    worker = start("endless", on_picture=take, on_event=on_event)
    worker.join(kit.target(server))
    assert kit.wait_for(lambda: len(pictures) > 2)
    assert worker.leave(5.0)
    assert [event.kind for event in events] == [LinkEventKind.READY, LinkEventKind.LEFT]


def test_a_worker_whose_threads_cannot_start_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "relayd-arrival":
            raise RuntimeError("can't start new thread")
        usual(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    worker = StrangeWorker("hang")
    with pytest.raises(WorkerDied, match="can't start new thread"):
        worker.start()
    worker.stop(1.0)
    assert not worker.alive
    assert worker.events == []
