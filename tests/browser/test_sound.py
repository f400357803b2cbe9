"""Sound between a real Chromium and the emulator: its Opus is read here, and ours there."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relayd.http.client import HttpClient
from tests.browser import test_page
from tests.browser.test_page import Browser

browser = test_page.browser  # the fixture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="chromium-driver is not installed"),
]

CALL = """
const [base, session, seconds, done] = arguments;
const context = new AudioContext({sampleRate: 48000});
const heard = context.createAnalyser();
heard.fftSize = 8192;

function voice() {
  const tone = new OscillatorNode(context, {frequency: 1000});
  const volume = new GainNode(context, {gain: 0.3});
  const out = context.createMediaStreamDestination();
  tone.connect(volume).connect(out);
  tone.start();
  return out.stream.getAudioTracks()[0];
}
function pictures() {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");
  setInterval(() => {
    pen.fillStyle = `hsl(${Date.now() % 360} 80% 50%)`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
  }, 50);
  return canvas.captureStream(20).getVideoTracks()[0];
}
function listen(event) {
  const stream = new MediaStream([event.track]);
  const player = document.createElement(event.track.kind);
  player.srcObject = stream;
  player.muted = true;
  player.play();
  if (event.track.kind === "audio") context.createMediaStreamSource(stream).connect(heard);
}
async function join(kind, user, direction, ...tracks) {
  const connection = new RTCPeerConnection();
  connection.ontrack = listen;
  for (const track of tracks) connection.addTransceiver(track, {direction});
  await connection.setLocalDescription();
  while (connection.iceGatheringState !== "complete") await new Promise(on => setTimeout(on, 50));
  const answer = await fetch(`${base}/rtc/${session.channel_id}/${user}/${kind}`, {
    method: "POST",
    body: connection.localDescription.sdp,
    headers: {
      "Content-Type": "application/sdp", Authorization: `Bearer ${session.front_rtc_token}`,
    },
  });
  const sdp = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${sdp}`);
  await connection.setRemoteDescription({type: "answer", sdp});
  return connection;
}
async function call() {
  await context.resume();
  await join("whip", session.front_user_id, "sendonly", pictures(), voice());
  const player = await join("whep", session.algorithm_user_id, "recvonly", "video", "audio");
  await new Promise(on => setTimeout(on, seconds * 1000));
  const levels = new Float32Array(heard.frequencyBinCount);
  heard.getFloatFrequencyData(levels);
  const loudest = levels.indexOf(Math.max(...levels));
  const received = {};
  (await player.getStats()).forEach(one => {
    if (one.type === "inbound-rtp") received[one.kind] = one;
  });
  return {
    hertz: loudest * context.sampleRate / heard.fftSize,
    level: levels[loudest],
    packets: received.audio.packetsReceived,
    concealed: received.audio.concealedSamples,
    pictures: received.video.framesDecoded,
  };
}
call().then(done, fault => done({fault: String(fault)}));
"""


def emulator_parts() -> Any:
    """The running emulator and its client that the emulator's tests use."""
    path = Path(__file__).parents[1] / "emulator" / "conftest.py"
    spec = importlib.util.spec_from_file_location("emulator_fixtures", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start_emulator() -> Any:
    running: list[Any] = []
    parts = emulator_parts()

    def start() -> tuple[Any, Any]:
        rules = parts.SessionRules(queue_seconds=0.05)
        running.append(parts.RunningEmulator(sessions=rules))
        return running[-1], parts

    yield start
    for emulator in running:
        emulator.stop()


async def test_chromium_hears_its_own_voice_back(
    browser: Browser, start_emulator: Callable[[], tuple[Any, Any]]
) -> None:
    emulator, parts = start_emulator()
    async with HttpClient() as http:
        client = parts.Client(emulator.url, http)
        session = await client.create((parts.MEDIA / "portrait.png").read_bytes())
        await client.fault(fault="sound", kind="echo")
        await browser.go(emulator.url + "/emulator/faults")
        await browser.press("a")  # a page may sound only after its user did something
        seen = await browser.run_async(CALL, emulator.url, session, 4)
        assert "fault" not in seen, seen
        assert seen["hertz"] == pytest.approx(1000, abs=12)
        assert seen["level"] > -60  # dBFS; silence is at -100 or less
        assert seen["packets"] > 50
        assert seen["pictures"] > 10
        kept = await client.session(session["_id"])
        assert kept["sound_in"] > 100
