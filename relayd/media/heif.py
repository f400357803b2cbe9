"""Finds out how the tiles of a HEIF picture (HEIC, AVIF) lie side by side (ISO/IEC 23008-12).

FFmpeg gives each tile as a stream of its own, with the number of its item as the stream's id. Its
own record of the grid cannot be accessed through PyAV.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relayd.media.orientation import UPRIGHT, Orientation

_SIZE_AND_TYPE: Final = 8
"""Bytes at the start of a box."""
_SIZE_FOLLOWS, _UP_TO_THE_END = 1, 0
"""Sizes of a box with another meaning: 64 bits after the type; all that is left."""
_LONGEST_GRID: Final = 12
"""Bytes of a grid. A damaged file may claim any length, in thousands of pieces."""
_IN_FILE, _IN_IDAT = 0, 1
"""Where the data of an item are."""
_WIDE_SIZES: Final = 1
"""The flag of a grid whose width and height have 32 bits, not 16."""
_TOP_AND_BOTTOM: Final = Orientation(2, mirrored=True)
_LEFT_AND_RIGHT: Final = Orientation(0, mirrored=True)


@dataclass(frozen=True, slots=True)
class Grid:
    """How tiles make a picture."""

    rows: int
    columns: int
    width: int
    height: int
    """Of the picture in pixels; the tiles may reach beyond it to the right and below."""
    tiles: tuple[int, ...]
    """The items, row by row."""
    orientation: Orientation


class _Bytes:
    """Reads numbers, most significant byte first."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self.content, self.at = content, at

    def take(self, size: int) -> bytes:
        """Return the next bytes. Raises ValueError at the end."""
        piece = self.content[self.at : self.at + size]
        if len(piece) < size:
            raise ValueError("a box ends too early")
        self.at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    @property
    def is_at_end(self) -> bool:
        return self.at >= len(self.content)


def read_grid(content: bytes) -> Grid | None:
    """Return the grid of a HEIF file's main picture; None if it has none that can be read."""
    try:
        meta = dict(_boxes(_box(content, b"meta")[4:]))
        main = _main_item(meta[b"pitm"])
        tiles = _tiles(meta[b"iref"], main)
        grid = _Bytes(_item_data(meta, main, content))
        grid.take(1)  # the version
        size = 4 if grid.number(1) & _WIDE_SIZES else 2
        rows, columns = grid.number(1) + 1, grid.number(1) + 1
        width, height = grid.number(size), grid.number(size)
        orientation = _orientation(dict(_boxes(meta[b"iprp"])), main)
    except (KeyError, ValueError, IndexError):
        return None
    if len(tiles) != rows * columns or not width or not height:
        return None
    return Grid(rows, columns, width, height, tiles, orientation)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    reader = _Bytes(content)
    while not reader.is_at_end:
        start = reader.at
        size, kind = reader.number(4), reader.take(4)
        if size == _SIZE_FOLLOWS:
            size = reader.number(8)
        elif size == _UP_TO_THE_END:
            size = len(content) - start
        if size < _SIZE_AND_TYPE:
            raise ValueError("a box is smaller than its own header")
        yield kind, content[reader.at : start + size]
        reader.at = start + size


def _box(content: bytes, wanted: bytes) -> bytes:
    for kind, inner in _boxes(content):
        if kind == wanted:
            return inner
    raise ValueError("a box is missing")


def _full_box(content: bytes) -> tuple[_Bytes, int, int]:
    """Return the content after version and flags, the version and the flags."""
    reader = _Bytes(content)
    version, flags = reader.number(1), reader.number(3)
    return reader, version, flags


def _main_item(content: bytes) -> int:
    reader, version, _ = _full_box(content)
    return reader.number(4 if version else 2)


def _tiles(content: bytes, item: int) -> tuple[int, ...]:
    references, version, _ = _full_box(content)
    size = 4 if version else 2
    for kind, inner in _boxes(references.content[references.at :]):
        reader = _Bytes(inner)
        if kind == b"dimg" and reader.number(size) == item:
            return tuple(reader.number(size) for _ in range(reader.number(2)))
    raise ValueError("the main item is made of no others")


def _item_data(meta: dict[bytes, bytes], wanted: int, content: bytes) -> bytes:
    reader, version, _ = _full_box(meta[b"iloc"])
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (
        sizes >> shift & 15 for shift in (12, 8, 4, 0)
    )
    piece_size = offset_size + length_size + (index_size if version else 0)
    for _ in range(reader.number(4 if version > 1 else 2)):
        item = reader.number(4 if version > 1 else 2)
        place = reader.number(2) & 15 if version else _IN_FILE
        reader.take(2)  # in which file: this one
        base = reader.number(base_size)
        count = reader.number(2)
        if item != wanted:
            reader.take(count * piece_size)
        elif place in (_IN_FILE, _IN_IDAT):
            source, data = content if place == _IN_FILE else meta[b"idat"], b""
            for _ in range(count):
                reader.take(index_size if version else 0)
                start = base + reader.number(offset_size)
                length = min(reader.number(length_size), _LONGEST_GRID)
                data += _Bytes(source, start).take(length)
                if len(data) >= _LONGEST_GRID:
                    break
            return data
    raise ValueError("the main item has no data")


def _orientation(properties: dict[bytes, bytes], wanted: int) -> Orientation:
    """Return what `irot` and `imir` of the item say, in their order."""
    listed = list(_boxes(properties[b"ipco"]))
    orientation = UPRIGHT
    for number in _property_numbers(properties[b"ipma"], wanted):
        kind, inner = listed[number - 1]
        if kind == b"irot":
            orientation = orientation.then(Orientation(-inner[0] % 4))
        elif kind == b"imir":
            orientation = orientation.then(_LEFT_AND_RIGHT if inner[0] & 1 else _TOP_AND_BOTTOM)
    return orientation


def _property_numbers(content: bytes, wanted: int) -> list[int]:
    """Return the properties of an item, by their place in `ipco`, counted from 1."""
    reader, version, flags = _full_box(content)
    size = 2 if flags & 1 else 1
    mask = (1 << (8 * size - 1)) - 1  # the highest bit says that it is essential
    for _ in range(reader.number(4)):
        item = reader.number(4 if version else 2)
        numbers = [reader.number(size) & mask for _ in range(reader.number(1))]
        if item == wanted:
            return [number for number in numbers if number]
    return []
