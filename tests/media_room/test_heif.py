import struct
import time
import tracemalloc
from pathlib import Path

import av
import pytest
from PIL import features

from relayd.media import tiles
from relayd.media.heif import Grid, read_grid
from relayd.media.orientation import UPRIGHT, Orientation
from relayd.media.tiles import find_grid, join_tiles
from tests.support.clips import quadrants
from tests.support.heif import placed, tiled

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="Pillow writes no AVIF")


def test_the_grid_of_a_photo_in_tiles_is_read() -> None:
    grid = read_grid(tiled(quadrants(630, 470), 2, 3))
    assert grid == Grid(2, 3, 630, 470, (2, 3, 4, 5, 6, 7), UPRIGHT)


@pytest.mark.parametrize(
    ("rotate", "flip", "expected"),
    [
        (1, None, Orientation(3)),  # irot counts counterclockwise
        (2, None, Orientation(2)),
        (0, 0, Orientation(2, mirrored=True)),  # above and below change places
        (0, 1, Orientation(0, mirrored=True)),
        (1, 1, Orientation(3, mirrored=True)),
    ],
)
def test_the_orientation_of_a_photo_in_tiles_is_read(
    rotate: int, flip: int | None, expected: Orientation
) -> None:
    grid = read_grid(tiled(quadrants(64, 64), 1, 2, rotate=rotate, flip=flip))
    assert grid is not None
    assert grid.orientation == expected


def test_a_file_that_is_cut_off_or_damaged_has_no_grid_and_raises_nothing() -> None:
    content = tiled(quadrants(64, 64), 2, 2)
    end = content.index(b"mdat")
    assert all(read_grid(content[:size]) is None for size in range(content.index(b"idat")))
    for place in range(end):
        for value in (0, 255):
            damaged = bytearray(content)
            damaged[place] = value
            grid = read_grid(bytes(damaged))
            assert grid is None or len(grid.tiles) == grid.rows * grid.columns


def test_a_file_that_claims_millions_of_empty_pieces_is_read_at_once() -> None:
    content = placed(0, *[struct.pack(">HHH", 5, 0, 65535)] * 2000)
    before = time.thread_time()
    assert read_grid(content) is None
    assert time.thread_time() - before < 5  # it was three minutes


def test_a_grid_that_claims_to_be_longer_than_memory_takes_none() -> None:
    pieces = struct.pack(">HHH", 1, 0, 1000) + struct.pack(">I", 100_000) * 1000
    content = placed(0x0400, pieces, payload=bytes(200_000))
    tracemalloc.start()
    try:
        assert read_grid(content) is None
        assert tracemalloc.get_traced_memory()[1] < 10_000_000  # it was 100 MB
    finally:
        tracemalloc.stop()


def test_tiles_that_lie_outside_the_picture_are_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "photo.avif"
    path.write_bytes(tiled(quadrants(128, 128), 2, 2))
    with av.open(path) as container:
        assert join_tiles(container, Grid(2, 2, 64, 128, (2, 3, 4, 5), UPRIGHT)) is None


def test_a_grid_of_more_tiles_than_ffmpeg_opens_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.avif"
    path.write_bytes(tiled(quadrants(128, 128), 2, 2))
    assert find_grid(str(path), {}, (5, 5), 10**6)
    monkeypatch.setattr(tiles, "MOST_TILES", 3)
    assert find_grid(str(path), {}, (5, 5), 10**6) is None
