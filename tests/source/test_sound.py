"""The sound beside the pictures of a source."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from relayd.media.decode import VideoInput
from relayd.media.frames import SourceFrame
from relayd.sound.blocks import BLOCK, OwnSound
from relayd.source.events import SourceEnded, SourceOpened
from tests.support.sounding import Sounding, beeps, flashes, offsets, write

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
    assert len(off) == 3
    assert median(off) == pytest.approx(0, abs=0.02)


def test_blocks_are_whole_and_follow_one_another(watch: "Watch", tmp_path: Path) -> None:
    clip = write(tmp_path / "plain.mp4", FILES["plain.mp4"])
    _, blocks = played(watch(clip, loop=False, sound=True))
    assert {(block.samples.shape, block.samples.dtype.name) for block in blocks} == {
        ((BLOCK,), "int16")
    }
    assert np.diff([block.at for block in blocks]) == pytest.approx(0.01, abs=0.001)


class Sender:
    """The system's ffmpeg, which sends a clip over UDP again and again, at its own pace."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"udp://127.0.0.1:{probe.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, clip: Path) -> str:
        self._process = subprocess.Popen(
            ["ffmpeg", "-nostdin", "-loglevel", "quiet", "-re", "-stream_loop", "-1",
             "-i", str(clip), "-c", "copy", "-f", "mpegts", "-muxdelay", "0",
             "-muxpreload", "0", f"{self.url}?pkt_size=1316"],
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
