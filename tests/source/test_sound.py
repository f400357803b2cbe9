"""The sound beside the pictures of a source."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from relayd.logs import LogEvent
from relayd.media.decode import VideoInput
from relayd.media.frames import SourceFrame
from relayd.sound.blocks import BLOCK, OwnSound
from relayd.source.events import SourceEnded, SourceOpened
from tests.support.http_camera import HttpCamera
from tests.support.rtsp import RtspCamera
from tests.support.sounding import Sounding, beeps, flashes, offsets, write, write_twice

if TYPE_CHECKING:
    from tests.source.conftest import Watch, Watched

SHORT = 1.6
"""s of a clip: three flashes."""
FILES = {
    "plain.mp4": Sounding(SHORT),
    "chunked.mp4": Sounding(SHORT, options=(("chunk_duration", "1000000"),)),
    "stereo.ts": Sounding(SHORT, rate=44100, layout="stereo"),
    "telephone.mkv": Sounding(SHORT, rate=8000, codec="pcm_s16le"),
    "plain.flv": Sounding(SHORT),
}


def played(watched: "Watched", within: float = 10.0) -> tuple[list[SourceFrame], list[OwnSound]]:
    """Collect everything until the end of a recording."""
    number, frames = 0, list[SourceFrame]()
    deadline = time.monotonic() + within
    while not any(isinstance(event, SourceEnded) for event in watched.events()):
        assert time.monotonic() < deadline, watched.events()
        number, frame = watched.slot.wait_newer(number, 0.02)
        if frame is not None:
            frames.append(frame)
    return frames, watched.heard()


@pytest.mark.parametrize("name", FILES)
def test_the_sound_of_a_file_is_in_step_with_its_pictures(
    watch: "Watch", tmp_path: Path, name: str
) -> None:
    frames, blocks = played(watch(write(tmp_path / name, FILES[name]), loop=False, sound=True))
    off = offsets(flashes(frames), beeps(blocks))
    assert len(off) >= 2  # of three
    assert median(off) == pytest.approx(0, abs=0.02)


def test_blocks_are_whole_and_follow_one_another(watch: "Watch", tmp_path: Path) -> None:
    clip = write(tmp_path / "plain.mp4", FILES["plain.mp4"])
    _, blocks = played(watch(clip, loop=False, sound=True))
    assert {(block.samples.shape, block.samples.dtype.name) for block in blocks} == {
        ((BLOCK,), "int16")
    }
    assert np.diff([block.at for block in blocks]) == pytest.approx(0.01, abs=0.001)


def test_a_stream_in_bursts_is_heard_as_evenly_as_it_is_seen(
    watch: "Watch", tmp_path: Path, http_camera: HttpCamera
) -> None:
    clip = write(tmp_path / "burst.ts", Sounding(5.0))
    watched = watch(http_camera.serve("/live.ts", clip, 5.0), sound=True)
    frames = watched.arrivals(75, within=20)
    blocks = watched.heard()
    assert watched.wait_for(SourceOpened, 1)[1].kind == "bursts"
    off = offsets(flashes(frames), beeps(blocks))
    assert len(off) >= 4
    assert median(off) == pytest.approx(0, abs=0.05)
    assert median(np.diff([block.at for block in blocks])) == pytest.approx(0.01, abs=0.001)


def test_live_hls_is_heard_in_step(watch: "Watch", tmp_path: Path, sender: "Sender") -> None:
    playlist = tmp_path / "live.m3u8"
    clip = write(tmp_path / "clip.ts", Sounding(10.0))
    sender.start(clip, "-f", "hls", "-hls_time", "1", "-hls_list_size", "4", str(playlist))
    deadline = time.monotonic() + 10
    while not playlist.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    watched = watch(playlist, sound=True)
    frames = watched.arrivals(90, within=20)
    assert watched.wait_for(SourceOpened, 1)[1].kind == "bursts"
    off = offsets(flashes(frames), beeps(watched.heard()))
    assert len(off) >= 4
    assert median(off) == pytest.approx(0, abs=0.05)


def test_a_cameras_sound_of_8_khz_is_heard_beside_its_pictures(
    watch: "Watch", rtsp_camera: RtspCamera
) -> None:
    watched = watch(rtsp_camera.url(path="heard"), sound=True)
    frames = watched.arrivals(60, within=20)
    blocks = watched.heard()[-100:]
    assert np.diff([block.at for block in blocks]) == pytest.approx(0.01, abs=0.002)
    assert blocks[-1].at == pytest.approx(frames[-1].captured_at, abs=0.3)
    wave = np.concatenate([block.samples for block in blocks]).astype(float)
    assert np.argmax(np.abs(np.fft.rfft(wave))) == pytest.approx(1000, abs=5)  # of one second


def test_announced_sound_that_never_comes_delays_no_live_picture(
    watch: "Watch", tmp_path: Path, http_camera: HttpCamera
) -> None:
    content = bytearray(write(tmp_path / "flv.flv", Sounding(4.0, with_sound=False)).read_bytes())
    content[4] = 5  # the header announces sound and video
    announced = tmp_path / "announced.flv"
    announced.write_bytes(content)
    watched = watch(http_camera.serve("/live.flv", announced, 4.0), sound=True)
    frames = watched.arrivals(40, within=10)
    assert max(np.diff([frame.captured_at for frame in frames])) < 0.5


def test_a_pipe_is_heard_in_step(watch: "Watch", tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    content = write(tmp_path / "pipe.ts", Sounding(SHORT)).read_bytes()
    writing = threading.Thread(target=fifo.write_bytes, args=(content,))
    watched = watch(fifo, sound=True)
    writing.start()
    frames = watched.arrivals(36, within=10)
    writing.join()
    off = offsets(flashes(frames), beeps(watched.heard()))
    assert len(off) >= 2
    assert median(off) == pytest.approx(0, abs=0.03)


class Sender:
    """The system's ffmpeg, which sends a clip again and again, at its own pace."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"udp://127.0.0.1:{probe.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, clip: Path, *target: str) -> str:
        """Send as ffmpeg's options for its output say, by default as MPEG-TS over UDP."""
        if shutil.which("ffmpeg") is None:
            pytest.skip("no sender to test against: apt-get install ffmpeg")
        usual = ("-f", "mpegts", "-muxdelay", "0", "-muxpreload", "0", f"{self.url}?pkt_size=1316")
        self._process = subprocess.Popen(
            ["ffmpeg", "-nostdin", "-loglevel", "quiet", "-re", "-stream_loop", "-1",
             "-i", str(clip), "-c", "copy", *(target or usual)],
        )  # fmt: skip
        return self.url

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def sender() -> Iterator[Sender]:
    """A sender that is stopped at the end."""
    sender = Sender()
    yield sender
    sender.stop()


def test_the_sound_of_a_live_stream_is_in_step_with_its_pictures(
    watch: "Watch", tmp_path: Path, sender: Sender
) -> None:
    url = sender.start(write(tmp_path / "live.ts", Sounding(10.0)))
    watched = watch(url, sound=True)
    frames = watched.arrivals(100, within=20)
    off = offsets(flashes(frames), beeps(watched.heard()))
    assert len(off) >= 6
    assert median(off) == pytest.approx(0, abs=0.04)


def test_live_sound_of_which_only_some_packets_have_a_stamp_is_in_step(
    watch: "Watch", tmp_path: Path, sender: Sender
) -> None:
    # By default ffmpeg packs a third of a second of quiet sound under one stamp.
    target = ("-f", "mpegts", f"{sender.url}?pkt_size=1316")
    url = sender.start(write(tmp_path / "live.ts", Sounding(10.0)), *target)
    watched = watch(url, sound=True)
    frames = watched.arrivals(100, within=20)
    off = offsets(flashes(frames), beeps(watched.heard()))
    assert len(off) >= 6
    assert median(map(abs, off)) == pytest.approx(0, abs=0.05)


def test_a_loop_goes_on_in_step_and_without_a_hole(watch: "Watch", tmp_path: Path) -> None:
    clip = write(tmp_path / "loop.mp4", Sounding(1.0))
    watched = watch(clip, sound=True)
    frames = watched.arrivals(80)
    blocks = watched.heard()
    off = offsets(flashes(frames), beeps(blocks))
    assert len(off) >= 5
    assert median(off) == pytest.approx(0, abs=0.02)
    assert np.diff([block.at for block in blocks]) == pytest.approx(0.01, abs=0.002)


def test_what_a_recording_lacks_in_sound_is_a_hole_and_not_a_shift(
    watch: "Watch", tmp_path: Path
) -> None:
    clip = write(tmp_path / "hole.mkv", Sounding(2.5, hole=(0.75, 1.1), sound_to=2.2))
    frames, blocks = played(watch(clip, loop=False, sound=True))
    off = offsets(flashes(frames), beeps(blocks))
    assert len(off) >= 3
    assert median(off[-2:]) == pytest.approx(0, abs=0.02)
    assert max(np.diff([block.at for block in blocks])) == pytest.approx(0.35, abs=0.05)


def test_a_jump_of_the_stamps_shifts_no_sound(watch: "Watch", tmp_path: Path) -> None:
    clip = write_twice(tmp_path / "twice.ts", Sounding(1.2))
    frames, blocks = played(watch(clip, loop=False, sound=True))
    off = offsets(flashes(frames), beeps(blocks))
    assert len(off) >= 3
    assert max(abs(one) for one in off) < 0.1
    assert median(off) == pytest.approx(0, abs=0.02)


def test_sound_that_stops_is_said_and_so_is_its_return(watch: "Watch", tmp_path: Path) -> None:
    clip = write(tmp_path / "pause.mkv", Sounding(4.0, hole=(0.6, 2.6)))
    watched = watch(clip, loop=False, sound=True)
    with capture_logs() as logs:
        frames, _ = played(watched)
    said = [line["event"] for line in logs if line["event"].startswith("sound.")]
    assert said == [LogEvent.SOUND_OPENED, LogEvent.SOUND_LOST, LogEvent.SOUND_BACK]
    assert watched.reader.sound.losses == 1
    assert len(frames) > 80  # no picture waited for it


def test_a_source_without_sound_says_so_once(watch: "Watch", tmp_path: Path) -> None:
    clip = write(tmp_path / "silent.mp4", Sounding(0.4, with_sound=False))
    with capture_logs() as logs:
        _, blocks = played(watch(clip, loop=False, sound=True))
    said = [line["event"] for line in logs if line["event"].startswith("sound.")]
    assert (said, blocks) == ([LogEvent.SOUND_NONE], [])


def test_a_pause_wipes_what_nobody_took(watch: "Watch", tmp_path: Path) -> None:
    watched = watch(write(tmp_path / "plain.mp4", FILES["plain.mp4"]), sound=True)
    watched.frame()
    watched.arrivals(10)
    watched.reader.pause()
    deadline = time.monotonic() + 5
    while watched.slot.latest()[1] is not None or len(watched.sound):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(watched.sound) == 0


def test_without_being_asked_no_sound_is_decoded(
    watch: "Watch", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    opening = VideoInput.open

    def opened(url: str, **how: Any) -> VideoInput:
        asked.append(how["with_sound"])
        source = opening(url, **how)
        assert source.sound is None
        return source

    monkeypatch.setattr("relayd.source.opening.VideoInput.open", opened)
    watched = watch(write(tmp_path / "plain.mp4", FILES["plain.mp4"]))
    watched.wait_for(SourceOpened, 5)
    assert asked == [False]
