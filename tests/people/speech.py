"""What the person of the demo's clip says, and how far the mouth opens while saying it.

The speech is made by the program espeak-ng (`apt install espeak-ng`), which is only needed to make
the clip again. Each phrase begins with a picture of the clip, so that anybody can measure there
whether sound and picture are still together.
"""

import io
import subprocess
import wave
from typing import Final

import av
import numpy as np

from relayd.commands.lip_sync import LOUD, QUIET
from relayd.sound.blocks import RATE
from tests.people.people import LOOP

PHRASES: Final = {
    0.40: "I am Mira, good day",
    2.04: "Nobody real, a program drew me",
    4.68: "Relay dee changes my face",
    6.72: "and my voice waits for it",
    8.76: "until the lips and words agree",
}
"""Seconds at which each becomes loud. As numbers of pictures at 25 fps these leave each another
remainder of five, so that an output at 20 fps, which leaves out each fifth, meets most of them."""
_VOICE: Final = ("-v", "en-us+f2", "-s", "165", "-p", "55")
"""A woman's voice, 165 words a minute, slightly higher than usual."""
_PEAK: Final = 0.6
"""Of full scale."""
_INAUDIBLE: Final = 0.003
"""Of full scale; what remains after a phrase is left out."""
_WIDE_OPEN: Final = 0.85
"""Cm that the jaw drops in the loudest vowel."""
_HALF_WINDOW: Final = 0.025
"""s to each side over which loudness is taken for the mouth: half a syllable would blur it."""


def speech() -> np.ndarray:
    """Return one loop of speech: int16, mono, at 48 kHz."""
    track = np.zeros(round(LOOP * RATE), np.int16)
    for start, text in PHRASES.items():
        phrase = _spoken(text)
        first = round(start * RATE) - int(np.argmax(np.abs(phrase) > LOUD * 32767))
        track[first : first + len(phrase)] = phrase
    return track


def is_speaking(track: np.ndarray, t: float) -> bool:
    """Return whether a phrase is being said at `t` seconds, its short pauses included."""
    started = [start for start in PHRASES if start <= t]
    if not started:
        return False
    following = min((start for start in PHRASES if start > t), default=LOOP)
    rest = track[round(t * RATE) : round((following - QUIET / 2) * RATE)]
    return bool((np.abs(rest) > LOUD * 32767).any())


def mouth_at(track: np.ndarray, t: float) -> float:
    """Return how far the jaw drops at `t` seconds, in cm: the louder, the further."""
    first, last = round((t - _HALF_WINDOW) * RATE), round((t + _HALF_WINDOW) * RATE)
    part = track[max(0, first) : last].astype(np.float32) / 32767
    loudness = float(np.sqrt(np.mean(part * part))) if len(part) else 0.0
    return _WIDE_OPEN * min(1.0, loudness / (_PEAK / 3))


def _spoken(text: str) -> np.ndarray:
    done = subprocess.run(
        ["espeak-ng", *_VOICE, "--stdout", text], capture_output=True, check=True, timeout=20
    )
    with wave.open(io.BytesIO(done.stdout)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(1_000_000), np.int16)
    levelled = (samples / np.abs(samples).max() * _PEAK * 32767).astype(np.int16)
    end = int(np.flatnonzero(np.abs(levelled) > _INAUDIBLE * 32767)[-1]) + 1
    return _at_full_rate(levelled[:end], rate)


def _at_full_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    made = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([each.to_ndarray()[0] for each in made]).astype(np.int16)
