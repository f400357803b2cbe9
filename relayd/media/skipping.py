"""Which packets to leave undecoded when decoding is too slow."""

from enum import IntEnum
from typing import Final

INTRA_AFTER: Final = 50
"""Key packets in a row after which every picture counts as a key picture (MJPEG, ProRes, cameras
that write each picture alone): skipping all but keys would skip nothing."""
_INTRA_SHARE: Final = 2
"""Of pictures that are all keys, one in so many is decoded instead of those others refer to."""
_INTRA_LEAP: Final = 8
"""Of pictures that are all keys, one in so many is decoded instead of the keys alone."""


class SkipLevel(IntEnum):
    """How much is left undecoded."""

    NOTHING = 0
    UNREFERENCED = 1
    """Pictures that no other refers to, which leaves no trace in the others."""
    ALL_BUT_KEYS = 2
    """All but key pictures."""


class PacketSkipper:
    """Chooses the packets to decode; those of a level are chosen from the next one on."""

    def __init__(self) -> None:
        self.level = SkipLevel.NOTHING
        self._keys_in_a_row = 0
        self._awaits_key = False

    def wants(self, *, is_key: bool) -> bool:
        """Whether the next packet is to be decoded."""
        self._keys_in_a_row = self._keys_in_a_row + 1 if is_key else 0
        if self._keys_in_a_row > INTRA_AFTER:
            self._awaits_key = False
            share = (1, _INTRA_SHARE, _INTRA_LEAP)[self.level]
            return self._keys_in_a_row % share == 0
        if is_key:
            self._awaits_key = False
        elif self.level is SkipLevel.ALL_BUT_KEYS:
            # What follows refers to it, whatever the level is by then.
            self._awaits_key = True
        return not self._awaits_key
