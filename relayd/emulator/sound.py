"""The sound that the emulator returns to a player: none, unless a fault of stage SOUND is set.

No public client of the service is known to get sound back, so that is the default. The faults let
a relay meet both worlds, and a bad path.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from relayd.emulator.faults import LONGEST_SOUND_DELAY, FaultBoard, SoundKind
from relayd.rtc.webrtc.engine import PeerState
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples

TONE_HZ = 440
TONE_PEAK = 8000
"""Of 32767: -12 dBFS."""
_UNEVEN = 0.04
"""s by which the delay of pictures may vary before sound follows it, with a gap or a jump."""
_AWAY = 0.1
"""s behind its time after which the tick goes on from now instead of catching up."""
_SPARE = 2
"""Blocks that may wait beyond those that are due: they come two at a time, but leave one by one."""


class SoundPeer(Protocol):
    """What is needed of a player's connection."""

    @property
    def state(self) -> PeerState:
        """The state of the connection."""

    def push_sound(self, samples: Samples, at: float) -> None:
        """Send a block."""

    def lose_sound(self, share: float) -> None:
        """Lose that share of the packets of sound."""


class SoundReturn:
    """Returns sound to one player; used on the event loop."""

    def __init__(
        self,
        session: str,
        peer: SoundPeer,
        faults: FaultBoard,
        picture_delay: Callable[[], float] = lambda: 0.0,
        *,
        behind: float = 0.0,
    ) -> None:
        """`picture_delay`: seconds that pictures are here; sound goes back beside its picture.

        `behind`: seconds by which sound has come after its picture, which it waits less.
        """
        self._session, self._peer, self._faults = session, peer, faults
        self._picture_delay, self._beside, self._behind = picture_delay, 0.0, behind
        self._waiting: deque[tuple[float, Samples]] = deque(
            maxlen=round(LONGEST_SOUND_DELAY / BLOCK_SECONDS) + _SPARE
        )
        self._ticks = 0
        self._kind = SoundKind.NONE
        self.sent = 0
        """Blocks."""

    def put(self, samples: Samples, received_at: float) -> None:
        """Add a block that the publisher sent."""
        self._waiting.append((received_at, samples))

    async def run(self) -> None:
        """Send a block each 10 ms where there is one, until the connection is over."""
        due = time.monotonic()
        while self._peer.state in {PeerState.NEW, PeerState.CONNECTING, PeerState.CONNECTED}:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            block = self.take(due)
            if block is not None:
                self._peer.push_sound(block, due)
                self.sent += 1
            due += BLOCK_SECONDS
            if (now := time.monotonic()) - due > _AWAY:
                due = now

    def take(self, now: float) -> Samples | None:
        """Return the block to be sent at `now`; None for nothing."""
        fault = self._faults.sound_of(self._session)
        if fault.kind is not self._kind:
            self._kind = fault.kind
            self._waiting.clear()
        self._peer.lose_sound(fault.loss)
        self._ticks += 1
        if fault.kind is SoundKind.TONE:
            return _tone(self._ticks)
        wanted = max(0.0, self._picture_delay() - self._behind)
        if abs(wanted - self._beside) > _UNEVEN:
            self._beside = wanted
        block = self._due(now - fault.delay - self._beside)
        return None if fault.kind is SoundKind.NONE else block

    def _due(self, received_by: float) -> Samples | None:
        """Return the oldest block that came before that time, without adding delay."""
        while len(self._waiting) > _SPARE and self._waiting[_SPARE][0] <= received_by:
            self._waiting.popleft()
        if self._waiting and self._waiting[0][0] <= received_by:
            return self._waiting.popleft()[1]
        return None


def _tone(number: int) -> Samples:
    at = number * BLOCK + np.arange(BLOCK)
    tone: Samples = np.rint(np.sin(2 * np.pi * TONE_HZ / RATE * at) * TONE_PEAK).astype(np.int16)
    return tone
