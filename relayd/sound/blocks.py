"""The one form of sound inside relayd: 48 kHz, mono, 16 bit, in blocks of 10 ms.

Agora, Opus (two blocks a packet), the sound servers and AAC all take it without resampling. A
block's type says whose voice it is and whether it may be heard, so that a type checker rejects
code that sends an ungated voice to an output.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

RATE: Final = 48_000
"""Samples a second."""
BLOCK: Final = 480
"""Samples of a block."""
BLOCK_SECONDS: Final = BLOCK / RATE
"""s that a block lasts."""
BLOCK_BYTES: Final = BLOCK * 2

Samples = NDArray[np.int16]
"""int16, shape (480,), C-contiguous: one block."""


@final
@dataclass(frozen=True, slots=True)
class OwnSound:
    """The user's own voice as captured. Only relayd.sound.gate makes it audible."""

    samples: Samples
    at: float
    """When its first sample was captured, monotonic s, on the clock of SourceFrame.captured_at."""


@final
@dataclass(frozen=True, slots=True)
class ReturnedSound:
    """What the service sends back, with the picture of the same user."""

    samples: Samples
    at: float
    """When it left the RTC library, monotonic s, as SwappedFrame.received_at."""


@final
@dataclass(frozen=True, slots=True)
class AudibleSound:
    """What outputs play: delayed to the picture, and silent where nothing may be heard."""

    samples: Samples
    at: float
    """When its first sample belongs beside the pictures shown then, monotonic s. Outputs whose
    listeners hear later than they are given a block get it that much earlier."""


def silence() -> Samples:
    """Return a block of digital silence."""
    return np.zeros(BLOCK, np.int16)
