"""How a picture must be rotated and mirrored to be shown upright."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, pi
from typing import Final

_ROWS_THAT_TURN: Final = 6
"""Entries of a display matrix, of nine: its last row only moves the picture."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """Clockwise quarter turns, and after them a swap of left and right: eight in all."""

    turns: int = 0
    """0 to 3."""
    mirrored: bool = False

    def then(self, other: "Orientation") -> "Orientation":
        """Return the orientation that results from this one followed by `other`."""
        turns = -other.turns if self.mirrored else other.turns
        return Orientation((self.turns + turns) % 4, self.mirrored != other.mirrored)

    @property
    def sideways(self) -> bool:
        """Whether width and height change places."""
        return self.turns % 2 == 1

    @property
    def filters(self) -> tuple[tuple[str, str], ...]:
        """The names and arguments of FFmpeg's filters that apply it."""
        return _FILTERS[self.turns, self.mirrored]


UPRIGHT: Final = Orientation()

_FILTERS: Final[dict[tuple[int, bool], tuple[tuple[str, str], ...]]] = {
    (0, False): (),
    (1, False): (("transpose", "clock"),),
    (2, False): (("vflip", ""), ("hflip", "")),
    (3, False): (("transpose", "cclock"),),
    (0, True): (("hflip", ""),),
    (1, True): (("transpose", "cclock_flip"),),
    (2, True): (("vflip", ""), ("copy", "")),
    (3, True): (("transpose", "clock_flip"),),
}
"""A picture from `vflip` has its lines in memory from the last to the first, which PyAV 16 reads
beyond its end: so another filter comes after it."""


def by_hand(degrees: int, *, mirror: bool) -> Orientation:
    """Return the orientation for a clockwise rotation in degrees, then a mirror image."""
    return Orientation(degrees // 90 % 4, mirror)


def from_angle(degrees: float) -> Orientation:
    """Return the orientation that undoes a counterclockwise angle; rounded to a quarter turn."""
    return Orientation(-round(degrees / 90) % 4)


def from_matrix(entries: Sequence[int]) -> Orientation:
    """Return the orientation of a display matrix (ISO/IEC 14496-12, 8.3.2), row by row.

    The matrix maps x to ax + cy and y to bx + dy, with y downwards. Angles in between are
    rounded; one that shows nothing (all zero) counts as upright.
    """
    a, b, _, c, d, _ = entries[:_ROWS_THAT_TURN]
    mirrored = a * d - b * c < 0
    if mirrored:  # without the mirror image after it, the rotation remains
        a, c = -a, -c
    return Orientation(round(atan2(b, a) / (pi / 2)) % 4, mirrored)
