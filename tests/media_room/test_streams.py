import pytest

from relayd.errors import SourceUnusable
from relayd.media.streams import Candidate, StreamWish, choose_stream, is_tiled

SMALL, LARGE = Candidate(320, 240), Candidate(1280, 720)
COVER = Candidate(3000, 3000, is_cover=True)
TILE = Candidate(512, 512, is_part=True)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([SMALL, LARGE], 1),
        ([LARGE, SMALL], 0),
        ([Candidate(320, 240, is_default=True), LARGE], 0),
        ([Candidate(320, 240, is_default=True), Candidate(1280, 720, is_default=True)], 1),
        ([COVER, SMALL], 1),
        ([Candidate(1920, 1080, is_decodable=False), SMALL], 1),
        ([Candidate(0, 0, is_default=True), SMALL], 1),
        ([Candidate(100, 80, 1), Candidate(100, 80, 3)], 1),  # an animated AVIF and its still
        ([SMALL, Candidate(320, 240)], 0),
        ([TILE, SMALL], 1),
    ],
)
def test_the_largest_default_stream_that_decodes_is_the_best(
    candidates: list[Candidate], expected: int
) -> None:
    assert choose_stream(candidates, "best", "x") == expected


def test_a_number_counts_the_video_streams_without_covers() -> None:
    assert choose_stream([COVER, LARGE, SMALL], 0, "x") == 1
    assert choose_stream([COVER, LARGE, SMALL], 1, "x") == 2


def test_a_number_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(SourceUnusable, match=r"x has no video stream 2, only 2 \(0 to 1\)"):
        choose_stream([COVER, LARGE, SMALL], 2, "x")


@pytest.mark.parametrize("wish", ["best", 0])
@pytest.mark.parametrize("candidates", [[], [COVER], [Candidate(64, 64, is_decodable=False)]])
def test_covers_and_streams_without_a_decoder_are_never_chosen(
    candidates: list[Candidate], wish: StreamWish
) -> None:
    assert choose_stream(candidates, wish, "x") is None


def test_tiles_are_the_picture_unless_another_stream_is_the_main_one() -> None:
    preview, main = Candidate(320, 240), Candidate(1024, 1024, is_default=True)
    assert is_tiled([TILE, TILE, preview])
    assert not is_tiled([TILE, TILE, main])
    assert not is_tiled([SMALL, LARGE])
