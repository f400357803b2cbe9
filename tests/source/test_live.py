import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

from relayd.errors import SourceLost, SourceUnreachable, SourceUnusable
from relayd.source.events import SourceDown, SourceOpened

if TYPE_CHECKING:
    from tests.source.conftest import Watch
    from tests.support.clips import Clips
    from tests.support.rtsp import RtspCamera


def test_rtsp_starts_soon_and_evenly_without_backlog(
    rtsp_camera: "RtspCamera", watch: "Watch"
) -> None:
    began = time.monotonic()
    watched = watch(rtsp_camera.url())
    watched.wait_for(SourceOpened, 5)
    assert time.monotonic() - began < 1.5
    time.sleep(0.4)  # what was buffered since the key frame is decoded by now
    frames = watched.arrivals(40)
    gaps = np.diff([frame.captured_at for frame in frames])
    # Real time, not the 4 ms apart of a backlog; the server catches up after its slow start.
    assert 0.026 < np.mean(gaps) < 0.040


def test_rtsp_killed_is_lost_at_once_and_back_soon(
    rtsp_camera: "RtspCamera", watch: "Watch"
) -> None:
    watched = watch(rtsp_camera.url())
    watched.frame()
    killed = time.monotonic()
    rtsp_camera.kill()
    at, event = watched.wait_for(SourceDown, 3)
    assert at - killed < 0.5
    assert isinstance(event, SourceDown)
    assert event.error.retryable
    assert watched.slot.latest()[1] is None
    time.sleep(1.0)
    rtsp_camera.start()
    answers = time.monotonic()
    watched.frame()
    assert time.monotonic() - answers < 1.5
    watched.wait_for(SourceOpened, 2, after=1)
    assert watched.reader.counters.reconnects == 1


def test_rtsp_frozen_is_lost_at_the_stall_limit(rtsp_camera: "RtspCamera", watch: "Watch") -> None:
    watched = watch(rtsp_camera.url(), stall_timeout=1.0)
    watched.arrivals(5)
    rtsp_camera.freeze()
    last_at = watched.last_picture_until(SourceDown)
    at, event = watched.wait_for(SourceDown, 4)
    assert 0.9 < at - last_at < 1.5
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceLost)
    assert watched.slot.latest()[1] is None
    rtsp_camera.thaw()
    thawed = time.monotonic()
    watched.frame()
    assert time.monotonic() - thawed < 1.5


def test_a_frozen_server_that_accepts_does_not_delay_the_stop(
    rtsp_camera: "RtspCamera", watch: "Watch"
) -> None:
    watched = watch(rtsp_camera.url(), stall_timeout=1.0)
    watched.frame()
    rtsp_camera.freeze()
    time.sleep(0.2)
    before = time.monotonic()
    watched.reader.stop()
    assert time.monotonic() - before < 2.3


def test_rtsp_wrong_path_is_reported_and_retried(rtsp_camera: "RtspCamera", watch: "Watch") -> None:
    watched = watch(rtsp_camera.url(path="nothing"))
    _, event = watched.wait_for(SourceDown, 3)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnreachable)
    assert "404" in str(event.error)
    watched.wait_for(SourceDown, 3, after=1)


@pytest.mark.parametrize("rtsp_camera", ["viewer:topsecret"], indirect=True)
def test_rtsp_password_is_required_and_never_reported(
    rtsp_camera: "RtspCamera", watch: "Watch"
) -> None:
    watched = watch(rtsp_camera.url("viewer:topsecret"))
    watched.frame()
    refused = watch(rtsp_camera.url("viewer:wrongsecret"))
    _, event = refused.wait_for(SourceDown, 3)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnusable)
    assert "401" in str(event.error)
    assert "secret" not in str([*refused.events(), *watched.events()])


@dataclass
class Broadcast:
    """An HTTP server that sends a transport stream in real time, and can be made to fail."""

    content: bytes
    hung: threading.Event = field(default_factory=threading.Event)
    cut: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def handler(self) -> type[BaseHTTPRequestHandler]:
        broadcast = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                size = len(broadcast.content) // 100
                while not broadcast.closing.is_set():
                    for start in range(0, len(broadcast.content), size):
                        while broadcast.hung.is_set() and not broadcast.closing.wait(0.02):
                            pass
                        if broadcast.cut.is_set() or broadcast.closing.wait(0.02):
                            return
                        chunk = broadcast.content[start : start + size]
                        try:
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                        except OSError:
                            return

        return Handler


@pytest.fixture
def broadcast(clips: "Clips") -> Iterator[Broadcast]:
    content = clips.quadrants("broadcast.ts", 640, 480, count=60).read_bytes()
    sender = Broadcast(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), sender.handler())
    sender.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield sender
    sender.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_http_broadcast_is_read_lost_when_cut_and_read_again(
    broadcast: Broadcast, watch: "Watch", clips: "Clips"
) -> None:
    watched = watch(f"http://127.0.0.1:{broadcast.port}/live")
    assert clips.colour_at(watched.frame().i420, 0.2, 0.2) == "red"
    broadcast.cut.set()
    cut = time.monotonic()
    at, event = watched.wait_for(SourceDown, 3)
    assert at - cut < 0.5
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceLost)
    broadcast.cut.clear()
    assert watched.frame()


def test_http_broadcast_that_falls_silent_is_lost_at_the_stall_limit(
    broadcast: Broadcast, watch: "Watch"
) -> None:
    watched = watch(f"http://127.0.0.1:{broadcast.port}/live", stall_timeout=0.8)
    watched.frame()
    broadcast.hung.set()
    last_at = watched.last_picture_until(SourceDown)
    at, _ = watched.wait_for(SourceDown, 3)
    assert 0.7 < at - last_at < 1.3
    broadcast.hung.clear()
    assert watched.frame()


def test_a_server_that_accepts_and_sends_nothing_does_not_delay_the_stop(watch: "Watch") -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        watched = watch(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", stall_timeout=1.0)
        time.sleep(0.3)
        before = time.monotonic()
        watched.reader.stop()
        assert time.monotonic() - before < 2.3


def test_udp_is_read_and_lost_when_the_sender_ends(watch: "Watch", clips: "Clips") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    watched = watch(f"udp://127.0.0.1:{port}", stall_timeout=0.8)
    content = clips.quadrants("broadcast.ts", 640, 480, count=60).read_bytes()
    packets = [content[start : start + 1316] for start in range(0, len(content), 1316)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for packet in packets * 3:
            sender.sendto(packet, ("127.0.0.1", port))
            time.sleep(2 / len(packets))
            if watched.slot.latest()[1] is not None:
                break
    assert clips.colour_at(watched.frame().i420, 0.2, 0.2) == "red"
    _, event = watched.wait_for(SourceDown, 4)
    assert isinstance(event, SourceDown)
    assert event.error.retryable


def test_a_protocol_that_ffmpeg_lacks_is_reported_clearly(watch: "Watch") -> None:
    watched = watch("nosuch://user:hidden@127.0.0.1:9000/x")
    _, event = watched.wait_for(SourceDown, 3)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnusable)
    assert "does not know the protocol" in str(event.error)
    assert "hidden" not in str(event.error)
