"""Reading between samples: what makes a voice a little faster or slower."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from relayd.sound.blocks import BLOCK

TAPS: Final = 32
"""Samples that each output sample is made of."""
_PHASES: Final = 512
"""Places between two samples. A tone of 1 kHz stays 83 dB above what this adds, one of 8 kHz
65 dB."""
_CUT_OFF: Final = 0.96
"""Of half the sample rate: what is above would come back as a false lower tone."""
_KAISER: Final = 9.0
"""Window's shape: side lobes 90 dB down."""


def _make_kernel() -> NDArray[np.float32]:
    """Return the weights of the samples around each place, shape (_PHASES + 1, TAPS)."""
    taps = np.arange(TAPS) - TAPS // 2 + 1
    distance = taps[None, :] - (np.arange(_PHASES + 1) / _PHASES)[:, None]
    width = np.sqrt(np.maximum(0.0, 1 - (distance / (TAPS / 2)) ** 2))
    window = np.where(np.abs(distance) < TAPS / 2, np.i0(_KAISER * width) / np.i0(_KAISER), 0.0)
    kernel = np.sinc(distance * _CUT_OFF) * window
    weights: NDArray[np.float32] = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights


_KERNEL: Final = _make_kernel()
BEFORE: Final = TAPS // 2 - 1
"""Samples needed before the first place read."""


def places(start: float, rate: float) -> NDArray[np.float64]:
    """Return where the samples of a block lie, read at `rate` from `start` on, shape (BLOCK,)."""
    return start + rate * np.arange(BLOCK, dtype=np.float64)


def interpolate(samples: NDArray[np.int16], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the wave at the places `at`, counted from the sample number BEFORE of `samples`.

    `samples` must reach TAPS // 2 beyond the last place. The result has the shape of `at`.
    """
    whole = np.floor(at).astype(np.int64)
    around = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), TAPS)[whole]
    weights = _KERNEL[np.rint((at - whole) * _PHASES).astype(np.int64)]
    result: NDArray[np.float32] = np.einsum("ij,ij->i", around, weights)
    return result
