"""What the service returns, picture and sound, is in sync at the outputs, over either transport.

The clip's lamp and its beep begin together and go to the engine and back; an output beside the
others measures how much later than the light the beep is. The source is a file, whose sound is
published up to 0.1 s before its picture is: of live sources, figures are that much higher.
"""

import asyncio
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from relayd.commands.lip_sync import LipSyncMeter
from relayd.config.loading import load_tree
from relayd.config.settings import Settings
from relayd.media.frames import Geometry
from tests.agora.cloud import Cloud
from tests.support.lamp_clip import make_clip
from tests.support.lip_sync import decoded, measured
from tests.support.live_relay import live_relay
from tests.support.stage import PORTRAIT, RELAYD, Emulator, rtc_keys, running_emulator

pytestmark = pytest.mark.relay

GEOMETRY = Geometry(320, 240)
"""Small, so that a busy machine encodes it in time."""
EARLIEST, LATEST = -0.02, 0.06
"""s that sound may be later than its picture."""
BUSY = 0.08
"""s more on a machine that others keep busy."""
SETTLES, MEASURED = 4.0, 10.0
"""s from the first live picture to the first measurement, and of measuring."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    make_clip(path, 75.0)
    return path


def settings(emulator: Emulator, clip: Path, folder: Path, rtc: dict[str, str]) -> Settings:
    """Return settings of a relay that plays what the service returns."""
    return load_tree(
        {
            "source": {"url": str(clip)},
            "sound": {"source": "auto", "publish": True, "play": "returned"},
            "face": {"image": emulator.upload(PORTRAIT)},
            "akool": {"base_url": emulator.url, "api_key": "a-test-key"},
            "rtc": rtc,
            "video": {"width": GEOMETRY.width, "height": GEOMETRY.height, "bitrate": 800},
            "on_demand": {"mode": "never"},
            "output": [{"kind": "stream", "url": str(folder / "out.mkv")}],
            "state": {"directory": str(folder)},
        }
    )


def report(name: str, offsets: Sequence[float]) -> float:
    """Print the figures; returns p50 in s."""
    p5, p50, p95 = np.percentile(offsets, (5, 50, 95))
    rows = f"p5 {p5 * 1e3:+.0f} p50 {p50 * 1e3:+.0f} p95 {p95 * 1e3:+.0f} ms"
    print(f"\n{name}: {rows} of {len(offsets)}")  # noqa: T201 - report
    return float(p50)


async def check(name: str, settings: Settings, folder: Path) -> None:
    """Run a relay, and compare sound and picture at the outputs and in the recording."""
    meter = LipSyncMeter(GEOMETRY)
    async with live_relay(settings, meter):
        await asyncio.sleep(SETTLES + MEASURED)
    live = [offset for _, offset in meter.measurements()][round(SETTLES) :]
    assert len(live) > MEASURED / 2, "beeps came back"
    p50 = report(f"{name}, outputs", live)
    recorded = measured(decoded(folder / "out.mkv")).measurements()[round(SETTLES) :]
    in_file = report(f"{name}, recording", [offset for _, offset in recorded])
    assert EARLIEST - BUSY <= p50 <= LATEST + BUSY
    assert abs(in_file - p50) < BUSY, "the recording is as the outputs"


async def test_over_agora_the_returned_voice_is_in_sync_with_the_returned_face(
    agora_emulator: Emulator, agora: Cloud, clip: Path, tmp_path: Path
) -> None:
    agora_emulator.fault("sound", kind="echo")
    chosen = settings(agora_emulator, clip, tmp_path, {"kind": "agora", "app_id": "app"})
    await check("agora", chosen, tmp_path)


async def test_over_webrtc_the_returned_voice_is_in_sync_with_the_returned_face(
    clip: Path, tmp_path: Path
) -> None:
    with running_emulator(RELAYD, "emulator", "--port", "0") as emulator:
        emulator.fault("sound", kind="echo")
        rtc = tomllib.loads(rtc_keys(emulator.url))
        await check("webrtc", settings(emulator, clip, tmp_path, rtc), tmp_path)
        emulator.reset()
