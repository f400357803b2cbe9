"""The voice of a device of its own, through the real ffmpeg program."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from relayd.clock import Backoff
from relayd.errors import SourceError, SourceUnusable
from relayd.sound.blocks import RATE, OwnSound
from relayd.sound.ring import SoundRing
from relayd.source.voice import CaptureTimes, VoiceReader
from relayd.source.voice_plans import plan_voice, require_foreign
from tests.support.sounding import LASTS, PERIOD, Sounding, beeps, write

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the program ffmpeg")

Listen = Callable[[str], "Listener"]


class Listener:
    """A reader, and what it heard."""

    def __init__(self, source: str) -> None:
        self.ring: SoundRing[OwnSound] = SoundRing(20.0)
        self.reader = VoiceReader(source, self.ring, retry=Backoff(0.05, 0.2))

    def heard(self, count: int, within: float = 10.0) -> list[OwnSound]:
        """Wait for so many blocks."""
        blocks: list[OwnSound] = []
        deadline = time.monotonic() + within
        while len(blocks) < count:
            assert time.monotonic() < deadline, f"{len(blocks)} blocks, {self.reader.trouble}"
            if (block := self.ring.take(0.1)) is not None:
                blocks.append(block)
        return blocks

    def trouble(self, within: float = 10.0) -> str:
        """Wait until nothing is heard, and return why."""
        deadline = time.monotonic() + within
        while not self.reader.trouble:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.reader.trouble

    def programs(self) -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if child.name() == "ffmpeg"]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start readers, and stop them at the end."""
    listeners: list[Listener] = []

    def start(source: str) -> Listener:
        listeners.append(Listener(source))
        listeners[-1].reader.start()
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.reader.stop()


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A recording of beeps."""
    return write(tmp_path / "speech.mkv", Sounding(4.8, rate=8000, codec="pcm_s16le"))


def test_a_recording_is_heard_at_its_own_pace(listen: Listen, speech: Path) -> None:
    listener = listen(str(speech))
    blocks = listener.heard(200)
    found = beeps(blocks)
    assert len(found) >= 3
    assert np.diff(found) == pytest.approx(PERIOD, abs=0.03)
    assert LASTS < PERIOD
    assert blocks[-1].at == pytest.approx(time.monotonic(), abs=1.0)
    assert listener.reader.sound.is_heard


def test_a_capture_that_ends_is_begun_again(listen: Listen, speech: Path) -> None:
    listener = listen(str(speech))
    listener.heard(20)
    (program,) = listener.programs()
    program.kill()
    program.wait(5)
    listener.heard(150)
    assert listener.reader.trouble == ""
    assert [other.pid for other in listener.programs()] != [program.pid]


def test_a_pause_closes_the_device_and_drops_what_nobody_took(listen: Listen, speech: Path) -> None:
    listener = listen(str(speech))
    listener.heard(20)
    listener.reader.pause()
    deadline = time.monotonic() + 5
    while listener.programs() or len(listener.ring):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    paused_at = time.monotonic()
    listener.reader.resume()
    assert listener.heard(20)[0].at > paused_at


def test_what_does_not_exist_is_said_and_tried_again(listen: Listen, tmp_path: Path) -> None:
    listener = listen(str(tmp_path / "voice.wav"))
    assert "No such file" in listener.trouble()
    write(tmp_path / "there.mkv", Sounding(2.0, codec="pcm_s16le")).rename(tmp_path / "voice.wav")
    listener.heard(20)
    assert listener.reader.trouble == ""


def test_a_device_that_is_not_there_is_named_as_the_user_did(listen: Listen) -> None:
    assert listen("alsa:hw:99").trouble().startswith("alsa:hw:99: ")


def test_without_the_program_its_package_is_named(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "ffmpeg, which is not installed" in listen("pulse:").trouble()


def test_a_hung_program_is_stopped_at_once(
    listen: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = tmp_path / "ffmpeg"
    hung.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    hung.chmod(hung.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    listener = listen("pulse:")
    time.sleep(0.3)
    began = time.monotonic()
    listener.reader.stop()
    assert time.monotonic() - began < 3


class PulseServer:
    """A PulseAudio of its own, whose one source is a tone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        self.start()

    def start(self) -> None:
        environment = os.environ | {"XDG_RUNTIME_DIR": str(self.folder), "HOME": str(self.folder)}
        self._process = subprocess.Popen(
            ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "-n", "--log-level=error",
             "-L", "module-native-protocol-unix", "-L", "module-sine-source frequency=1000"],
            env=environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not (self.folder / "pulse" / "native").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ask(self, *command: str) -> str:
        """Return what pactl prints; it finds the server by the environment."""
        done = subprocess.run(["pactl", *command], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def pulse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PulseServer]:
    """A running sound server, which programs find."""
    if shutil.which("pulseaudio") is None:
        pytest.skip("no sound server to test against: apt-get install pulseaudio")
    server = PulseServer(tmp_path / "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.folder))
    yield server
    server.stop()


def test_a_source_of_the_sound_server_is_heard_again_after_it_was_restarted(
    listen: Listen, pulse: PulseServer
) -> None:
    listener = listen("pulse:")
    blocks = listener.heard(100)
    steps = np.diff([block.at for block in blocks])
    assert np.median(steps) == pytest.approx(0.01, abs=0.002)
    wave = np.concatenate([block.samples for block in blocks[-40:]]).astype(float)
    tone = np.argmax(np.abs(np.fft.rfft(wave))) * RATE / len(wave)
    assert tone == pytest.approx(1000, abs=20)
    pulse.stop()
    assert listener.trouble().startswith("pulse:")
    assert not listener.reader.sound.is_heard
    pulse.start()
    while listener.ring.take() is not None:
        pass
    listener.heard(50)


def tone_of(blocks: list[OwnSound]) -> float:
    wave = np.concatenate([block.samples for block in blocks]).astype(float)
    return float(np.argmax(np.abs(np.fft.rfft(wave))) * RATE / len(wave))


def until_heard_again(listener: Listener) -> list[OwnSound]:
    deadline = time.monotonic() + 10
    while listener.reader.trouble:
        assert time.monotonic() < deadline, listener.reader.trouble
        time.sleep(0.02)
    while listener.ring.take() is not None:
        pass
    return listener.heard(40)


def test_a_capture_that_the_server_moves_to_relayds_own_microphone_goes_back(
    listen: Listen, pulse: PulseServer
) -> None:
    pulse.ask("load-module", "module-sine-source", "source_name=relayd_main", "frequency=300")
    pulse.ask("set-default-source", "sine_input")
    listener = listen("pulse:sine_input")
    assert tone_of(listener.heard(80)[-40:]) == pytest.approx(1000, abs=20)
    pulse.ask("set-default-source", "relayd_main")  # as in the desktop's settings
    assert listener.trouble() == "pulse:sine_input: relayd_main is relayd's own microphone"
    assert tone_of(until_heard_again(listener)) == pytest.approx(1000, abs=20)


def test_the_default_is_not_followed_to_relayds_own_microphone(
    listen: Listen, pulse: PulseServer
) -> None:
    pulse.ask("load-module", "module-sine-source", "source_name=relayd_main", "frequency=300")
    pulse.ask("set-default-source", "sine_input")
    listener = listen("pulse:")
    listener.heard(5)
    pulse.ask("set-default-source", "relayd_main")
    assert "own microphone" in listener.trouble()


def test_where_a_microphone_is_unplugged_the_speakers_are_not_heard_instead(
    listen: Listen, pulse: PulseServer
) -> None:
    pulse.ask("load-module", "module-null-sink", "sink_name=speakers")
    microphone = pulse.ask("load-module", "module-sine-source", "source_name=plugged")
    pulse.ask("set-default-source", "plugged")
    listener = listen("pulse:")
    listener.heard(5)
    pulse.ask("set-default-source", "speakers.monitor")
    pulse.ask("unload-module", microphone)
    assert listener.trouble() == "pulse:: there is no microphone"


def test_a_sound_server_that_hangs_is_asked_again_and_not_trusted_meanwhile() -> None:
    def hang(*_: object, **__: object) -> tuple[int, str, str]:
        raise TimeoutError

    with pytest.raises(SourceError, match="does not answer"):
        require_foreign(plan_voice("pulse:"), hang)
    require_foreign(plan_voice("pulse:microphone"), hang)


@pytest.mark.parametrize("name", ["relayd_main", "alsa_output.pci.monitor"])
def test_neither_relayd_nor_the_speakers_are_taken_for_a_microphone(name: str) -> None:
    with pytest.raises(SourceError):
        require_foreign(plan_voice("pulse:"), lambda *_, **__: (0, f"{name}\n", ""))


def test_the_speakers_can_be_asked_for_by_name() -> None:
    require_foreign(plan_voice("pulse:speakers.monitor"))
    with pytest.raises(SourceUnusable):
        require_foreign(plan_voice("pulse:relayd_main"))


@pytest.mark.parametrize(
    ("source", "part", "device"),
    [
        ("pulse:", "pulse", "default"),
        ("pulse:alsa_input.usb-Blue", "pulse", "alsa_input.usb-Blue"),
        ("alsa:hw:1", "alsa", "hw:1"),
        ("alsa:", "alsa", "default"),
    ],
)
def test_a_device_is_asked_for_by_its_name(source: str, part: str, device: str) -> None:
    plan = plan_voice(source)
    for arguments in plan.attempts:
        assert arguments[arguments.index("-f") + 1] == part
        assert arguments[arguments.index("-i") + 1] == device
    assert not plan.shows_secret


def test_a_login_in_a_url_is_known_to_be_readable_and_stays_out_of_messages() -> None:
    plan = plan_voice("rtsp://me:hidden@camera/live")
    assert plan.shows_secret
    assert "hidden" not in plan.name


def test_samples_were_captured_when_the_fastest_arrived() -> None:
    times, late = CaptureTimes(), (0.0, 0.004, 0.03, 0.0)
    places = [times.arrived(480, 100.01 + number / 100 + late[number % 4]) for number in range(400)]
    assert places == pytest.approx([100 + number / 100 for number in range(400)])


def test_a_hole_in_a_capture_is_noticed() -> None:
    times = CaptureTimes()
    for number in range(300):
        times.arrived(480, 100.01 + number / 100)
    places = [times.arrived(480, 103.51 + number / 100) for number in range(300)]
    assert places[-1] == pytest.approx(103.5 + 2.99)
