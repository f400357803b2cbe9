"""The whole relay, from each kind of source to a swapped face."""

import io
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from relayd.emulator.swap import SourceFace, decode_image, likeness
from tests.support.clips import RGB, Clips
from tests.support.rtsp import RtspCamera
from tests.support.stage import BUSY_GAP, LIVE, Emulator, RunningRelay, wait_for

REAL = Path(__file__).parents[1] / "media"
MAN, ASTRONAUT = REAL / "webcam_man.mp4", REAL / "astronaut.png"
SWAPPED, UNSWAPPED = 0.7, 0.6
"""Likeness to the astronaut: measured 0.76 and more when swapped, 0.55 and less when not."""

pytestmark = [
    pytest.mark.relay,
    pytest.mark.skipif(
        not (MAN.exists() and ASTRONAUT.exists()),
        reason="REAL FACES ARE MISSING: run tests/setup.sh, as `make test-relay` does",
    ),
]


@pytest.fixture(scope="session")
def man() -> list[RGB]:
    """A real man who looks into his webcam: 640x360, 72 pictures."""
    with av.open(str(MAN)) as container:
        return [
            np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            for frame in container.decode(video=0)
        ]


@pytest.fixture(scope="session")
def astronaut() -> SourceFace:
    return SourceFace.prepare(decode_image(ASTRONAUT.read_bytes()))


def resized(pictures: list[RGB], width: int, height: int) -> Iterator[RGB]:
    for picture in pictures:
        yield np.asarray(Image.fromarray(picture).resize((width, height)))


def shown(relay: RunningRelay) -> RGB:
    """What the outputs show, BGR."""
    rgb = np.asarray(Image.open(io.BytesIO(relay.picture())).convert("RGB"))
    assert rgb.shape == (480, 640, 3)
    return np.ascontiguousarray(rgb[..., ::-1])


StartRelay = Callable[..., RunningRelay]


@pytest.fixture
def live_hls(tmp_path: Path) -> Iterator[str]:
    """The man as live HLS of 4 s segments: the address."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("nothing to publish HLS with: apt-get install ffmpeg")
    playlist = tmp_path / "live.m3u8"
    publisher = subprocess.Popen(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(MAN),
         "-an", "-c:v", "libx264", "-preset", "ultrafast", "-r", "30", "-g", "60",
         "-f", "hls", "-hls_time", "4", "-hls_flags", "delete_segments", str(playlist)]
    )  # fmt: skip
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    wait_for("the first segment", playlist.exists, 10)
    yield f"http://127.0.0.1:{server.server_port}/live.m3u8"
    publisher.kill()
    publisher.wait()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def expect_swap(
    start_relay: StartRelay, emulator: Emulator, astronaut: SourceFace
) -> Callable[[Path | str], RunningRelay]:
    """Relay a source with the man in it, and see the astronaut come out."""

    def expect(source: Path | str) -> RunningRelay:
        relay = start_relay(f"face.image={emulator.upload(ASTRONAUT)}", source=source)
        relay.wait_state("live")

        def is_swapped() -> bool:
            found = likeness(shown(relay), astronaut)
            return found is not None and found > SWAPPED

        wait_for("the astronaut's face", is_swapped, 10, every=0.3)
        return relay

    return expect


def test_the_man_himself_is_unlike_the_astronaut(man: list[RGB], astronaut: SourceFace) -> None:
    likenesses = [likeness(np.ascontiguousarray(one[..., ::-1]), astronaut) for one in man[::12]]
    assert all(found is not None and found < UNSWAPPED for found in likenesses)


def test_an_hd_file_at_30_fps(
    expect_swap: Callable[..., RunningRelay], man: list[RGB], clips: Clips
) -> None:
    relay = expect_swap(clips.video("hd.mp4", resized(man, 1280, 720), rate=30))
    before = relay.status()["frames"]["source"]
    wait_for("the file goes on", lambda: relay.status()["frames"]["source"] > before + 60, 5)


def test_a_portrait_clip_with_a_rotation_flag(
    expect_swap: Callable[..., RunningRelay], man: list[RGB], clips: Clips
) -> None:
    lying = (np.ascontiguousarray(np.rot90(one[:, 185:455])) for one in man)
    expect_swap(clips.rotated(clips.video("lying.mp4", lying, rate=30), 0, 1, -1, 0))


def test_a_file_at_60_fps(
    expect_swap: Callable[..., RunningRelay], man: list[RGB], clips: Clips
) -> None:
    relay = expect_swap(clips.video("sixty.mp4", man, rate=60))
    assert relay.status()["dropped"]["pacer.newer"] > 0


def test_live_hls_of_four_second_segments_is_live_without_a_loss(
    start_relay: StartRelay, emulator: Emulator, live_hls: str
) -> None:
    relay = start_relay(f"face.image={emulator.upload(ASTRONAUT)}", source=live_hls)
    relay.wait_state("live")
    # The state comes a tick before the first swapped picture.
    wait_for("swapped pictures", lambda: relay.status()["frames"]["fresh"] > 5, LIVE)
    before = relay.status()
    time.sleep(12)
    after = relay.status()
    assert after["reconnects"]["source"] == 0
    assert "source.down" not in relay.events()
    assert (
        after["frames"]["source"] - before["frames"]["source"] > 12 * 15
    )  # of 30; 1 each s it was
    assert after["frames"]["standby"] == before["frames"]["standby"]
    assert 3.5 < after["source_buffer"] < 10
    assert relay.state() == "live"


def test_a_file_of_variable_rate(
    expect_swap: Callable[..., RunningRelay], man: list[RGB], clips: Clips
) -> None:
    steps = np.random.default_rng(7).choice([0.01, 0.04, 0.15], len(man))
    expect_swap(clips.video("variable.mkv", man, times=list(np.cumsum(steps))))


def test_a_still_image(
    expect_swap: Callable[..., RunningRelay], man: list[RGB], clips: Clips
) -> None:
    file = clips.folder / "still.png"
    Image.fromarray(man[0]).save(file)
    relay = expect_swap(file)
    before = relay.status()["frames"]
    wait_for("it goes on", lambda: relay.status()["frames"]["swapped"] > before["swapped"] + 60, 6)
    assert relay.state() == "live"


def test_a_truncated_file(
    expect_swap: Callable[..., RunningRelay], man: list[RGB], clips: Clips
) -> None:
    whole = clips.video("whole.ts", man, rate=30).read_bytes()
    expect_swap(clips.file("truncated.ts", whole[: len(whole) * 2 // 3 - 77]))


def test_a_raw_file_loops_without_an_interruption(
    start_relay: StartRelay, man: list[RGB], clips: Clips
) -> None:
    relay = start_relay(source=clips.video("raw.h264", man[:30], rate=30))
    relay.wait_state("live")
    frames = relay.status()["frames"]["source"]
    wait_for("three rounds", lambda: relay.status()["frames"]["source"] > frames + 90, 10)
    assert relay.status()["reconnects"]["source"] == 0
    assert "source.down" not in relay.events()


@pytest.mark.parametrize("kind", ["sound", "text", "empty"])
def test_a_file_with_no_video_is_told_and_costs_nothing(
    start_relay: StartRelay, emulator: Emulator, clips: Clips, kind: str
) -> None:
    file = {
        "sound": lambda: clips.sound("sound.mp4"),
        "text": lambda: clips.file("text.mp4", b"this is no video\n" * 99),
        "empty": lambda: clips.file("empty.mp4", b""),
    }[kind]()
    before = emulator.created()
    relay = start_relay(source=file)
    wait_for("the reason", lambda: file.name in relay.status()["reason"], 10)
    assert relay.state() == "standby"
    assert emulator.created() == before
    assert "Traceback" not in relay.events()
    assert relay.stop() == 0


def test_an_rtsp_camera_that_is_killed_and_comes_back(
    expect_swap: Callable[..., RunningRelay],
    rtsp_camera_of: Callable[[list[RGB]], RtspCamera],
    man: list[RGB],
    emulator: Emulator,
) -> None:
    camera = rtsp_camera_of(man)
    relay = expect_swap(camera.url())
    session = relay.status()["session_id"]
    before = relay.status()["frames"]["standby"]

    camera.kill()
    to_standby = wait_for("standby", lambda: relay.status()["frames"]["standby"] > before, 3)
    assert to_standby < 2.5  # the stall limit and 0.5 s; a killed server is seen at once
    relay.wait_state("degraded", within=1)
    assert relay.status()["reason"]

    camera.start()
    relay.wait_state("live", within=5)
    assert relay.status()["session_id"] == session
    assert relay.status()["reconnects"]["source"] == 1
    assert relay.status()["longest_gap"] < BUSY_GAP
    assert relay.stop() == 0
    assert emulator.sessions() == []
