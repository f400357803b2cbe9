"""Sources to read: clips made on the spot, and a live RTSP camera."""

import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from threading import Condition

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from relayd.clock import Clock
from relayd.frames import FitMode, Geometry, SourceFrame
from relayd.slots import LatestSlot
from relayd.source.attempt import SourceSettings
from relayd.source.events import SourceEvent
from relayd.source.reader import SourceReader

RGB = NDArray[np.uint8]
VGA = Geometry(640, 480)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
MATRICES = {"ITU601": 6, "ITU709": 1, "SMPTE240M": 7, "BT2020": 9}  # as in ITU-T H.273
COLOURS = {  # Y, U, V in BT.601, limited range
    "red": (82, 90, 240),
    "green": (145, 54, 34),
    "blue": (41, 240, 110),
    "white": (235, 128, 128),
    "black": (16, 128, 128),
}


def quadrants(width: int, height: int) -> RGB:
    """Red above left, green above right, blue below left, white below right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


class Clips:
    """Makes video files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def video(
        self,
        name: str,
        pictures: Iterable[RGB],
        *,
        rate: int = 30,
        times: list[float] | None = None,
        pixel_format: str = "yuv420p",
        codec: str = "libx264",
        sample_aspect: Fraction = Fraction(1),
        matrix: str = "ITU601",
        full_range: bool = False,
    ) -> Path:
        """Write pictures of one size; `times` in seconds make the rate vary."""
        path = self.folder / name
        if path.exists():
            return path
        options = {"qp": "12", "preset": "ultrafast", "g": "15"} if codec == "libx264" else {}
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.pix_fmt = pixel_format
            for number, rgb in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                if pixel_format != "rgb24":
                    frame = frame.reformat(
                        format=pixel_format,
                        dst_colorspace=matrix,
                        dst_color_range="JPEG" if full_range else "MPEG",
                    )
                if number == 0:
                    context = stream.codec_context
                    context.height, context.width = rgb.shape[:2]
                    context.sample_aspect_ratio = sample_aspect
                    context.color_range = 2 if full_range else 1
                    context.colorspace = MATRICES[matrix]
                    context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
                frame.pts = round(times[number] * 1000) if times else number
                frame.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def quadrants(self, name: str, width: int, height: int, count: int = 15, **how: object) -> Path:
        return self.video(name, [quadrants(width, height)] * count, **how)

    def grey_ramp(self, name: str, count: int, rate: int, times: list[float] | None = None) -> Path:
        """Pictures that tell their number by their grey: 40 + 2 for each."""
        pictures = (np.full((120, 160, 3), 40 + 2 * number, np.uint8) for number in range(count))
        return self.video(name, pictures, rate=rate, times=times)

    def rotated(self, clip: Path, a: int, b: int, c: int, d: int) -> Path:
        """Copy an MP4 with another matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""
        content = bytearray(clip.read_bytes())
        matrix_at = content.index(b"tkhd") + 4 + 40
        one = 1 << 16
        struct.pack_into(
            ">9i", content, matrix_at, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
        )
        path = clip.with_name(f"{clip.stem}_{a}{b}{c}{d}.mp4")
        path.write_bytes(content)
        return path

    def sound(self, name: str) -> Path:
        """A file with sound alone."""
        path = self.folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 4096), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 48000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    @staticmethod
    def colour_at(i420: NDArray[np.uint8], x: float, y: float) -> str:
        """Name the colour at a place given in shares of width and height."""
        rows, width = i420.shape
        height = rows * 2 // 3
        column, row = int(x * width), int(y * height)
        chroma = i420[height:].reshape(2, height // 2, width // 2)
        found = (
            int(i420[row, column]),
            int(chroma[0, row // 2, column // 2]),
            int(chroma[1, row // 2, column // 2]),
        )
        for name, colour in COLOURS.items():
            if all(abs(a - b) <= 6 for a, b in zip(found, colour, strict=True)):
                return name
        return str(found)

    @staticmethod
    def corners(i420: NDArray[np.uint8]) -> list[str]:
        """Name the colours of the four quadrants: above left and right, below left and right."""
        return [Clips.colour_at(i420, x, y) for y in (0.2, 0.8) for x in (0.2, 0.8)]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return Clips(tmp_path_factory.mktemp("clips"))


@dataclass
class Watched:
    """A reader, and all it told."""

    slot: LatestSlot[SourceFrame] = field(default_factory=LatestSlot)
    reader: SourceReader = field(init=False)
    told: list[tuple[float, SourceEvent]] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)

    def hear(self, event: SourceEvent) -> None:
        with self.changed:
            self.told.append((time.monotonic(), event))
            self.changed.notify_all()

    def events(self) -> list[SourceEvent]:
        return [event for _, event in self.told]

    def wait_for(
        self, kind: type[SourceEvent], within: float, after: int = 0
    ) -> tuple[float, SourceEvent]:
        """Wait for an event of a kind, beyond the first `after` events told."""

        def found() -> list[tuple[float, SourceEvent]]:
            return [told for told in self.told[after:] if isinstance(told[1], kind)]

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

    def last_picture_until(self, kind: type[SourceEvent]) -> float:
        """Watch until an event of a kind is told; give when the last picture came before it."""
        number, last_at = 0, 0.0
        while not any(isinstance(event, kind) for event in self.events()):
            number, frame = self.slot.wait_newer(number, 0.01)
            last_at = frame.captured_at if frame is not None else last_at
        return last_at

    def arrivals(
        self, count: int, within: float = 10.0, since: int | None = None
    ) -> list[SourceFrame]:
        """Take the next `count` pictures as they come, or those after number `since`."""
        number, frames = self.slot.latest()[0] if since is None else since, []
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
        stall_timeout: float = 2.0,
        fit: FitMode = "crop",
        clock: Clock | None = None,
    ) -> Watched:
        settings = SourceSettings(str(url), demuxer, options or {}, loop, stall_timeout)
        watched = Watched()
        watched.reader = SourceReader(settings, VGA, fit, watched.slot, watched.hear, clock=clock)
        started.append(watched)
        watched.reader.start()
        return watched

    yield start
    assert all(watched.reader.stop() for watched in started), "FFmpeg hangs on"


SYSTEM_PYTHON = "/usr/bin/python3"
NEEDED = (
    "apt-get install --no-install-recommends gir1.2-gst-rtsp-server-1.0 python3-gi"
    " gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
    " gstreamer1.0-plugins-ugly"
)


class RtspCamera:
    """GStreamer's RTSP server as a process: may be killed, frozen and started again."""

    def __init__(self, login: str = "") -> None:
        self._login = login
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, on the same port as before; returns when it listens."""
        script = Path(__file__).with_name("rtsp_server.py")
        arguments = [str(self.port), *([self._login] if self._login else [])]
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(script), *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, login: str = "", path: str = "live") -> str:
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}/{path}"

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@pytest.fixture
def rtsp_camera(request: pytest.FixtureRequest) -> Iterator[RtspCamera]:
    """A camera that runs; parametrize with a login to lock it."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", probe], check=False, capture_output=True).returncode
    ):
        pytest.skip(f"no RTSP server to test against: {NEEDED}")
    camera = RtspCamera(getattr(request, "param", ""))
    camera.start()
    yield camera
    camera.kill()
