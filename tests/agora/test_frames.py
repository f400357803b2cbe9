"""Pictures as the SDK delivers them: padded, rotated, of any size, of any user."""

import numpy as np
import pytest

from tests.agora.cloud import Cloud
from tests.agora.side import GEOMETRY, Side, picture


def test_padded_rows_are_unpadded(side: Side, agora: Cloud) -> None:
    agora.spoil(pad=64)
    side.live()
    np.testing.assert_array_equal(side.new_frame(), 255 - picture())


def test_rotated_pictures_are_turned_upright(side: Side, agora: Cloud) -> None:
    side.live()
    for rotation in (90, 180, 270):
        agora.spoil(rotation=rotation, pad=16)
        side.new_frame()  # one of before may have been on its way
        np.testing.assert_array_equal(side.new_frame(), 255 - picture())


def test_pictures_of_any_size_arrive_in_our_size(side: Side, agora: Cloud) -> None:
    side.live()
    for size in ((640, 480), (160, 120), (319, 239), (240, 320), (2, 2), (1280, 720)):
        agora.spoil(size=size, pad=3)
        side.new_frame()
        assert side.new_frame().shape == GEOMETRY.shape


def test_our_own_pictures_under_uid_0_never_arrive(side: Side, agora: Cloud) -> None:
    agora.spoil(echo=True)
    side.live()
    side.pump_for(1.0)
    assert len(side.frames) > 10
    for frame in side.frames:
        np.testing.assert_array_equal(frame.i420, 255 - picture())


@pytest.mark.parametrize("sender", ["0", "77", "33", ""])
def test_pictures_of_somebody_else_never_arrive(side: Side, agora: Cloud, sender: str) -> None:
    side.live()
    agora.spoil(stopped=True)  # the engine's own would hide them
    side.pump_for(0.2)
    side.frames.clear()
    agora.burst(20, sender=sender)
    side.pump_for(0.5)
    assert side.frames == []


def test_broken_frames_are_skipped_and_the_link_goes_on(side: Side, agora: Cloud) -> None:
    side.live()
    agora.spoil(broken=True)
    side.frames.clear()
    side.pump_for(1.0)
    agora.repair()
    np.testing.assert_array_equal(side.new_frame(), 255 - picture())
