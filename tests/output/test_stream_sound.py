"""The sound track of recordings and streams: beside its picture, whole, silent where it must be."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.subtitles.subtitle
import numpy as np
import psutil
import pytest

from relayd.media.encode import VideoWriter
from relayd.media.encode_sound import AudioCodec
from relayd.media.frames import Geometry, SwappedFrame, black
from relayd.output.stream import StreamOutput
from relayd.sound.blocks import BLOCK, RATE, AudibleSound, Samples, silence
from tests.support import rtsp
from tests.support.rtsp import require_server
from tests.support.stage import wait_for

SIZE = Geometry(160, 120)
EVERY = 20
"""Pictures from flash to flash: one second."""
BESIDE = 0.06
"""s between a flash and its beep: more than one picture's time at 20 a second."""
BY_ARRIVAL = 0.2
"""s at a server that places streams by when their packets come: FFmpeg sends it no CNAME, by which
it could use the sender's reports, in which both have the same clock."""
QUIET = 0.2
"""s before a beep."""
FLASH = 60
"""Luma that tells a flash from a dark picture."""


def picture(number: int) -> np.ndarray[Any, Any]:
    i420 = black(SIZE)
    if number % EVERY == EVERY // 2:
        i420[: SIZE.height] = 200
    return i420


def tone(number: int) -> Samples:
    """Return block `number` of a beep of 50 ms that begins with the flash of each second."""
    if not RATE // 2 <= number * BLOCK % RATE < RATE // 2 + 5 * BLOCK:
        return silence()
    at = np.arange(BLOCK) + number * BLOCK
    return (12000 * np.cos(2 * np.pi * 1000 * at / RATE)).astype(np.int16)


def seen_and_heard(path: Path | str) -> tuple[list[float], list[float]]:
    """Return when each flash and each beep of a file begins, in s."""
    flashes: list[float] = []
    wave: list[tuple[float, Any]] = []
    before = 255.0  # one that is on at once does not count
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0], container.streams.audio[0]):
            assert not isinstance(frame, av.subtitles.subtitle.SubtitleSet)
            assert frame.time is not None
            if isinstance(frame, av.VideoFrame):
                level = float(frame.to_ndarray(format="gray").mean())
                if level - before > FLASH:
                    flashes.append(frame.time)
                before = level
            elif isinstance(frame, av.AudioFrame):
                start, frame.pts = frame.time, None
                parts = [part.to_ndarray()[0] for part in resampler.resample(frame)]
                wave += [(start, part) for part in parts]
    begins: list[float] = []
    loud_at = float("-inf")
    for start, part in wave:
        loud = start + np.flatnonzero(np.abs(part.astype(int)) > 3000) / RATE
        if len(loud):
            begins += [float(loud[0])] if loud[0] - loud_at > QUIET else []
            loud_at = loud[-1]
    return flashes, begins


def offsets(path: Path | str) -> list[float]:
    """Return how many seconds after each flash its beep begins."""
    flashes, begins = seen_and_heard(path)
    return [min((beep - flash for beep in begins), key=abs) for flash in flashes]


def first_sound(path: Path) -> float:
    """Return how long after the first picture the track of sound begins, in s."""
    begins: dict[str, float] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base:
                begins.setdefault(packet.stream.type, float(packet.pts * packet.time_base))
    return begins["audio"] - begins["video"]


def write(path: Path, *, seconds: float = 3.0, late: float = 0.0, **settings: Any) -> VideoWriter:
    writer = VideoWriter(str(path), SIZE.width, SIZE.height, fps=20, bitrate_kbit=300, **settings)
    for number in range(round(seconds * 20)):
        writer.write(picture(number))
        for block in range(number * 5, number * 5 + 5):
            writer.write_sound(tone(block), block / 100 + late)
    return writer


@pytest.mark.parametrize(
    ("suffix", "audio"),
    [
        *((suffix, "aac") for suffix in ("mp4", "mkv", "flv", "ts")),
        *((suffix, "opus") for suffix in ("mp4", "mkv")),
    ],
)
def test_a_beep_is_beside_its_flash_in_each_container(
    tmp_path: Path, suffix: str, audio: str
) -> None:
    file = tmp_path / f"out.{suffix}"
    write(file, audio=audio).close()
    found = offsets(file)
    assert len(found) == 3
    assert all(abs(offset) < 0.005 for offset in found), found


def test_a_hole_in_the_sound_becomes_silence_and_moves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "out.mkv"
    writer = VideoWriter(str(file), 160, 120, fps=20, bitrate_kbit=300, audio="aac")
    for number in range(80):
        writer.write(picture(number))
        for block in range(number * 5, number * 5 + 5):
            if not 60 <= block < 130:
                writer.write_sound(tone(block), block / 100)
    writer.close()
    assert all(abs(offset) < 0.005 for offset in offsets(file)), offsets(file)


def test_without_any_sound_the_track_is_silent_and_as_long_as_the_pictures(tmp_path: Path) -> None:
    file = tmp_path / "out.mp4"
    writer = VideoWriter(str(file), 160, 120, fps=20, bitrate_kbit=300, audio="aac")
    for number in range(80):
        writer.write(picture(number))
    writer.close()
    with av.open(str(file)) as container:
        wave = np.concatenate(
            [frame.to_ndarray()[0] for frame in container.decode(container.streams.audio[0])]
        )
    assert len(wave) / RATE > 3.0
    assert not wave.any()


def test_a_file_without_sound_has_no_sound_track(tmp_path: Path) -> None:
    file = tmp_path / "out.mp4"
    write(file).close()
    with av.open(str(file)) as container:
        assert not container.streams.audio


class Feed:
    """Shows pictures and plays blocks in real time, as the relay's two clocks would."""

    def __init__(self, url: Any, *, lose: range = range(0), audio: AudioCodec = "aac") -> None:
        self.output = StreamOutput(str(url), SIZE, 20, 300, audio=audio)
        self._lose = lose
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._show, self._play)]

    def _show(self) -> None:
        for number in range(10**6):
            if self._stop.wait(max(0.0, self._begin + number / 20 - time.monotonic())):
                return
            if number not in self._lose:
                self.output.show(SwappedFrame(picture(number), time.monotonic()))

    def _play(self) -> None:
        for number in range(10**6):
            at = self._begin + number / 100
            if self._stop.wait(max(0.0, at - time.monotonic())):
                return
            self.output.play(AudibleSound(tone(number), at))

    @contextmanager
    def running(self) -> Iterator[None]:
        self.output.open()
        self._begin = time.monotonic()
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
            self.output.close()


def test_a_recording_keeps_sound_and_picture_together_when_ticks_are_left_out(
    tmp_path: Path,
) -> None:
    file = tmp_path / "out.mkv"
    with Feed(file, lose=range(43, 48)).running():
        time.sleep(5.0)
    found = offsets(file)
    assert len(found) >= 3
    assert all(abs(offset) < 0.06 for offset in found), found


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listen(url: str, container_format: str, options: dict[str, str]) -> set[str]:
    """Receive until a picture and sound have been decoded; returns the sound's codec."""
    seen: set[str] = set()
    with av.open(url, format=container_format, options=options, timeout=(12, 8)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        for frame in container.decode(video, audio):
            seen.add("picture" if isinstance(frame, av.VideoFrame) else audio.codec.name)
            if len(seen) == 2:
                break
    return seen


@pytest.mark.parametrize(
    ("scheme", "container_format", "options"),
    [
        ("udp", "mpegts", {}),
        ("rtmp", "flv", {"listen": "1", "timeout": "12"}),
        ("rtsp", "rtsp", {"rtsp_flags": "listen", "listen_timeout": "12"}),
    ],
)
def test_a_real_receiver_gets_picture_and_sound(
    scheme: str, container_format: str, options: dict[str, str]
) -> None:
    port = free_port(socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
    url = f"{scheme}://127.0.0.1:{port}" + {"udp": "", "rtmp": "/live/key", "rtsp": "/cam"}[scheme]
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(listen, url, container_format, options)
        with Feed(url).running():
            assert received.result(25) == {"picture", "aac"}


@pytest.mark.parametrize(("scheme", "container_format"), [("udp", "mpegts"), ("rtsp", "rtsp")])
def test_a_real_receiver_gets_picture_and_opus(scheme: str, container_format: str) -> None:
    port = free_port(socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
    listens = {"rtsp_flags": "listen", "listen_timeout": "12"} if scheme == "rtsp" else {}
    url = f"{scheme}://127.0.0.1:{port}" + ("/cam" if scheme == "rtsp" else "")
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(listen, url, container_format, listens)
        with Feed(url, audio="opus").running():
            assert received.result(25) == {"picture", "opus"}


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="SRT goes through the program ffmpeg")
@pytest.mark.parametrize("audio", ["aac", "opus"])
def test_over_srt_sound_and_picture_arrive_together(tmp_path: Path, audio: AudioCodec) -> None:
    url, file = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}", tmp_path / "received.ts"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", f"{url}?mode=listener", "-c", "copy"]
    listener = subprocess.Popen([*command, "-t", "4", str(file)])
    try:
        with Feed(url, audio=audio).running():
            assert listener.wait(40) == 0
    finally:
        listener.kill()
        listener.wait()
    found = offsets(file)
    assert len(found) >= 2
    assert all(abs(offset) < BESIDE for offset in found), found


@pytest.mark.parametrize("audio", ["aac", "opus"])
def test_an_rtsp_server_records_sound_and_picture_together(
    tmp_path: Path, audio: AudioCodec
) -> None:
    require_server()
    file = tmp_path / "received.mkv"
    script = Path(rtsp.__file__).with_name("rtsp_recorder.py")
    server = subprocess.Popen(
        [rtsp.SYSTEM_PYTHON, str(script), audio, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        feed = Feed(f"rtsp://127.0.0.1:{int(server.stdout.readline())}/cam", audio=audio)
        with feed.running():
            wait_for("it is connected", lambda: feed.output.stats().up, 20)
            time.sleep(5.0)
        wait_for("a file", lambda: file.exists() and file.stat().st_size > 10_000, 10)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    found = offsets(file)
    assert len(found) >= 2
    assert all(abs(offset) < BY_ARRIVAL for offset in found), found


def ends(file: Path) -> tuple[float, float]:
    """Return when the picture and the sound of a file end, in s."""
    found = {"video": 0.0, "audio": 0.0}
    with av.open(str(file)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                found[packet.stream.type] = max(found[packet.stream.type], end)
    return found["video"], found["audio"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize("missing", [0.0, 0.3, 3.0])
def test_the_sound_is_as_long_as_the_picture(tmp_path: Path, suffix: str, missing: float) -> None:
    file = tmp_path / f"out.{suffix}"
    writer = VideoWriter(str(file), 160, 120, fps=20, bitrate_kbit=300, audio="aac")
    for number in range(70):
        writer.write(picture(number))
        for block in range(number * 5, number * 5 + 5):
            if block / 100 < 3.5 - missing:
                writer.write_sound(tone(block), block / 100)
    writer.close()
    picture_ends, sound_ends = ends(file)
    # A packet of AAC has 21 ms, and the last picture of some containers no length.
    assert abs(sound_ends - max(picture_ends, 3.5)) < 0.05, (picture_ends, sound_ends)


def test_a_recording_ends_with_sound_and_picture_together(tmp_path: Path) -> None:
    file = tmp_path / "out.mkv"
    with Feed(file).running():
        time.sleep(3.0)
    picture_ends, sound_ends = ends(file)
    assert abs(sound_ends - picture_ends) < BESIDE


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_an_hour_without_pictures_is_a_gap_after_which_they_are_together(
    tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"out.{suffix}"
    writer = VideoWriter(str(file), 160, 120, fps=20, bitrate_kbit=300, audio="aac")
    began = time.process_time()
    for number in [*range(40), *range(72_040, 72_100)]:
        writer.write(picture(number), number * 50)
        for block in range(number * 5, number * 5 + 5):
            writer.write_sound(tone(block), block / 100)
    writer.close()
    assert time.process_time() - began < 5.0, "it is not filled with silence"
    found = offsets(file)
    assert len(found) == 5
    assert all(abs(offset) < BESIDE for offset in found), found


def pusher() -> psutil.Process:
    """Return the process that encodes."""
    (found,) = [
        child for child in psutil.Process().children() if "relayd.output.pusher" in child.cmdline()
    ]
    return found


def test_sound_that_waits_while_the_encoder_hangs_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "out.mkv"
    with Feed(file).running():
        time.sleep(1.5)
        pusher().suspend()
        time.sleep(1.3)
        pusher().resume()
        time.sleep(2.5)
    heard = seen_and_heard(file)[1]
    assert len(heard) >= 4
    assert all(abs(step - 1.0) < 0.02 for step in np.diff(heard)), heard


def test_after_the_encoder_was_killed_sound_and_picture_go_on_together(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "out.mkv")
    with feed.running():
        wait_for("the first file", lambda: len(feed.output.files()) == 1, 20)
        time.sleep(2.5)
        pusher().kill()
        killed_at = time.monotonic()
        wait_for("the second file", lambda: len(feed.output.files()) == 2, 20)
        assert time.monotonic() - killed_at < 10.0
        time.sleep(3.5)
    second = Path(feed.output.files()[1])
    found = offsets(second)
    assert len(found) >= 2
    assert all(abs(offset) < BESIDE for offset in found), found
    assert first_sound(second) < 0.2, "what was not written is not made up for"
    picture_ends, sound_ends = ends(second)
    assert abs(sound_ends - picture_ends) < BESIDE
