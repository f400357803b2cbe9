import pytest
from PIL import features

from relayd.media.heif import Grid, read_grid
from relayd.media.orientation import UPRIGHT, Orientation
from tests.support.clips import quadrants
from tests.support.heif import tiled

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
