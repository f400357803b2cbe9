"""What the colours of a picture mean, and what is to be done to show them in BT.601.

Every viewer assumes BT.601 for a small picture, with the primaries and the curve of BT.709. The
numbers are those of ITU-T H.273, which FFmpeg uses.
"""

from dataclasses import dataclass
from typing import Final, Literal

UNSPECIFIED: Final = 2
"""The code of a matrix, primaries or curve that is not stated."""

_MATRICES: Final = {1: "bt709", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
"""The names of the matrices other than BT.601 in the filter `scale`."""
_BT2020: Final = 9
_P3: Final = (11, 12)
_PQ, _HLG = 16, 18

_HD_LINES: Final = 720
_HD_WIDTH: Final = 1280
"""From this size on players take an untagged picture for BT.709; the width counts for films
that are cropped to fewer lines."""

Curve = Literal["sdr", "pq", "hlg"]
Gamut = Literal["bt709", "bt2020", "p3"]


@dataclass(frozen=True, slots=True)
class ColourTags:
    """What a picture and its stream state about its colours."""

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    curve: int = UNSPECIFIED
    is_rgb: bool = False
    made_here: bool = False
    """From a capture device or a generator of FFmpeg's, whose untagged pictures are BT.601 at
    every size: USB cameras send BT.601 by default, and FFmpeg draws in it."""


@dataclass(frozen=True, slots=True)
class Colours:
    """How a picture's colours are to be read."""

    matrix: str = "bt601"
    """Its name in the filter `scale`: bt601, bt709, smpte240m or bt2020."""
    gamut: Gamut = "bt709"
    curve: Curve = "sdr"

    @property
    def needs_table(self) -> bool:
        """Whether a change of matrix alone does not do: wide or high dynamic range."""
        return (self.gamut, self.curve) != ("bt709", "sdr")


def read_tags(tags: ColourTags, width: int, height: int) -> Colours:
    """Return how the colours of a picture of this size in pixels are to be read."""
    curve = _curve(tags)
    return Colours(_matrix(tags, curve, width, height), _gamut(tags, curve), curve)


def _curve(tags: ColourTags) -> Curve:
    return "pq" if tags.curve == _PQ else "hlg" if tags.curve == _HLG else "sdr"


def _gamut(tags: ColourTags, curve: Curve) -> Gamut:
    """Return the primaries; those of SD television are so near BT.709's that they stay."""
    if tags.primaries in _P3:
        return "p3"
    # A matrix of BT.2020 without primaries says nothing about them.
    is_wide = tags.primaries == _BT2020 or (curve != "sdr" and tags.primaries == UNSPECIFIED)
    return "bt2020" if is_wide else "bt709"


def _matrix(tags: ColourTags, curve: Curve, width: int, height: int) -> str:
    if tags.is_rgb:
        return "bt601"
    if tags.matrix == UNSPECIFIED:
        return _guess_matrix(tags, curve, width, height)
    return _MATRICES.get(tags.matrix, "bt601")


def _guess_matrix(tags: ColourTags, curve: Curve, width: int, height: int) -> str:
    if tags.primaries == _BT2020 or curve != "sdr":
        return "bt2020"
    if tags.made_here:
        return "bt601"
    return "bt709" if height >= _HD_LINES or width >= _HD_WIDTH else "bt601"
