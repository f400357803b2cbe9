"""A HEIF picture in tiles, as phones take photos: Pillow's AVIF tiles in a container made here."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support.clips import RGB


def _box(kind: bytes, *content: bytes) -> bytes:
    inner = b"".join(content)
    return struct.pack(">I4s", 8 + len(inner), kind) + inner


def _full_box(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *content)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at : at + size]
        at += size


def _tile(rgb: RGB) -> tuple[bytes, list[bytes]]:
    """Return the AV1 data of a picture, and the boxes that describe it."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "AVIF", quality=95, subsampling="4:4:4")
    boxes = dict(_boxes(content.getvalue()))
    meta = dict(_boxes(boxes[b"meta"][12:]))
    properties = dict(_boxes(dict(_boxes(meta[b"iprp"][8:]))[b"ipco"][8:]))
    return boxes[b"mdat"][8:], [properties[b"av1C"], properties[b"colr"]]


def tiled(
    picture: RGB, rows: int, columns: int, *, rotate: int = 0, flip: int | None = None
) -> bytes:
    """Return the file; `rotate` is the value of irot, `flip` that of imir.

    The tiles are as large as they must be, with a grey edge where the picture ends.
    """
    height, width = picture.shape[:2]
    tile_height, tile_width = -(-height // rows), -(-width // columns)
    padded = Image.new("RGB", (tile_width * columns, tile_height * rows), (90, 90, 90))
    padded.paste(Image.fromarray(picture))
    data = []
    shared: list[bytes] = []
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        left, top = column * tile_width, row * tile_height
        piece = padded.crop((left, top, left + tile_width, top + tile_height))
        payload, shared = _tile(np.asarray(piece, np.uint8))
        data.append(payload)
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    own = [_full_box(b"ispe", struct.pack(">II", width, height)), shared[1]]
    if rotate:
        own.append(_box(b"irot", bytes([rotate])))
    if flip is not None:
        own.append(_box(b"imir", bytes([flip])))
    of_tiles = [_full_box(b"ispe", struct.pack(">II", tile_width, tile_height)), *shared]
    return _file(grid, data, own, of_tiles)


def placed(sizes: int, *places: bytes, payload: bytes = b"") -> bytes:
    """Return a file whose items' data lie where `places` says, with numbers of these `sizes`."""
    return _box(b"ftyp", b"avif") + _full_box(
        b"meta",
        _full_box(b"pitm", struct.pack(">H", 1)),
        _full_box(b"iref", _box(b"dimg", struct.pack(">HHHH", 1, 2, 2, 3))),
        _full_box(b"iloc", struct.pack(">HH", sizes, len(places)), *places),
        _box(b"iprp", _box(b"ipco"), _full_box(b"ipma", bytes(4))),
        _box(b"mdat", payload),
    )


def _file(grid: bytes, data: list[bytes], own: list[bytes], of_tiles: list[bytes]) -> bytes:
    count = 1 + len(data)
    names = [b"grid", *[b"av01"] * len(data)]
    infos = [
        _full_box(b"infe", struct.pack(">HH4sx", number, 0, name), version=2, flags=number > 1)
        for number, name in enumerate(names, 1)
    ]
    links = [
        (number, range(1, len(own) + 1) if number == 1 else
         range(len(own) + 1, len(own) + len(of_tiles) + 1))
        for number in range(1, count + 1)
    ]  # fmt: skip
    link_table = b"".join(
        struct.pack(">HB", number, len(listed)) + bytes(listed) for number, listed in links
    )

    def meta(start: int) -> bytes:
        places, at = b"", start
        for number, payload in enumerate(data, 2):
            places += struct.pack(">HHHHII", number, 0, 0, 1, at, len(payload))
            at += len(payload)
        # The grid itself lies in idat, as iPhones write it.
        places = struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid)) + places
        return _full_box(
            b"meta",
            _full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            _full_box(b"pitm", struct.pack(">H", 1)),
            _full_box(b"iloc", struct.pack(">BBH", 0x44, 0, count), places, version=1),
            _full_box(b"iinf", struct.pack(">H", count), *infos),
            _full_box(
                b"iref",
                _box(
                    b"dimg",
                    struct.pack(f">HH{len(data)}H", 1, len(data), *range(2, count + 1)),
                ),
            ),
            _box(
                b"iprp",
                _box(b"ipco", *own, *of_tiles),
                _full_box(b"ipma", struct.pack(">I", count), link_table),
            ),
            _box(b"idat", grid),
        )

    kind = _box(b"ftyp", b"avif", bytes(4), b"avif", b"mif1", b"miaf")
    start = len(kind) + len(meta(0)) + 8
    return kind + meta(start) + _box(b"mdat", *data)
