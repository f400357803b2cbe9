"""Runs in the guest: what a relay has after its service: camera, microphone and the sound's path.

    devices.py DELAY_FILE MICROPHONE

A lamp lights and a beep begins together, each EVERY seconds. Pictures are shown as many seconds
after their capture as the file says; what to do about the sound is left to relayd. Beside Chromium
an emulated processor has no time for a whole relay.
"""

import sys
import time
from collections import deque
from pathlib import Path
from threading import Event

import numpy as np

from relayd.clock import MonotonicClock
from relayd.config.settings import MicrophoneSettings, SoundSettings
from relayd.media.frames import SwappedFrame, black
from relayd.output.camera import CameraOutput
from relayd.output.microphone import make_microphone
from relayd.relay.sound_path import SoundPath
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, OwnSound, silence
from tests.support.av_sync import EVERY, FPS, GEOMETRY, HERTZ, LAMP, LASTS, PEAK

PER_PICTURE = round(1 / FPS / BLOCK_SECONDS)
"""Blocks."""


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with the lamp off, and one with it on."""
    left, top, side = LAMP
    off, on = black(GEOMETRY), black(GEOMETRY)
    on[top : top + side, left : left + side] = 235
    return off, on


def main() -> None:
    """Feed the devices until killed."""
    delay_file, name = Path(sys.argv[1]), sys.argv[2]
    camera = CameraOutput("auto", GEOMETRY, FPS)
    microphone = make_microphone(
        MicrophoneSettings(kind="microphone", device="pulse", name=name), lambda *_: None
    )
    path = SoundPath(
        SoundSettings(), [microphone], [], send=lambda _: None, clock=MonotonicClock(),
        on_event=lambda event: print(event, flush=True),  # noqa: T201 - for the test's report
    )  # fmt: skip
    camera.open()
    path.start()
    path.steer(frozenset(), voice_alone=False)
    print("devices ready", flush=True)  # noqa: T201 - this is how it tells
    off, on = pictures()
    beep = np.cos(2 * np.pi * HERTZ * np.arange(BLOCK) / RATE) * PEAK * 32767
    tone = beep.astype(np.int16)
    waiting: deque[tuple[float, np.ndarray]] = deque()
    clock, stop = MonotonicClock(), Event()
    number, at = 0, time.monotonic()
    while not clock.sleep_until(at, stop):
        is_on = number * BLOCK_SECONDS % EVERY < LASTS
        path.captured.put(OwnSound(tone if is_on else silence(), at))
        if number % PER_PICTURE == 0:
            waiting.append((at, on if is_on else off))
            delay = float(delay_file.read_text())
        if waiting and waiting[0][0] + delay <= time.monotonic():
            captured_at, picture = waiting.popleft()
            shown_at = time.monotonic()
            camera.show(SwappedFrame(picture, shown_at))
            path.note_delay(shown_at - captured_at)
        number, at = number + 1, at + BLOCK_SECONDS


if __name__ == "__main__":
    main()
