import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from starlette.responses import Response

from relayd.errors import LibraryUnavailable, WorkerDied
from relayd.media.frames import I420, Geometry, SourceFrame, SwappedFrame
from relayd.rtc.link import LinkEventKind
from relayd.rtc.process import RtcWorker

if TYPE_CHECKING:
    from tests.rtc.conftest import EchoServer, EventCollector, Kit


@pytest.fixture
def frames() -> list[SwappedFrame]:
    return []


@pytest.fixture
def worker(
    collector: "EventCollector", frames: list[SwappedFrame], kit: "Kit"
) -> Iterator[RtcWorker]:
    worker = RtcWorker(kit.geometry, on_event=collector.on_event, on_picture=frames.append)
    worker.start()
    yield worker
    kit.pump.stop()
    worker.stop(3.0)
    assert not worker.alive


def signalled(worker: RtcWorker, number: signal.Signals) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, number)


def publisher(worker: RtcWorker) -> Callable[[I420, float], None]:
    return lambda picture, at: worker.publish(SourceFrame(picture, at))


def test_a_picture_goes_through_the_worker_to_the_server_and_back(
    server: "EchoServer",
    worker: RtcWorker,
    collector: "EventCollector",
    frames: list[SwappedFrame],
    kit: "Kit",
) -> None:
    collector.wait_for(LinkEventKind.READY)
    worker.join(kit.target(server))
    kit.pump.start(publisher(worker), kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert kit.wait_for(lambda: len(frames) > 5)
    assert kit.psnr(frames[-1].i420, 255 - kit.picture()) > 30
    assert 0 <= time.monotonic() - frames[-1].received_at < 2
    assert frames[-1].i420 is not frames[-2].i420
    assert frames[-1].i420.base is None or frames[-1].i420.base.base is None
    assert worker.last_picture_at is not None
    assert worker.received >= 6
    assert worker.sent >= worker.received
    kit.pump.stop()
    assert worker.leave(3.0)
    assert len(server.deletes()) == 2


def test_a_worker_joins_again_after_it_left(
    server: "EchoServer",
    worker: RtcWorker,
    collector: "EventCollector",
    frames: list[SwappedFrame],
    kit: "Kit",
) -> None:
    kit.pump.start(publisher(worker), kit.picture())
    for turn in range(2):
        worker.join(kit.target(server))
        frames.clear()
        assert kit.wait_for(lambda: frames)
        assert worker.leave(3.0)
        assert len(server.deletes("/whip/")) == turn + 1


@pytest.mark.parametrize("size", [Geometry(240, 320), Geometry(640, 480), Geometry(160, 120)])
def test_a_picture_of_another_size_is_fitted(
    server: "EchoServer", worker: RtcWorker, frames: list[SwappedFrame], kit: "Kit", size: Geometry
) -> None:
    server.echo = lambda _picture: kit.picture(size)
    worker.join(kit.target(server))
    kit.pump.start(publisher(worker), kit.picture())
    assert kit.wait_for(lambda: len(frames) > 3)
    picture = frames[-1].i420
    assert picture.shape == kit.geometry.shape
    upright = size.height > size.width
    assert (abs(int(picture[120, 5]) - 16) < 3) == upright  # dark bars at the sides
    assert picture[120, 160] > 60


def test_a_killed_worker_is_reported_at_once_by_its_signal(
    server: "EchoServer",
    worker: RtcWorker,
    collector: "EventCollector",
    frames: list[SwappedFrame],
    kit: "Kit",
) -> None:
    worker.join(kit.target(server))
    kit.pump.start(publisher(worker), kit.picture())
    assert kit.wait_for(lambda: frames)
    began = time.monotonic()
    signalled(worker, signal.SIGKILL)
    died = collector.wait_for(LinkEventKind.DIED, within=0.5)
    assert time.monotonic() - began < 0.5
    assert isinstance(died.error, WorkerDied)
    assert "SIGKILL" in str(died.error)
    assert not worker.alive
    worker.publish(SourceFrame(kit.picture(), 1.0))  # harmless
    with pytest.raises(WorkerDied):
        worker.join(kit.target(server))
    assert worker.leave(1.0)


def test_ctrl_c_is_left_to_the_parent_and_sigterm_means_leave(
    server: "EchoServer", worker: RtcWorker, collector: "EventCollector", kit: "Kit"
) -> None:
    collector.wait_for(LinkEventKind.READY)
    worker.join(kit.target(server))
    collector.wait_for(LinkEventKind.JOINED)
    signalled(worker, signal.SIGINT)
    time.sleep(0.3)
    assert worker.alive
    signalled(worker, signal.SIGTERM)
    collector.wait_for(LinkEventKind.LEFT)
    died = collector.wait_for(LinkEventKind.DIED)
    assert "status 0" in str(died.error)
    assert len(server.deletes("/whip/")) == 1


def test_a_worker_that_hangs_is_killed_at_the_deadline(
    collector: "EventCollector", frames: list[SwappedFrame], kit: "Kit"
) -> None:
    worker = RtcWorker(kit.geometry, on_event=collector.on_event, on_picture=frames.append)
    worker.start()
    collector.wait_for(LinkEventKind.READY)
    signalled(worker, signal.SIGSTOP)
    began = time.monotonic()
    worker.stop(0.5)
    assert time.monotonic() - began < 1.5
    assert not worker.alive
    assert LinkEventKind.DIED not in collector.kinds()  # it was stopped on purpose


def test_a_worker_may_be_stopped_before_it_is_ready_or_started(
    collector: "EventCollector", frames: list[SwappedFrame], kit: "Kit"
) -> None:
    RtcWorker(kit.geometry, on_event=collector.on_event, on_picture=frames.append).stop(1.0)
    worker = RtcWorker(kit.geometry, on_event=collector.on_event, on_picture=frames.append)
    worker.start()
    worker.stop(3.0)
    assert not worker.alive


def test_a_worker_that_cannot_be_started_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
    collector: "EventCollector",
    frames: list[SwappedFrame],
    kit: "Kit",
) -> None:
    def refuse(*_: object, **_settings: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    worker = RtcWorker(kit.geometry, on_event=collector.on_event, on_picture=frames.append)
    before = psutil.Process().num_fds()
    with pytest.raises(WorkerDied, match="temporarily unavailable"):
        worker.start()
    worker.stop(1.0)
    assert psutil.Process().num_fds() == before


def test_a_link_without_its_library_is_refused_with_a_message(
    worker: RtcWorker, server: "EchoServer", collector: "EventCollector", kit: "Kit"
) -> None:
    worker.join(kit.target(server, kind="agora"))
    refused = collector.wait_for(LinkEventKind.REFUSED)
    assert isinstance(refused.error, LibraryUnavailable)
    assert "agora" in str(refused.error)


def test_a_wrong_template_is_refused_with_its_key(
    worker: RtcWorker, server: "EchoServer", collector: "EventCollector", kit: "Kit"
) -> None:
    worker.join(kit.target(server, play_url="http://host/{chanel}"))
    assert "rtc.play_url" in str(collector.wait_for(LinkEventKind.REFUSED).error)


def test_the_token_is_in_no_command_line_environment_or_log(
    server: "EchoServer",
    collector: "EventCollector",
    frames: list[SwappedFrame],
    kit: "Kit",
    capfd: pytest.CaptureFixture[str],
) -> None:
    worker = RtcWorker(kit.geometry, on_event=collector.on_event, on_picture=frames.append)
    worker.start()
    server.whip = lambda _request: Response(status_code=500)  # retried and logged
    worker.join(kit.target(server, first_frame_timeout=1.0))
    collector.wait_for(LinkEventKind.LOST)
    seen = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
    seen += Path(f"/proc/{worker.pid}/environ").read_bytes()
    worker.stop(3.0)
    assert kit.token.encode() not in seen
    assert kit.token not in capfd.readouterr().err


PARENT = str(Path(__file__).with_name("parent.py"))


def test_a_killed_parent_ends_its_worker_and_the_session_is_deleted(
    server: "EchoServer", kit: "Kit"
) -> None:
    target = json.dumps(kit.target(server).to_json())
    with subprocess.Popen(
        [sys.executable, PARENT, target], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        while parent.stdout.readline().strip() != "first_picture":
            assert parent.poll() is None
        parent.kill()
        killed = time.monotonic()
        assert kit.wait_for(lambda: not child.is_running() or child.status() == "zombie", 3.0)
        assert time.monotonic() - killed < 3
    assert kit.wait_for(lambda: len(server.deletes()) == 2, 1.0)


def test_nothing_arrives_that_was_not_swapped(
    server: "EchoServer",
    worker: RtcWorker,
    collector: "EventCollector",
    frames: list[SwappedFrame],
    kit: "Kit",
) -> None:
    """What comes out is what the server sent, never what went in."""
    server.echo = lambda picture: np.full_like(picture, 200)
    worker.join(kit.target(server))
    kit.pump.start(publisher(worker), kit.picture())
    assert kit.wait_for(lambda: len(frames) > 10)
    assert all(abs(float(frame.i420.mean()) - 200) < 3 for frame in frames)
