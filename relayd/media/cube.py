"""The table that shows wide and high-dynamic-range colours on a BT.709 display.

A cube of RGB values, as FFmpeg's filter `lut3d` interpolates in. What is as bright as paper or
skin stays as it is: ITU-R BT.2408 places the white of a page at 203 cd/m2, which becomes the
display's white. Only what shines more is compressed, up to 1000 cd/m2, and cut off above.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relayd.media.colour import Curve, Gamut

Floats = NDArray[np.float64]

SIZE: Final = 33
"""Steps of each colour: the error of interpolation stays below 0.5 of 255 for most colours."""
WHITE: Final = 203.0
"""cd/m2 of a white page in HDR (ITU-R BT.2408, 2.1)."""
PEAK: Final = 1000.0 / WHITE
"""The brightest light that is told apart: a display of 1000 cd/m2, for which most HDR is made."""
KNEE: Final = 0.75
"""The share of white from which on light is compressed: the lightest skin stays below it."""
GAMMA: Final = 2.4
"""Of an SDR display (ITU-R BT.1886)."""

_TO_BT709: Final[dict[Gamut, Floats]] = {
    "bt709": np.eye(3),
    "bt2020": np.array(
        [
            [1.660491, -0.587641, -0.072850],
            [-0.124550, 1.132900, -0.008349],
            [-0.018151, -0.100579, 1.118730],
        ]
    ),
    "p3": np.array(
        [
            [1.224940, -0.224940, 0.0],
            [-0.042057, 1.042057, 0.0],
            [-0.019638, -0.078636, 1.098274],
        ]
    ),
}
"""From linear RGB to linear RGB, both with the white of D65 (ITU-R BT.2087; SMPTE EG 432-1)."""


def write_cube(path: Path, curve: Curve, gamut: Gamut) -> None:
    """Write the table as a .cube file. Raises OSError."""
    path.write_bytes(_as_text(curve, gamut))


@lru_cache(maxsize=2)
def _as_text(curve: Curve, gamut: Gamut) -> bytes:
    rows = "\n".join(
        f"{red:.5f} {green:.5f} {blue:.5f}" for red, green, blue in cube(curve, gamut).tolist()
    )
    return f"LUT_3D_SIZE {SIZE}\n{rows}\n".encode()


def cube(curve: Curve, gamut: Gamut) -> Floats:
    """Return the table's rows, shape (SIZE**3, 3), red changing first; all from 0 to 1."""
    steps = np.linspace(0, 1, SIZE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    return convert(np.stack([red, green, blue], -1).reshape(-1, 3), curve, gamut)


def convert(signal: Floats, curve: Curve, gamut: Gamut) -> Floats:
    """Convert R'G'B' signals to those of BT.709, both from 0 to 1, shape (count, 3)."""
    light = to_light(signal, curve) @ _TO_BT709[gamut].T
    light = np.clip(light, 0, None)
    if curve != "sdr":
        light = compress(light)
    return np.clip(light, 0, 1) ** (1 / GAMMA)


def to_light(signal: Floats, curve: Curve) -> Floats:
    """Return the light that a display shows for a signal, as a share of white."""
    if curve == "pq":
        return _pq_to_light(signal)
    if curve == "hlg":
        return _hlg_to_light(signal)
    return signal**GAMMA


def compress(light: Floats) -> Floats:
    """Compress light of 0 to PEAK to 0 to 1, by the brightest of the three colours.

    Up to KNEE nothing changes; the colours of a pixel keep their ratio, and so their hue.
    """
    brightest = light.max(axis=-1, keepdims=True)
    # A hyperbola with the slope 1 at the knee, and 1 at the peak, as FFmpeg's "mobius".
    lowest = -(KNEE**2) * (PEAK - 1) / (KNEE**2 - 2 * KNEE + PEAK)
    base = (KNEE**2 - 2 * KNEE * PEAK + PEAK) / (PEAK - 1)
    scale = (base**2 + 2 * base * KNEE + KNEE**2) / (base - lowest)
    above = np.maximum(brightest, KNEE)
    compressed = scale * (above + lowest) / (above + base)
    return light * np.where(brightest > KNEE, compressed / above, 1.0)


def _pq_to_light(signal: Floats) -> Floats:
    """SMPTE ST 2084: the signal states the light in absolute terms."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    share = np.maximum(power - c1, 0) / (c2 - c3 * power)
    return share ** (1 / m1) * 10_000 / WHITE


def _hlg_to_light(signal: Floats) -> Floats:
    """ARIB STD-B67, shown on a display of 1000 cd/m2 (ITU-R BT.2100, table 5).

    The display's gamma is applied to each colour, as SDR displays and FFmpeg's zscale do. BT.2100
    applies it to the luminance, which makes saturated colours paler: by a Delta E of 5.
    """
    a, b, c, half = 0.17883277, 0.28466892, 0.55991073, 0.5
    scene: Floats = np.where(signal <= half, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    light: Floats = scene**1.2 * PEAK
    return light
