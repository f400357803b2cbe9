"""Streams from the network: transports, slow answers, rare key frames, one's own old sockets."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import av
import pytest

from relayd.errors import SourceUnreachable
from relayd.source.events import SourceDown, SourceOpened
from tests.support.rtsp import RtspCamera

if TYPE_CHECKING:
    from tests.source.conftest import Watch
    from tests.support.clips import Clips


@pytest.fixture
def udp_camera() -> Iterator[RtspCamera]:
    camera = RtspCamera(transport="udp")
    camera.start()
    yield camera
    camera.kill()


def test_an_rtsp_camera_that_speaks_udp_alone_plays_by_itself(
    udp_camera: RtspCamera, watch: "Watch"
) -> None:
    watched = watch(udp_camera.url())
    _, event = watched.wait_for(SourceOpened, 5)
    assert event.kind == "live"
    watched.arrivals(30)
    assert [type(event) for event in watched.events()] == [SourceOpened]


@dataclass
class Passage:
    """Passes a TCP connection on to a camera: late, or breaking it where it asks for TCP."""

    target: int
    delay: float = 0.0
    refuses_tcp: bool = False
    """Whether it hangs up at a SETUP over TCP, as some cameras do in place of an answer."""
    mutes_tcp: bool = False
    """Whether it passes the answers over TCP, and nothing after the one to PLAY."""
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._is_tcp = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._server.accept()[0]
                thread = threading.Thread(target=self._serve, args=(near,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self.target)) as far:
            if self.closing.wait(self.delay):
                return
            back = threading.Thread(target=self._pass, args=(far, near))
            back.start()
            self._pass(near, far)
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        source.settimeout(0.1)
        with contextlib.suppress(OSError):
            while not self.closing.is_set():
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                if not data or (self.refuses_tcp and b"RTP/AVP/TCP" in data):
                    break
                self._is_tcp = self._is_tcp or b"RTP/AVP/TCP" in data
                if self.mutes_tcp and self._is_tcp and data.startswith(b"$"):
                    continue
                at = data.find(b"$") if self.mutes_tcp and self._is_tcp else -1
                sink.sendall(data if at < 0 else data[:at])
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()


def test_an_rtsp_camera_that_hangs_up_when_asked_for_tcp_is_read_by_udp(
    udp_camera: RtspCamera, watch: "Watch"
) -> None:
    passage = Passage(udp_camera.port, refuses_tcp=True)
    try:
        watched = watch(f"rtsp://127.0.0.1:{passage.port}/live")
        watched.wait_for(SourceOpened, 6)
        watched.arrivals(10)
        watched.reader.stop()
    finally:
        passage.close()


def test_an_rtsp_camera_that_sends_nothing_over_tcp_is_read_by_udp(
    rtsp_camera: RtspCamera, watch: "Watch"
) -> None:
    passage = Passage(rtsp_camera.port, mutes_tcp=True)
    try:
        url = f"rtsp://127.0.0.1:{passage.port}/live"
        watched = watch(url, open_timeout=1.0, first_frame_timeout=0.5, stall_timeout=0.5)
        watched.wait_for(SourceOpened, 8)
        watched.arrivals(10)
        watched.reader.stop()
    finally:
        passage.close()


def test_an_rtsp_camera_that_answers_late_opens(rtsp_camera: RtspCamera, watch: "Watch") -> None:
    passage = Passage(rtsp_camera.port, delay=1.2)
    try:
        watched = watch(f"rtsp://127.0.0.1:{passage.port}/live", stall_timeout=0.6)
        watched.wait_for(SourceOpened, 6)
        assert [type(event) for event in watched.events()] == [SourceOpened]
        watched.reader.stop()
    finally:
        passage.close()


def test_stop_ends_the_opening_of_a_silent_rtsp_camera_at_once(watch: "Watch") -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        watched = watch(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live")
        time.sleep(0.3)
        before = time.monotonic()
        assert watched.reader.stop()
        assert time.monotonic() - before < 1.0


def test_a_silent_rtsp_camera_is_given_up_at_the_open_limit(watch: "Watch") -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        watched = watch(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", open_timeout=0.8)
        at, event = watched.wait_for(SourceDown, 4)
        assert 0.7 < at - began < 2.0
        assert isinstance(event.error, SourceUnreachable)
        assert "could not be opened within 0.8 s" in str(event.error)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sender:
    """Sends a transport stream to a UDP port in real time."""

    def __init__(self, clip: Path, seconds: float, port: int) -> None:
        content = clip.read_bytes()
        self._packets = [content[at : at + 1316] for at in range(0, len(content), 1316)]
        self._seconds, self._port = seconds, port
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number, packet in enumerate(self._packets):
                due = began + number * self._seconds / len(self._packets)
                if self.stopping.wait(max(0.0, due - time.monotonic())):
                    return
                sender.sendto(packet, ("127.0.0.1", self._port))

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join()


@pytest.fixture
def rare_keys(clips: "Clips") -> Path:
    """A stream of 7 s with a key frame at 0 and 4 s, cut behind the first one."""
    whole = clips.folder / "rare_keys_whole.ts"
    with av.open(str(whole), "w") as container:
        options = {"preset": "ultrafast", "g": "80", "keyint_min": "80", "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=20, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.bit_rate = 300_000
        for number in range(140):
            frame = av.VideoFrame(320, 240, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([(number * 7 + 16) % 200]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = whole.read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    kept = [p for n, p in enumerate(packets) if n > len(packets) // 10 or n < 3]
    return clips.file("rare_keys.ts", b"".join(kept))


def test_video_that_needs_a_key_frame_is_waited_for_beyond_the_limit(
    watch: "Watch", rare_keys: Path
) -> None:
    port = free_port()
    watched = watch(f"udp://127.0.0.1:{port}", first_frame_timeout=0.5, stall_timeout=0.5)
    time.sleep(0.2)
    sender = Sender(rare_keys, 6.3, port)
    try:
        watched.wait_for(SourceOpened, 8)
        assert [type(event) for event in watched.events()] == [SourceOpened]
    finally:
        sender.stop()
    _, event = watched.wait_for(SourceDown, 4)
    assert "no picture for" in str(event.error)


def test_a_restart_never_finds_its_own_port_in_use(watch: "Watch") -> None:
    watched = watch(f"udp://127.0.0.1:{free_port()}")
    for _ in range(4):
        time.sleep(0.15)
        watched.reader.restart()
        watched.reader.pause()
        watched.reader.resume()
    time.sleep(0.7)
    assert not watched.events()
