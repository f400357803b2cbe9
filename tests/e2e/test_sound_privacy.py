"""No word is heard that should not be: in a recording, a stream and a real microphone, together."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import av
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from relayd.sound.blocks import RATE
from tests.support.sound_server import SoundServer, is_installed
from tests.support.stage import PERSON, Emulator, RunningRelay, free_port, relay_config, wait_for

pytestmark = pytest.mark.relay

StartRelay = Callable[..., RunningRelay]
SECONDS = 40
"""Of the clip: in its second number n there is a tone of LOWEST + n * STEP Hz."""
LOWEST, STEP = 400, 100
WINDOW = 0.1
"""s of sound that are told apart."""
INAUDIBLE = 30
"""Sample values up to which an encoder may turn silence into something else."""
FADING = 0.4
"""s in which a command arrives, and what a sound server holds is played."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person beside whom each second has its own tone."""
    path = tmp_path_factory.mktemp("clip") / "tones.mkv"
    tone = f"aevalsrc=0.3*sin(2*PI*({LOWEST}+{STEP}*floor(t))*t):s={RATE}:d={SECONDS}"
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", PERSON, "-f", "lavfi"),
            *("-i", tone, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac"),
            *("-t", str(SECONDS), path),
        ],
        check=True,
    )
    return path


def seconds_heard(sound: NDArray[np.int16]) -> list[int | None]:
    """Return for each window which second of the clip is heard; None for silence."""
    count = round(WINDOW * RATE)
    heard: list[int | None] = []
    for start in range(0, len(sound) - count + 1, count):
        window = sound[start : start + count].astype(np.float64)
        if np.abs(window).max() <= INAUDIBLE:
            heard.append(None)
            continue
        spectrum = np.abs(np.fft.rfft(window * np.hanning(count)))
        heard.append(round((int(np.argmax(spectrum)) / WINDOW - LOWEST) / STEP))
    return heard


def parts(heard: list[int | None], shortest: float) -> list[list[int]]:
    """Split at silence of at least `shortest` s; shorter silence is left out."""
    found: list[list[int]] = [[]]
    silent = 0
    for second in heard:
        if second is not None:
            if silent * WINDOW >= shortest and found[-1]:
                found.append([])
            found[-1].append(second)
        silent = silent + 1 if second is None else 0
    return found


def decoded(path: Path) -> tuple[float, NDArray[np.int16]]:
    """Return when the first sound track's sample is, and all of them."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        frames = [made for frame in container.decode(audio=0) for made in resampler.resample(frame)]
    assert frames[0].time is not None
    return frames[0].time, np.concatenate([frame.to_ndarray()[0] for frame in frames])


def first_person_at(path: Path) -> float:
    """Return when the first picture is shown that is no standby picture: that one is grey."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            rgb = frame.to_ndarray(format="rgb24").astype(int)
            if np.ptp(rgb, axis=2).mean() > 12:
                assert frame.time is not None
                return frame.time
    pytest.fail("only standby pictures")


@contextmanager
def listening(server: SoundServer, source: str) -> Iterator[list[tuple[float, int]]]:
    """Record a microphone: when each piece was heard, and its loudest sample."""
    heard: list[tuple[float, int]] = []
    stop = Event()
    with server.recording(source) as take:

        def listen() -> None:
            while not stop.is_set():
                if len(samples := take(0.02)):
                    heard.append((time.monotonic(), int(np.abs(samples.astype(int)).max())))

        thread = Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            stop.set()
            thread.join()


@contextmanager
def received(port: int, path: Path) -> Iterator[None]:
    """Keep what is streamed to a UDP port, as it is."""
    stop = Event()

    def receive() -> None:
        with path.open("wb") as file:
            while not stop.is_set():
                with suppress(TimeoutError):
                    file.write(target.recv(65536))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", port))
        target.settimeout(0.2)
        thread = Thread(target=receive)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def not_live_until(relay: RunningRelay) -> float:
    """Wait until a relay is live; returns when it was last seen to be something else."""
    last, deadline = time.monotonic(), time.monotonic() + 30
    while relay.state() != "live":
        last = time.monotonic()
        assert last < deadline
        time.sleep(0.02)
    return last


def require_nothing_unwanted(path: Path) -> None:
    """Check a recording of a relay that was muted and unmuted, then paused and resumed."""
    begins, sound = decoded(path)
    seconds = seconds_heard(sound)
    first = next(number for number, second in enumerate(seconds) if second is not None)
    assert begins + first * WINDOW > first_person_at(path) - 2 * WINDOW
    before, after, resumed = parts(seconds, shortest=1.5)
    assert before, "heard before the mute"
    assert after[0] >= before[-1] + 2, "what was said while muted is left out"
    assert min(after) == after[0], "and does not come later"
    assert resumed, "heard after the pause"


@pytest.mark.skipif(not is_installed("pulseaudio"), reason="needs a sound server")
def test_nothing_is_heard_before_the_first_live_picture_while_muted_and_while_paused(
    start_relay: StartRelay, emulator: Emulator, clip: Path, tmp_path: Path
) -> None:
    port = free_port()
    more = '[sound]\n[[output]]\nkind = "microphone"\ndevice = "pulse"\nname = "tested"\n'
    more += f'[[output]]\nkind = "stream"\nurl = "udp://127.0.0.1:{port}"\n'
    (tmp_path / "relay.toml").write_text(relay_config(emulator, clip, tmp_path) + more)
    server, times = SoundServer("pulseaudio", tmp_path / "runtime"), list[float]()
    server.start()
    try:
        with received(port, tmp_path / "stream.ts"):
            relay = start_relay(XDG_RUNTIME_DIR=server.environment["XDG_RUNTIME_DIR"])
            with listening(server, "relayd_tested") as heard:
                for silence, end in (("mute", "unmute"), ("pause", "resume")):
                    relay.wait_state("live")
                    time.sleep(3.0)
                    relay.post(f"/api/{silence}")
                    times.append(time.monotonic())
                    time.sleep(3.0)
                    times.append(time.monotonic())
                    relay.post(f"/api/{end}")
                live_at = not_live_until(relay)
                time.sleep(3.0)
            relay.stop()
    finally:
        server.stop()
    for begin, until in ((times[0], times[1]), (times[2], live_at)):
        loudest = [peak for at, peak in heard if begin + FADING < at < until]
        assert len(loudest) > 50
        assert max(loudest) == 0, "digital silence"
        assert max(peak for at, peak in heard if begin - 2 < at < begin) > 1000
        assert max(peak for at, peak in heard if until < at) > 1000
    assert live_at > times[3] + 0.5, "the time from the resume to the first live picture counts"
    require_nothing_unwanted(tmp_path / "out.mkv")
    require_nothing_unwanted(tmp_path / "stream.ts")


@pytest.mark.skipif(not is_installed("pulseaudio"), reason="needs a sound server")
def test_who_reads_only_the_microphone_opens_the_voice_and_no_camera(
    start_relay: StartRelay, emulator: Emulator, clip: Path, tmp_path: Path
) -> None:
    config = relay_config(emulator, clip, tmp_path)
    stream = f'kind = "stream"\nurl = "{tmp_path}/out.mkv"'
    assert stream in config
    config = config.replace(stream, 'kind = "microphone"\ndevice = "pulse"\nname = "tested"')
    (tmp_path / "relay.toml").write_text(config + '[sound]\nsource = "pulse:person.monitor"\n')
    server = SoundServer("pulseaudio", tmp_path / "runtime")
    server.start()

    def capturing(relay: RunningRelay) -> list[psutil.Process]:
        children = psutil.Process(relay.process.pid).children(recursive=True)
        return [child for child in children if child.name() == "ffmpeg"]

    try:
        for module in (("module-null-sink", "sink_name=person"), ("module-sine", "sink=person")):
            assert server.ask("load-module", *module)[0] == 0
        relay = start_relay(XDG_RUNTIME_DIR=server.environment["XDG_RUNTIME_DIR"])
        wait_for("a microphone", lambda: relay.status()["sound"]["listeners"] == {"tested": 0}, 15)
        assert not capturing(relay)
        with listening(server, "relayd_tested"):
            wait_for("the voice", lambda: relay.status()["sound"]["level"] > -60, 15)
            assert len(capturing(relay)) == 1
            assert relay.status()["sound"]["silent_for"] == []
        wait_for("the end of the capture", lambda: not capturing(relay), 15)
        status = relay.status()
        assert status["sound"]["silent_for"] == ["not_live"]
        assert (status["frames"]["source"], status["sessions_open"]) == (0, 0)
        assert status["reconnects"]["sound"] == 0
        relay.stop()
    finally:
        server.stop()


def test_a_mute_outlives_a_crash_until_it_is_ended(
    start_relay: StartRelay, emulator: Emulator, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "relay.toml").write_text(relay_config(emulator, clip, tmp_path) + "[sound]\n")
    relay = start_relay()
    relay.wait_state("live")
    assert relay.post("/api/mute").json()["sound"]["muted"]
    relay.stop(signal.SIGKILL)

    relay = start_relay()
    assert relay.status()["sound"]["muted"]
    assert "sound.still_muted" in relay.events()
    relay.wait_state("live")
    assert relay.status()["sound"]["silent_for"] == ["muted"]
    relay.post("/api/unmute")
    wait_for("sound", lambda: relay.status()["sound"]["silent_for"] == [], 5)
    relay.stop()

    relay = start_relay()
    assert not relay.status()["sound"]["muted"]
    assert "sound.still_muted" not in relay.events()
