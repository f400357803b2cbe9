import numpy as np
import pytest

from relayd.media.frames import I420, Geometry, black
from relayd.media.scale import Scaler

TARGET = Geometry(320, 240)


def plain(geometry: Geometry) -> I420:
    picture = black(geometry)
    picture[: geometry.height] = 100
    chroma = picture[geometry.height :].reshape(2, geometry.height // 2, geometry.width // 2)
    chroma[0], chroma[1] = 60, 200
    return picture


def test_a_picture_that_fits_is_not_copied() -> None:
    picture = plain(TARGET)
    assert Scaler(TARGET).fit(picture) is picture


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (Geometry(640, 480), (0, 0, 320, 240)),
        (Geometry(160, 120), (0, 0, 320, 240)),
        (Geometry(480, 640), (70, 0, 180, 240)),
        (Geometry(1280, 720), (0, 30, 320, 180)),
        (Geometry(2, 2), (40, 0, 240, 240)),
    ],
)
def test_the_whole_picture_is_shown_between_dark_bars_in_every_plane(
    size: Geometry, shown: tuple[int, int, int, int]
) -> None:
    left, top, width, height = shown
    fitted = Scaler(TARGET).fit(plain(size))
    expected = black(TARGET)
    expected[top : top + height, left : left + width] = 100
    chroma = expected[TARGET.height :].reshape(2, TARGET.height // 2, TARGET.width // 2)
    area = slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2)
    chroma[0][area], chroma[1][area] = 60, 200
    assert fitted.flags.c_contiguous
    assert np.abs(fitted.astype(int) - expected).max() <= 2


def test_the_size_may_change_with_each_picture() -> None:
    scaler = Scaler(TARGET)
    for size in (Geometry(640, 480), Geometry(480, 640), TARGET, Geometry(640, 480)):
        assert scaler.fit(plain(size)).shape == TARGET.shape
