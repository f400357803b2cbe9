import numpy as np
import pytest
from numpy.typing import NDArray

from relayd.media.frames import I420, Geometry, planes
from relayd.rtc.agora.events import ReceivedFrame
from relayd.rtc.agora.planes import Packer

Planes = list[NDArray[np.uint8]]


def noise(width: int, height: int) -> Planes:
    """Y, U and V of a picture in which no two pixels are neighbours by chance."""
    random = np.random.default_rng(1)
    half = ((height + 1) // 2, (width + 1) // 2)
    return [random.integers(0, 256, size, np.uint8) for size in ((height, width), half, half)]


def frame(picture: Planes, pad: int = 0, rotation: int = 0) -> ReceivedFrame:
    """The picture as the SDK gives it, each row `pad` bytes longer than it must be."""
    padded = [np.pad(plane, ((0, 0), (0, pad)), constant_values=77) for plane in picture]
    height, width = picture[0].shape
    data = [plane.tobytes() for plane in padded]
    # The wrapper copies stride * height // 2 bytes of U and V.
    data[1:] = [each[: padded[1].shape[1] * height // 2] for each in data[1:]]
    strides = (padded[0].shape[1], padded[1].shape[1], padded[2].shape[1])
    return ReceivedFrame(width, height, strides, (data[0], data[1], data[2]), rotation, 0.0)


def assert_same(packed: I420 | None, wanted: Planes) -> None:
    assert packed is not None
    for got, want in zip(planes(packed), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("pad", [0, 1, 16, 64])
@pytest.mark.parametrize("size", [(640, 480), (64, 48), (2, 2), (1280, 720)])
def test_padding_is_removed(size: tuple[int, int], pad: int) -> None:
    picture = noise(*size)
    assert_same(Packer().pack(frame(picture, pad)), picture)


@pytest.mark.parametrize(("rotation", "turns"), [(90, -1), (180, 2), (270, 1), (360, 0), (-90, 1)])
def test_a_rotated_picture_is_turned_upright_clockwise(rotation: int, turns: int) -> None:
    picture = noise(64, 48)
    packed = Packer().pack(frame(picture, 16, rotation))
    assert_same(packed, [np.rot90(plane, turns) for plane in picture])


def test_clockwise_means_that_the_top_row_becomes_the_right_column() -> None:
    picture = noise(64, 48)
    packed = Packer().pack(frame(picture, rotation=90))
    assert packed is not None
    np.testing.assert_array_equal(planes(packed)[0][:, -1], picture[0][0])


@pytest.mark.parametrize("size", [(639, 479), (639, 480), (640, 479), (3, 3)])
def test_an_odd_size_loses_its_last_row_or_column(size: tuple[int, int]) -> None:
    picture = noise(*size)
    packed = Packer().pack(frame(picture, 7))
    even = Geometry(size[0] // 2 * 2, size[1] // 2 * 2)
    wanted = [picture[0][: even.height, : even.width]]
    wanted += [plane[: even.height // 2, : even.width // 2] for plane in picture[1:]]
    assert_same(packed, wanted)


def test_the_size_may_change_from_picture_to_picture() -> None:
    packer = Packer()
    for size in ((640, 480), (320, 240), (480, 640), (640, 480)):
        picture = noise(*size)
        assert_same(packer.pack(frame(picture)), picture)


@pytest.mark.parametrize(
    "broken",
    [
        ReceivedFrame(0, 0, (0, 0, 0), (b"", b"", b""), 0, 0.0),
        ReceivedFrame(-4, 4, (4, 2, 2), (bytes(16), bytes(4), bytes(4)), 0, 0.0),
        ReceivedFrame(1, 480, (1, 1, 1), (bytes(480), bytes(240), bytes(240)), 0, 0.0),
        ReceivedFrame(4, 4, (4, 2, 2), (None, None, None), 0, 0.0),
        ReceivedFrame(4, 4, (4, 2, 2), (bytes(15), bytes(4), bytes(4)), 0, 0.0),
        ReceivedFrame(4, 4, (3, 2, 2), (bytes(16), bytes(4), bytes(4)), 0, 0.0),
        ReceivedFrame(4, 4, (4, -2, 2), (bytes(16), bytes(4), bytes(4)), 0, 0.0),
        ReceivedFrame(4, 4, (4, 2, 2), (bytes(16), bytes(4), bytes(3)), 0, 0.0),
        ReceivedFrame(4, 4, (4, 2, 2), (bytes(16), bytes(4), bytes(4)), 45, 0.0),
    ],
    ids=["empty", "negative", "a line", "no planes", "short", "narrow", "backwards", "v", "askew"],
)
def test_a_broken_frame_gives_no_picture(broken: ReceivedFrame) -> None:
    assert Packer().pack(broken) is None


def test_the_buffer_is_kept_while_the_size_stays() -> None:
    packer = Packer()
    assert packer.pack(frame(noise(64, 48))) is packer.pack(frame(noise(64, 48)))
