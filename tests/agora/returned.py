"""The sound of a room's engine: the front user's PCM in, the algorithm user's PCM out.

What comes back, if anything, is up to the emulator's fault `sound`, as over WebRTC. As strict as
the service may be: sound in another form than was agreed on is a fault of the sender.
"""

import time
from collections.abc import Callable

import numpy as np

from relayd.emulator.faults import FaultBoard
from relayd.emulator.sound import SoundReturn
from relayd.rtc.webrtc.engine import PeerState
from relayd.sound.blocks import BLOCK_BYTES, RATE, Samples
from tests.agora.connection import Connection
from tests.agora.sounds import BYTES
from tests.agora.wire import Message, Payload, encode


class EngineVoice:
    """The engine's sound in one channel; used on the event loop.

    It publishes with its first block, so that nobody is offered sound that never comes.
    """

    def __init__(
        self,
        connection: Connection,
        session: str,
        faults: FaultBoard,
        picture_delay: Callable[[], float],
    ) -> None:
        """Send through `connection`; `picture_delay`: s that pictures stay with the engine."""
        self._connection = connection
        self.state = PeerState.CONNECTED
        self.way_back = SoundReturn(session, self, faults, picture_delay)
        self._publishes = False

    def push_sound(self, samples: Samples, at: float) -> None:
        """Send a block as the library would: with the time of the call, and no stamp of its own."""
        if not self._publishes:
            self._publishes = True
            self._connection.post(encode("publish", "audio"))
        line = encode("sound", RATE, 1, 0, round(at * 1e6), length=samples.nbytes)
        self._connection.post(line, samples.tobytes())

    def lose_sound(self, share: float) -> None:
        """Nothing: the hub loses none."""

    def stop(self) -> None:
        """End `way_back.run`."""
        self.state = PeerState.CLOSED


def block_of(message: Message) -> tuple[Samples, float]:
    """Return a block that the front user sent, and when it came; ValueError for another form."""
    _uid, rate, channels, *_ = message.words
    return _samples(int(rate), int(channels), message.payload), time.monotonic()


def _samples(rate: int, channels: int, payload: Payload) -> Samples:
    if (rate, channels, len(payload)) != (RATE, 1, BLOCK_BYTES):
        samples = len(payload) // BYTES
        raise ValueError(f"sound of {rate} Hz, {channels} channels, {samples} samples")
    return np.frombuffer(payload, np.int16).copy()
