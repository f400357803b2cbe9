import numpy as np
import pytest

from relayd.media import cube
from relayd.media.colour import Colours, ColourTags, Curve, read_tags

SD, HD = (640, 480), (1280, 720)


@pytest.mark.parametrize(
    ("tags", "size", "matrix"),
    [
        (ColourTags(), (720, 576), "bt601"),
        (ColourTags(), (1280, 720), "bt709"),
        (ColourTags(), (960, 720), "bt709"),
        (ColourTags(), (720, 1280), "bt709"),
        (ColourTags(), (1920, 800), "bt709"),
        (ColourTags(), (1280, 536), "bt709"),
        (ColourTags(made_here=True), HD, "bt601"),
        (ColourTags(is_rgb=True), HD, "bt601"),
        (ColourTags(6), HD, "bt601"),
        (ColourTags(5), HD, "bt601"),
        (ColourTags(1), SD, "bt709"),
        (ColourTags(7), HD, "smpte240m"),
        (ColourTags(9), SD, "bt2020"),
        (ColourTags(10), SD, "bt2020"),
        (ColourTags(primaries=9), SD, "bt2020"),
        (ColourTags(curve=18), SD, "bt2020"),
    ],
)
def test_the_matrix_is_the_stated_one_or_as_players_guess(
    tags: ColourTags, size: tuple[int, int], matrix: str
) -> None:
    assert read_tags(tags, *size).matrix == matrix


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (ColourTags(9, 9, 16), Colours("bt2020", "bt2020", "pq")),
        (ColourTags(9, 9, 18), Colours("bt2020", "bt2020", "hlg")),
        (ColourTags(9, 2, 18), Colours("bt2020", "bt2020", "hlg")),
        (ColourTags(9, 9, 14), Colours("bt2020", "bt2020", "sdr")),
        (ColourTags(9, 2, 2), Colours("bt2020", "bt709", "sdr")),
        (ColourTags(1, 12, 1), Colours("bt709", "p3", "sdr")),
        (ColourTags(1, 1, 1), Colours("bt709", "bt709", "sdr")),
        (ColourTags(6, 6, 6), Colours("bt601", "bt709", "sdr")),
        (ColourTags(0, 9, 16, is_rgb=True), Colours("bt601", "bt2020", "pq")),
    ],
)
def test_wide_and_hdr_colours_are_known_by_their_tags(tags: ColourTags, expected: Colours) -> None:
    assert read_tags(tags, *HD) == expected


@pytest.mark.parametrize(("curve", "white"), [("pq", 0.5806), ("hlg", 0.7499)])
def test_skin_keeps_its_brightness_and_the_brightest_light_becomes_white(
    curve: Curve, white: float
) -> None:
    """`white` is the signal for 203 cd/m2 (ITU-R BT.2408, table 1)."""
    grey = np.linspace(0, 1, 200)[:, np.newaxis].repeat(3, 1)
    shown = cube.convert(grey, curve, "bt2020")
    light = cube.to_light(grey, curve)
    assert np.all(np.diff(shown[:, 0]) >= 0)
    below = light[:, 0] < cube.KNEE
    assert np.allclose(shown[below] ** cube.GAMMA, light[below], atol=1e-3)
    assert shown[-1] == pytest.approx([1, 1, 1], abs=1e-4)
    paper = cube.convert(np.full((1, 3), white), curve, "bt2020")
    assert 0.93 < paper[0, 0] < 0.97


def test_the_table_interpolates_close_to_the_formula() -> None:
    at = np.random.default_rng(1).uniform(0, 1, (500, 3))
    for curve in ("pq", "hlg"):
        table = cube.cube(curve, "bt2020").reshape(cube.SIZE, cube.SIZE, cube.SIZE, 3)
        below = np.minimum((at * (cube.SIZE - 1)).astype(int), cube.SIZE - 2)
        share = at * (cube.SIZE - 1) - below
        found = np.zeros((500, 3))
        for corner in np.ndindex(2, 2, 2):
            red, green, blue = (below + corner).T
            weight = np.prod(np.where(corner, share, 1 - share), axis=1)
            found += weight[:, np.newaxis] * table[blue, green, red]
        error = np.abs(found - cube.convert(at, curve, "bt2020")) * 255
        assert error.mean() < 1
