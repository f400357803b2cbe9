from itertools import product

import numpy as np
import pytest

from relayd.media.orientation import UPRIGHT, Orientation, by_hand, from_angle, from_matrix

ALL = [Orientation(turns, mirrored) for mirrored in (False, True) for turns in range(4)]
MATRICES = {  # EXIF's number: a, b, c, d; x' = ax + cy, y' = bx + dy
    1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
    5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
}  # fmt: skip


def applied(orientation: Orientation, picture: np.ndarray) -> np.ndarray:
    turned = np.rot90(picture, -orientation.turns)
    return turned[:, ::-1] if orientation.mirrored else turned


@pytest.mark.parametrize("entries", list(MATRICES.values()))
def test_a_matrix_moves_each_pixel_where_it_says(entries: tuple[int, int, int, int]) -> None:
    a, b, c, d = entries
    picture = np.arange(6).reshape(2, 3)
    moved = {(b * x + d * y, a * x + c * y): picture[y, x] for y, x in product(range(2), range(3))}
    rows, columns = ({place[axis] for place in moved} for axis in (0, 1))
    expected = [[moved[row, column] for column in sorted(columns)] for row in sorted(rows)]
    one = 1 << 16
    orientation = from_matrix([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30])
    assert applied(orientation, picture).tolist() == expected


def test_the_eight_matrices_are_eight_orientations() -> None:
    found = {from_matrix([a, b, 0, c, d, 0, 0, 0, 1]) for a, b, c, d in MATRICES.values()}
    assert found == set(ALL)


def test_a_matrix_of_zeros_and_a_small_tilt_count_as_upright() -> None:
    assert from_matrix([0] * 9) == UPRIGHT
    assert from_matrix([65000, 8000, 0, -8000, 65000, 0, 0, 0, 1 << 30]) == UPRIGHT


@pytest.mark.parametrize(("first", "second"), list(product(ALL, ALL)))
def test_one_after_the_other_is_both_in_one(first: Orientation, second: Orientation) -> None:
    picture = np.arange(6).reshape(2, 3)
    both = applied(second, applied(first, picture))
    assert applied(first.then(second), picture).tolist() == both.tolist()


def test_by_hand_the_rotation_is_clockwise_and_the_mirror_comes_after_it() -> None:
    picture = np.array([[1, 2], [3, 4]])
    assert applied(by_hand(90, mirror=False), picture).tolist() == [[3, 1], [4, 2]]
    assert applied(by_hand(90, mirror=True), picture).tolist() == [[1, 3], [2, 4]]


def test_an_angle_counterclockwise_is_undone_clockwise() -> None:
    assert [from_angle(angle).turns for angle in (0, -90, 180, -180, 90)] == [0, 1, 2, 2, 3]
