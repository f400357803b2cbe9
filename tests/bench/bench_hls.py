"""Live HLS of 1, 2, 4 and 6 s segments: smoothness and delay of relayd, ffmpeg and ffplay.

    python tests/bench/bench_hls.py [SECONDS]

One encoder publishes all four playlists in real time over HTTP. Each reader reads all four at the
same time for SECONDS (60 by default); the number of each picture is read from the picture. The
delay is counted from the moment at which the encoder got the picture. ffmpeg reads as fast as it
can (no -re): its row shows how the pictures arrive. ffplay has no window (SDL's dummy driver), and
its row is read from the clock that it prints.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from relayd.config.settings import SourceSettings
from relayd.media.frames import Geometry, SourceFrame, luma
from relayd.media.slots import LatestSlot
from relayd.source.events import SourceEvent
from relayd.source.reader import SourceReader
from relayd.urls.safe import MediaUrl
from tests.support.frame_code import BITS, HEIGHT_SHARE, ffmpeg_filter, number_of

DURATIONS = (1, 2, 4, 6)
RATE = 30
WIDTH, HEIGHT = 640, 360
WARM_UP = 30.0
"""s until the playlist of 6 s segments is full."""
SETTLED = 15.0
"""s after which the second figures are taken: the start is over."""


@dataclass
class Seen:
    """When a reader showed which picture."""

    shown: list[tuple[float, int]] = field(default_factory=list)

    def row(self, began: float, origin: float, seconds: float) -> str:
        """Return the figures of all that was shown, and of what came after the start."""
        new = [self.shown[0]] if self.shown else []
        new += [
            later for earlier, later in itertools.pairwise(self.shown) if later[1] != earlier[1]
        ]
        if len(new) < 2:
            return "nothing shown"
        gaps = np.diff([at for at, _ in new])
        late = [(at, number) for at, number in new if at > began + SETTLED]
        late_gaps = np.diff([at for at, _ in late]) if len(late) > 1 else np.array([np.inf])
        delays = [at - (origin + number / RATE) for at, number in late] or [float("nan")]
        backwards = sum(b[1] < a[1] for a, b in itertools.pairwise(new))
        return (
            f"{new[0][0] - began:6.2f} {len({number for _, number in new}) / seconds:7.2f}"
            f" {gaps.max():8.2f} {late_gaps.max():8.2f}"
            f" {np.median(delays):8.2f} {min(delays):6.2f} {max(delays):6.2f} {backwards:5d}"
        )


@contextmanager
def published(folder: Path) -> Iterator[None]:
    """Encode one picture stream into all four playlists, in real time."""
    outputs = "|".join(
        f"[f=hls:hls_time={duration}:hls_list_size=6:hls_flags=delete_segments]"
        f"{folder}/live{duration}.m3u8"
        for duration in DURATIONS
    )
    encoder = subprocess.Popen(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-re",
         "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}",
         "-vf", ffmpeg_filter(WIDTH, HEIGHT), "-pix_fmt", "yuv420p",
         "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(RATE),
         "-f", "tee", "-map", "0:v", outputs]
    )  # fmt: skip
    try:
        yield
    finally:
        encoder.terminate()
        encoder.wait()


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve the folder; yields the port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Origin:
    """When picture 0 was made: no segment of 1 s is complete before its last picture."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._found = folder, float("inf")
        self._wall = time.time() - time.monotonic()

    def look(self) -> float:
        """Return the best estimate so far, monotonic s."""
        for path in self._folder.glob("live1[0-9]*.ts"):
            number = int(re.fullmatch(r"live1(\d+)\.ts", path.name)[1])  # type: ignore[index]  # matched by the pattern
            try:
                made = path.stat().st_mtime - self._wall
            except FileNotFoundError:
                continue
            if made < time.monotonic() - 1.5:  # complete
                self._found = min(self._found, made - (number + 1))
        return self._found


def by_relayd(url: str, seen: Seen, stop: threading.Event) -> None:
    """Read as the relay does."""

    def report(event: SourceEvent) -> None:
        print("  ", url.rpartition("/")[2], event)

    slot: LatestSlot[SourceFrame] = LatestSlot()
    reader = SourceReader(
        SourceSettings(url=MediaUrl(url)), Geometry(WIDTH, HEIGHT), "crop", slot, report
    )
    reader.start()
    number = 0
    while not stop.is_set():
        number, frame = slot.wait_newer(number, 0.5)
        if frame is not None:
            seen.shown.append((frame.captured_at, number_of(luma(frame.i420))))
    print("  ", url.rpartition("/")[2], f"buffered {reader.buffered:.2f} s", reader.counters)
    reader.stop()


def kill_at(process: "subprocess.Popen[bytes]", stop: threading.Event) -> None:
    """Kill a process when told to stop."""
    stop.wait()
    process.kill()


def by_ffmpeg(url: str, seen: Seen, stop: threading.Event) -> None:
    """Note when the ffmpeg program hands over each picture."""
    height = HEIGHT // HEIGHT_SHARE
    process = subprocess.Popen(
        ["ffmpeg", "-nostdin", "-loglevel", "quiet", "-i", url, "-an",
         "-vf", f"crop={WIDTH}:{height}:0:0,scale={BITS * 8}:{height}",
         "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    threading.Thread(target=kill_at, args=(process, stop)).start()
    while len(row := process.stdout.read(BITS * 8 * height)) == BITS * 8 * height:
        picture = np.frombuffer(row, np.uint8).reshape(height, -1)
        # number_of expects the row of blocks to be an eighth of the picture
        seen.shown.append((time.monotonic(), number_of(np.repeat(picture, HEIGHT_SHARE, axis=0))))
    process.wait()


def by_ffplay(url: str, seen: Seen, stop: threading.Event) -> None:
    """Read ffplay's clock from its status line; its stamps start at 1.4 s (MPEG-TS)."""
    process = subprocess.Popen(
        ["ffplay", "-loglevel", "info", "-stats", "-an", "-noborder", url],
        stderr=subprocess.PIPE,
        env=os.environ | {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"},
    )
    assert process.stderr is not None
    threading.Thread(target=kill_at, args=(process, stop)).start()
    text = b""
    while piece := os.read(process.stderr.fileno(), 4096):
        text = (text + piece)[-4096:]
        clocks = re.findall(rb"\r *([\d.]+) M-V", text)
        if clocks:
            seen.shown.append((time.monotonic(), round((float(clocks[-1]) - 1.4) * RATE)))
    process.wait()


def measure(name: str, reader: object, port: int, origin: Origin, seconds: float) -> list[str]:
    """Read all playlists for some seconds; return a row for each."""
    assert callable(reader)
    print(f"{name}: {seconds:g} s")
    began, stop = time.monotonic(), threading.Event()
    seen = {duration: Seen() for duration in DURATIONS}
    threads = [
        threading.Thread(
            target=reader, args=(f"http://127.0.0.1:{port}/live{duration}.m3u8", one, stop)
        )
        for duration, one in seen.items()
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < began + seconds:
        time.sleep(1)
        origin.look()
    stop.set()
    for thread in threads:
        thread.join()
    return [
        f"{name:8} {duration:4d} {one.row(began, origin.look(), seconds)}"
        for duration, one in seen.items()
    ]


def main() -> None:
    """Measure and print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with published(folder), served(folder) as port:
            origin = Origin(folder)
            while not (folder / "live6.m3u8").exists():
                time.sleep(0.5)
            ready = time.monotonic() + WARM_UP
            while time.monotonic() < ready:
                time.sleep(1)
                origin.look()
            rows: list[str] = []
            for title, reader in (
                ("relayd", by_relayd), ("ffmpeg", by_ffmpeg), ("ffplay", by_ffplay)
            ):  # fmt: skip
                rows += measure(title, reader, port, origin, seconds)
    print(
        f"{'':8} {'seg':>4} {'first':>6} {'new/s':>7} {'freeze':>8} {'settled':>8}"
        f" {'delay':>8} {'min':>6} {'max':>6} {'back':>5}"
    )
    print("\n".join(rows))
    print("first, freeze, delay in s; freeze: the longest, and the longest after the first 15 s")


if __name__ == "__main__":
    main()
