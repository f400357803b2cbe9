"""Lip sync as the demo's outputs get it, measured at a mark in its clip.

A lamp beside the person lights with the first picture of each phrase, and each phrase begins after
a pause. So what is shown and played says by itself how far sound and picture are apart, whatever
the relay believes.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final

import numpy as np

from relayd.media.delay import Spread
from relayd.media.frames import Geometry, OutputFrame, SwappedFrame, luma
from relayd.sound.blocks import RATE, AudibleSound

CLIP: Final = Geometry(1280, 720)
"""The clip's pictures."""
LAMP: Final = (1048, 76)
"""The middle of the lamp in the clip, in pixels; within what a 4:3 output shows of it."""
LAMP_RADIUS: Final = 24
"""Pixels."""
LOUD: Final = 0.05
"""Of full scale: a phrase has begun."""
QUIET: Final = 0.22
"""s below LOUD before a phrase. In the clip that takes 0.28 s; pauses in a phrase are up to 0.18 s
long."""
_RISE = 60
"""Luma levels by which the lamp brightens; on and off are 170 apart."""
_PAIRED = 0.6
"""s between light and phrase at most; more belongs to two different phrases."""
_REMEMBERED = 600
"""Measurements that are kept: twenty minutes of the clip."""
_IN_SPREAD = 27
"""The newest of them in a spread: one minute of the clip."""


class LipSyncMeter:
    """An output for pictures and sound that only compares them.

    Each method may be called in any thread.
    """

    name = "lip sync"

    def __init__(self, geometry: Geometry, *, now: Callable[[], float] = time.monotonic) -> None:
        """Look for the lamp in cropped pictures of `geometry`."""
        self._rows, self._columns = _place_of_lamp(geometry)
        self._now = now
        self._lock = Lock()
        self._brightness = math.inf
        self._quiet_since = math.inf
        self._lights: deque[float] = deque(maxlen=8)
        self._phrases: deque[float] = deque(maxlen=8)
        self._measured: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def open(self) -> None:
        """Does nothing."""

    def show(self, frame: OutputFrame) -> None:
        """Note when the lamp lights in swapped pictures."""
        if not isinstance(frame, SwappedFrame):
            self._brightness = math.inf
            return
        before = self._brightness
        self._brightness = float(luma(frame.i420)[self._rows, self._columns].mean())
        if self._brightness - before > _RISE:
            with self._lock:
                self._lights.append(self._now())
                self._pair()

    def play(self, sound: AudibleSound) -> None:
        """Note when a phrase begins: where its block belongs, or now if it comes later."""
        now = max(self._now(), sound.at)
        loud = np.flatnonzero(np.abs(sound.samples.astype(np.int32)) > LOUD * 32767)
        if not len(loud):
            self._quiet_since = min(self._quiet_since, now)
            return
        begins, quiet_since = now + int(loud[0]) / RATE, self._quiet_since
        self._quiet_since = now + (int(loud[-1]) + 1) / RATE
        if begins - quiet_since >= QUIET:
            with self._lock:
                self._phrases.append(begins)
                self._pair()

    def close(self) -> None:
        """Does nothing."""

    def measurements(self) -> list[tuple[float, float]]:
        """Return when the lamp lit, and how many seconds later its phrase began; oldest first."""
        with self._lock:
            return list(self._measured)

    def offset(self) -> Spread:
        """Return how many seconds later than its picture the sound was in the last minute.

        Negative: earlier.
        """
        offsets = [offset for _, offset in self.measurements()[-_IN_SPREAD:]]
        if not offsets:
            return Spread()
        p50, p95 = np.percentile(offsets, (50, 95))
        return Spread(float(p50), float(p95), len(offsets))

    def _pair(self) -> None:
        """Compare the newest light or phrase with its counterpart, once both are known."""
        while self._lights and self._phrases:
            offset = self._phrases[0] - self._lights[0]
            if offset > _PAIRED:
                self._lights.popleft()
            elif offset < -_PAIRED:
                self._phrases.popleft()
            else:
                self._measured.append((self._lights.popleft(), offset))
                self._phrases.popleft()


def _place_of_lamp(geometry: Geometry) -> tuple[slice, slice]:
    """Return rows and columns of the square inside the lamp, of the clip cropped to `geometry`."""
    scale = max(geometry.width / CLIP.width, geometry.height / CLIP.height)
    middle_x = geometry.width / 2 + (LAMP[0] - CLIP.width / 2) * scale
    middle_y = geometry.height / 2 + (LAMP[1] - CLIP.height / 2) * scale
    half = max(1.0, LAMP_RADIUS * scale / 2)
    return (
        slice(round(middle_y - half), round(middle_y + half)),
        slice(round(middle_x - half), round(middle_x + half)),
    )
