"""Sources to read: generated clips, and a live RTSP camera."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import TypeVar

import psutil
import pytest

from relayd.clock import Clock
from relayd.config.settings import SourceSettings
from relayd.media.frames import FitMode, Geometry, SourceFrame
from relayd.media.slots import LatestSlot
from relayd.sound.blocks import OwnSound
from relayd.sound.ring import SoundRing
from relayd.source.events import SourceEvent
from relayd.source.kinds import WantedKind
from relayd.source.reader import SourceReader
from relayd.urls.safe import MediaUrl
from tests.support.http_camera import HttpCamera
from tests.support.rtsp import RtspCamera

VGA = Geometry(640, 480)
EventKind = TypeVar("EventKind", bound=SourceEvent)


@dataclass
class Watched:
    """A reader and all its events."""

    slot: LatestSlot[SourceFrame] = field(default_factory=LatestSlot)
    sound: SoundRing[OwnSound] = field(default_factory=lambda: SoundRing(20.0))
    """Where its sound goes, if the reader is started with it."""
    reader: SourceReader = field(init=False)
    reported: list[tuple[float, SourceEvent]] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)

    def on_event(self, event: SourceEvent) -> None:
        with self.changed:
            self.reported.append((time.monotonic(), event))
            self.changed.notify_all()

    def events(self) -> list[SourceEvent]:
        return [event for _, event in self.reported]

    def wait_for(
        self, kind: type[EventKind], within: float, after: int = 0
    ) -> tuple[float, EventKind]:
        """Wait for an event of a type, after the first `after` events."""

        def found() -> list[tuple[float, EventKind]]:
            return [(at, event) for at, event in self.reported[after:] if isinstance(event, kind)]

        with self.changed:
            assert self.changed.wait_for(found, within), (
                f"no {kind.__name__} within {within} s, only {self.events()}"
            )
            return found()[0]

    def frame(self, within: float = 5.0) -> SourceFrame:
        """Wait for a picture."""
        deadline = time.monotonic() + within
        while (frame := self.slot.latest()[1]) is None:
            assert time.monotonic() < deadline, f"no picture, only {self.events()}"
            time.sleep(0.005)
        return frame

    def heard(self) -> list[OwnSound]:
        """Take the sound that has come so far."""
        blocks: list[OwnSound] = []
        while (block := self.sound.take()) is not None:
            blocks.append(block)
        return blocks

    def last_picture_until(self, kind: type[SourceEvent]) -> float:
        """Watch until an event of a type; return when the last picture before it was captured."""
        number, last_at = 0, 0.0
        while not any(isinstance(event, kind) for event in self.events()):
            number, frame = self.slot.wait_newer(number, 0.01)
            last_at = frame.captured_at if frame is not None else last_at
        return last_at

    def arrivals(
        self, count: int, within: float = 10.0, since: int | None = None
    ) -> list[SourceFrame]:
        """Collect the next `count` pictures as they arrive, or those after number `since`."""
        number = self.slot.latest()[0] if since is None else since
        frames: list[SourceFrame] = []
        deadline = time.monotonic() + within
        while len(frames) < count:
            assert time.monotonic() < deadline, f"{len(frames)} pictures only, {self.events()}"
            number, frame = self.slot.wait_newer(number, 0.5)
            if frame is not None:
                frames.append(frame)
        return frames


Watch = Callable[..., Watched]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Start readers, and stop them at the end."""
    started: list[Watched] = []

    def start(
        url: str | Path,
        *,
        demuxer: str = "",
        options: dict[str, str] | None = None,
        loop: bool = True,
        kind: WantedKind = "auto",
        refresh: float = 1.0,
        open_timeout: float = 10.0,
        first_frame_timeout: float = 10.0,
        stall_timeout: float = 2.0,
        fit: FitMode = "crop",
        clock: Clock | None = None,
        sound: bool = False,
    ) -> Watched:
        settings = SourceSettings(
            url=MediaUrl(str(url)),
            format=demuxer,
            options=options or {},
            loop=loop,
            kind=kind,
            refresh=refresh,
            open_timeout=open_timeout,
            first_frame_timeout=first_frame_timeout,
            stall_timeout=stall_timeout,
        )
        watched = Watched()
        watched.reader = SourceReader(
            settings,
            VGA,
            fit,
            watched.slot,
            watched.on_event,
            clock=clock,
            sound=watched.sound if sound else None,
        )
        started.append(watched)
        watched.reader.start()
        return watched

    yield start
    assert all(watched.reader.stop() for watched in started), "FFmpeg still hangs"


@pytest.fixture
def http_camera() -> Iterator[HttpCamera]:
    """Cameras that speak HTTP."""
    camera = HttpCamera()
    camera.start()
    yield camera
    camera.close()


@pytest.fixture
def rtsp_camera(request: pytest.FixtureRequest) -> Iterator[RtspCamera]:
    """A running camera; parametrize with a login to require one."""
    camera = RtspCamera(getattr(request, "param", ""))
    camera.start()
    yield camera
    camera.kill()


class SrtCamera:
    """The system's ffmpeg as an SRT listener for one caller, with a key frame each second."""

    def __init__(self, passphrase: str = "") -> None:
        self._passphrase = passphrase
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: psutil.Popen | None = None

    def start(self) -> None:
        """Start, on the same port as before; returns when it listens."""
        locked = f"&passphrase={self._passphrase}" if self._passphrase else ""
        self.call(f"{self.url()}?mode=listener{locked}")
        deadline = time.monotonic() + 5
        assert self._process is not None
        while not self._process.net_connections("udp"):
            assert self._process.poll() is None
            assert time.monotonic() < deadline, "the SRT camera does not listen"
            time.sleep(0.01)

    def call(self, url: str) -> None:
        """Start, and send to `url`."""
        self._process = psutil.Popen(
            ["ffmpeg", "-nostdin", "-loglevel", "quiet",
             "-re", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30",
             "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30",
             "-f", "mpegts", url],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def url(self) -> str:
        return f"srt://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def hang_up(self) -> None:
        """End cleanly, so that the caller is notified."""
        assert self._process is not None
        self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def srt_camera(request: pytest.FixtureRequest) -> Iterator[SrtCamera]:
    """An SRT camera, not started; parametrize with a passphrase to require it."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no SRT peer to test against: apt-get install ffmpeg")
    camera = SrtCamera(getattr(request, "param", ""))
    yield camera
    camera.kill()
