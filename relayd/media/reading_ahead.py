"""Reads on where a recording has the sound behind its pictures, so that both are there in time.

Containers interleave loosely: MP4 may have a second of pictures before their sound.
"""

from collections import deque
from collections.abc import Callable, Generator
from typing import Final

from relayd.errors import SourceError
from relayd.media.picture import CodedPicture
from relayd.media.sound import SoundReader

LONGEST: Final = 2.0
"""s of pictures that are held at most, still coded."""
LARGEST: Final = 8 * 2**20
"""Bytes of them."""
LONGEST_WAIT: Final = 0.1
"""s of waiting for data after which the pictures go on without the sound: a slow server must not
delay them."""


def read_ahead(
    packets: Generator[CodedPicture, None, None],
    sound: SoundReader,
    waited: Callable[[], float],
) -> Generator[CodedPicture, None, None]:
    """Hand on each packet when the sound beside it was read, or does not come in time.

    `waited` returns the seconds spent in waiting for data so far. Raises what `packets` raises,
    after the packets before.
    """
    held: deque[CodedPicture] = deque()
    size, began = 0, waited()
    fault: SourceError | None = None
    try:
        for coded in packets:
            held.append(coded)
            size += coded.size
            if waited() - began > LONGEST_WAIT:
                began = waited()
                yield from _all_of(held)
            while held and (size >= LARGEST or not _lacks_sound(held, sound)):
                size -= held[0].size
                began = waited()
                yield held.popleft()
            size = size if held else 0
    except SourceError as error:
        fault = error
    yield from _all_of(held)
    if fault is not None:
        raise fault


def _all_of(held: deque[CodedPicture]) -> Generator[CodedPicture, None, None]:
    while held:
        yield held.popleft()


def _lacks_sound(held: deque[CodedPicture], sound: SoundReader) -> bool:
    """Whether the sound beside the oldest packet was not read yet and may be near."""
    oldest, newest = held[0].stamp, held[-1].stamp
    if oldest is None or newest is None or newest - oldest >= LONGEST:
        return False
    return sound.newest is None or sound.newest < oldest
