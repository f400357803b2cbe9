"""The sound track of recordings and streams: beside its picture, whole, silent where it must be."""

import socket
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
import pytest

from relayd.media.encode import VideoWriter
from relayd.media.frames import Geometry, SwappedFrame, black
from relayd.output.stream import StreamOutput
from relayd.sound.blocks import BLOCK, RATE, AudibleSound, Samples, silence

SIZE = Geometry(160, 120)
EVERY = 20
"""Pictures from flash to flash: one second."""
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


def offsets(path: Path | str) -> list[float]:
    """Return how many seconds after each flash its beep begins."""
    flashes: list[float] = []
    wave: list[Any] = []
    before = 0.0
    start = None
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
                start = frame.time if start is None else start
                wave.extend(part.to_ndarray()[0] for part in resampler.resample(frame))
    loud = np.flatnonzero(np.abs(np.concatenate(wave).astype(int)) > 3000)
    begins = loud[np.flatnonzero(np.diff(loud, prepend=-RATE) > RATE // 5)] / RATE + (start or 0.0)
    return [float(min(begins - flash, key=abs)) for flash in flashes]


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

    def __init__(self, url: Any, *, lose: range = range(0)) -> None:
        self.output = StreamOutput(str(url), SIZE, 20, 300, audio="aac")
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
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"{scheme}://127.0.0.1:{port}" + {"udp": "", "rtmp": "/live/key", "rtsp": "/cam"}[scheme]
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(listen, url, container_format, options)
        with Feed(url).running():
            assert received.result(25) == {"picture", "aac"}
