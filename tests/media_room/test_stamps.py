"""Which time stamps of a picture are believed."""

from relayd.media.stamps import StampChooser


def test_presentation_stamps_that_rise_are_believed() -> None:
    chooser = StampChooser()
    assert [chooser.choose(n, n - 2) for n in range(5)] == list(range(5))


def test_presentation_stamps_out_of_order_give_way_to_those_of_decoding() -> None:
    chooser = StampChooser()
    chosen = [
        chooser.choose(pts, dts)
        for pts, dts in [(1, 2), (3, 3), (4, 4), (2, 5), (6, 6), (7, 7), (5, 8)]
    ]
    assert chosen == [1, 3, 4, 5, 6, 7, 8]


def test_a_stamp_that_is_known_to_be_wrong_is_no_substitute() -> None:
    chooser = StampChooser()
    for pts, dts in [(1, 2), (3, 3), (2, 4)]:
        chooser.choose(pts, dts)
    assert chooser.choose(7, None) is None


def test_the_only_stamp_there_is_is_believed() -> None:
    assert StampChooser().choose(3, None) == 3
    assert StampChooser().choose(None, 4) == 4
    assert StampChooser().choose(None, None) is None


def test_the_next_round_of_a_file_begins_with_what_was_learnt() -> None:
    chooser = StampChooser()
    for pts, dts in [(1, 2), (3, 3), (2, 4)]:
        chooser.choose(pts, dts)
    chooser.restart()
    assert [chooser.choose(pts, dts) for pts, dts in [(1, 2), (3, 3), (2, 4)]] == [2, 3, 4]
