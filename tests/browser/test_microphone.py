"""A real Chromium on a real sound server: it lists the virtual microphone, and hears it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic, time
from typing import Any

import numpy as np
import pytest

from relayd.config.settings import MicrophoneSettings
from relayd.output.base import SoundOutput
from relayd.output.microphone import make_microphone
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, AudibleSound, Samples, silence
from tests.browser.test_page import running_browser
from tests.support.sound_server import Kind, SoundServer, is_installed
from tests.support.static_server import StaticServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="chromium-driver is not installed"),
]

NAME, SOURCE = "relayd microphone", "relayd_microphone"
HERTZ = 1000
LOUD = 0.1
"""Of full scale; the tone has 0.3, and what is no tone is digital silence."""
BEEP, PERIOD = 30, 100
"""Blocks: a tone of 0.3 s each second."""
SECONDS = 6
WHOLE, ATTEMPTS = 3, 3
"""Beeps that must come without a hole, and how often to listen: on a busy machine some have one."""
ALLOW = ("--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required")
"""Answers the question for the microphone with yes."""

LIST = """
const [done] = arguments;
navigator.mediaDevices.enumerateDevices().then(
  found => done(found.map(({kind, label}) => ({kind, label}))), fault => done(String(fault)));
"""
HEAR = """
const [name, seconds, done] = arguments;
const worklet = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process([input]) { if (input[0]) this.port.postMessage(input[0]); return true; }
});`;
let doing = "asking for any microphone";
async function hear() {
  await navigator.mediaDevices.getUserMedia({audio: true});  // labels are told after this
  const devices = await navigator.mediaDevices.enumerateDevices();
  const microphone = devices.find(one => one.kind === "audioinput" && one.label === name);
  const listed = devices.map(({kind, label}) => ({kind, label}));
  if (!microphone) return {fault: "it is not listed", listed};
  doing = "asking for the one";
  const stream = await navigator.mediaDevices.getUserMedia({audio: {
    deviceId: {exact: microphone.deviceId},
    echoCancellation: false, noiseSuppression: false, autoGainControl: false,
  }});
  doing = "listening";
  const context = new AudioContext({sampleRate: 48000});
  await context.audioWorklet.addModule(URL.createObjectURL(
    new Blob([worklet], {type: "text/javascript"})));
  const tap = new AudioWorkletNode(context, "tap");
  const samples = [], at = [];
  tap.port.onmessage = ({data}) => {
    at.push((performance.timeOrigin + performance.now()) / 1000);
    samples.push(...data.map(value => Math.round(value * 1000) / 1000));
  };
  context.createMediaStreamSource(stream).connect(tap);
  await new Promise(on => setTimeout(on, seconds * 1000));
  const [track] = stream.getAudioTracks();
  return {listed, samples, at, label: track.label, muted: track.muted, state: track.readyState};
}
setTimeout(() => done({fault: `no answer while ${doing}`}), (seconds + 18) * 1000);
hear().then(done, fault => done({fault: String(fault)}));
"""


@pytest.fixture(params=["pulseaudio", "pipewire"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SoundServer]:
    kind: Kind = request.param
    if not is_installed(kind):
        pytest.skip(f"{kind} is not installed")
    server = SoundServer(kind, tmp_path / "run")
    server.start()
    for name in ("XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.setenv(name, server.environment[name])
    yield server
    server.stop()


@pytest.fixture
def page() -> Iterator[str]:
    headers = {"Content-Type": "text/html"}
    with StaticServer(files={"/": "<title>call</title>"}, headers=headers) as web:
        yield web.url("/")


@contextmanager
def beeping(microphone: SoundOutput) -> Iterator[list[float]]:
    """Feed a beep each second, in real time; gives the clock's time at which each was written."""
    began: list[float] = []
    stop = Event()

    def run() -> None:
        number, due = 0, monotonic()
        while not stop.wait(max(0.0, due - monotonic())):
            place = number % PERIOD
            if place == 0:
                began.append(time())
            samples = tone(place) if place < BEEP else silence()
            microphone.play(AudibleSound(samples, due))
            number, due = number + 1, due + BLOCK_SECONDS

    microphone.open()
    feeder = Thread(target=run)
    feeder.start()
    try:
        yield began
    finally:
        stop.set()
        feeder.join()
        microphone.close()


def tone(block: int) -> Samples:
    at = (np.arange(BLOCK) + block * BLOCK) / RATE
    return (0.3 * 32767 * np.cos(2 * np.pi * HERTZ * at)).astype(np.int16)


def beeps_in(samples: np.ndarray) -> list[tuple[int, int]]:
    """First and last sample of each whole beep."""
    loud = np.flatnonzero(np.abs(samples) > LOUD)
    breaks = np.flatnonzero(np.diff(loud) > RATE // 5)
    firsts, lasts = loud[np.r_[0, breaks + 1]], loud[np.r_[breaks, -1]]
    return [
        (int(first), int(last))
        for first, last in zip(firsts, lasts, strict=True)
        if first > RATE // 10 and last < len(samples) - RATE // 10
    ]


def whole_beeps(heard: dict[str, Any]) -> list[tuple[int, int]]:
    """Those that last as long as they should: without a hole."""
    return [
        (first, last)
        for first, last in beeps_in(np.array(heard["samples"]))
        if abs((last - first) / RATE - BEEP * BLOCK_SECONDS) <= 0.02
    ]


def speakers(devices: list[dict[str, str]]) -> int:
    return sum(device["kind"] == "audiooutput" for device in devices)


def latencies(heard: dict[str, Any], began: list[float]) -> list[float]:
    """Seconds from writing the start of each beep to its arrival in the page."""
    per_message = len(heard["samples"]) / len(heard["at"])
    beeps = beeps_in(np.array(heard["samples"]))
    arrived = [heard["at"][int(first / per_message)] for first, _ in beeps]
    return [at - max(start for start in began if start < at) for at in arrived]


async def test_chromium_lists_the_microphone_and_hears_it_and_gets_no_speaker(
    server: SoundServer, page: str
) -> None:
    async with running_browser(*ALLOW) as browser:
        await browser.go(page)
        without = await browser.run_async(LIST)
    microphone = make_microphone(MicrophoneSettings(kind="microphone"), lambda *_: None)
    with beeping(microphone) as began:
        with server.recording(SOURCE):
            pass  # it can be read now, not only be listed
        async with running_browser(*ALLOW) as browser:
            await browser.go(page)
            for _ in range(ATTEMPTS):
                heard = await browser.run_async(HEAR, NAME, SECONDS)
                if "fault" in heard or len(whole_beeps(heard)) >= WHOLE:
                    break
    assert "fault" not in heard, heard
    assert {"kind": "audioinput", "label": NAME} in heard["listed"]
    assert speakers(heard["listed"]) == speakers(without)
    assert (heard["label"], heard["muted"], heard["state"]) == (NAME, False, "live")
    samples = np.array(heard["samples"])
    whole = whole_beeps(heard)
    assert len(whole) >= WHOLE, [(last - first) / RATE for first, last in beeps_in(samples)]
    first, last = whole[0]
    spectrum = np.abs(np.fft.rfft(samples[first:last]))
    assert np.argmax(spectrum) * RATE / (last - first) == pytest.approx(HERTZ, abs=10)
    late = latencies(heard, began)
    assert 0 <= min(late) < 0.5, f"s from writing to the page: {late}"
