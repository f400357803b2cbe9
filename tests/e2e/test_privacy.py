"""Promise 1: no pixel of the source reaches an output unless `fallback = "raw"`."""

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.support.stage import Emulator, RunningRelay, wait_for

MAGENTA = "lavfi:color=c=magenta:size=640x480:rate=30"
StartRelay = Callable[..., RunningRelay]

pytestmark = pytest.mark.relay


def shows_source(relay: RunningRelay) -> bool:
    """Whether any pixel that the outputs show is the source's magenta."""
    picture = np.asarray(Image.open(io.BytesIO(relay.picture())).convert("RGB")).astype(int)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return bool(((red > 150) & (blue > 150) & (green < 100)).any())


def never_shows_source(relay: RunningRelay, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert not shows_source(relay)
        time.sleep(0.05)


def test_what_the_service_sends_back_is_shown(start_relay: StartRelay) -> None:
    """The yardstick: the emulator leaves a picture without a face as it is."""
    relay = start_relay(source=MAGENTA)
    relay.wait_state("live")
    wait_for("the service's picture", lambda: shows_source(relay), 5)


@pytest.mark.parametrize("fallback", ["standby", "hold"])
def test_no_raw_pixel_is_shown_from_the_start_through_a_stall_to_the_end(
    start_relay: StartRelay, emulator: Emulator, fallback: str
) -> None:
    emulator.fault("corrupt", kind="green")
    relay = start_relay(f"privacy.fallback={fallback}", "rtc.stall_timeout=0.5", source=MAGENTA)
    never_shows_source(relay, 1.0)
    relay.wait_state("live")
    never_shows_source(relay, 1.0)
    for fault in ("stall", "drop_rtc", "end_session"):
        emulator.fault(fault)
        never_shows_source(relay, 1.5)
    relay.post("/api/pause")
    never_shows_source(relay, 1.0)


def test_raw_shows_the_source_where_it_was_asked_for(
    start_relay: StartRelay, emulator: Emulator
) -> None:
    emulator.fault("stall")
    relay = start_relay("privacy.fallback=raw", source=MAGENTA)
    wait_for("the raw picture", lambda: shows_source(relay), 10)
