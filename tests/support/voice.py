"""A voice made by rule: syllables with harmonics and breath, pauses, and the noise of a room."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from relayd.sound.blocks import BLOCK, RATE

Wave = NDArray[np.int16]


@cache
def voice(seconds: float, seed: int = 1, pause: float = 0.12) -> Wave:
    """Return syllables of 0.1 to 0.3 s; after each, about `pause` s; below 6 kHz, read-only."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    wave = np.zeros(count + RATE)
    place = 0
    while place < count:
        length = round(rng.uniform(0.1, 0.3) * RATE)
        wave[place : place + length] += _syllable(rng, length)[: len(wave) - place]
        place += length + round(rng.exponential(pause) * RATE)
    wave = wave[:count] + rng.normal(0, 8, count)
    samples = np.rint(wave).astype(np.int16)
    samples.setflags(write=False)
    return samples


def blocks_of(wave: Wave) -> list[Wave]:
    """Return its blocks of 10 ms; what is left over is dropped."""
    return list(wave[: len(wave) // BLOCK * BLOCK].reshape(-1, BLOCK))


def bends(wave: Wave) -> NDArray[np.float64]:
    """Return the second differences: a click is a large one."""
    return np.abs(np.diff(wave.astype(float), 2))


def _syllable(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    pitch = rng.uniform(90, 220)
    harmonics = np.arange(1, int(6000 / pitch))
    gains = rng.uniform(0.2, 1.0, len(harmonics)) / harmonics**0.7
    spectrum = np.zeros(8193, complex)
    spectrum[harmonics] = gains * np.exp(2j * np.pi * rng.uniform(size=len(harmonics)))
    period = np.fft.irfft(spectrum, norm="forward")
    places = np.arange(length) * pitch / RATE % 1 * len(period)
    tone = np.interp(places, np.arange(len(period) + 1), np.append(period, period[0]))
    envelope = np.sin(np.pi * np.arange(length) / length) ** 0.7
    swell: NDArray[np.float64] = 1250 * tone * envelope
    return swell
