"""A whole relay with sound over Agora: the service's voice comes beside its picture."""

import time
from pathlib import Path

import pytest

from tests.support.lamp_clip import make_clip
from tests.support.lip_sync import offset_in
from tests.support.stage import Emulator, StartRelay, wait_for

pytestmark = pytest.mark.relay

MEASURED = 9.0
"""s."""
EARLIEST, LATEST = -0.1, 0.14
"""s that a typical beep may be off on a busy machine."""


def test_what_the_service_says_is_heard_with_the_picture_it_belongs_to(
    start_agora_relay: StartRelay, agora_emulator: Emulator, tmp_path: Path
) -> None:
    make_clip(tmp_path / "clip.mkv", 60.0)
    agora_emulator.fault("sound", kind="echo")
    relay = start_agora_relay(
        "sound.publish=true", 'sound.play="returned"', source=tmp_path / "clip.mkv"
    )
    relay.wait_state("live")
    wait_for("sound", lambda: relay.status()["sound"]["level"] > -60, 15)
    time.sleep(2.0 + MEASURED)
    blocks = relay.status()["sound"]["blocks"]
    assert blocks["sent"] > 500
    relay.stop()
    offset = offset_in(tmp_path / "out.mkv", MEASURED)
    assert EARLIEST <= offset <= LATEST
