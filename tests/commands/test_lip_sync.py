"""The demo's measurement of lip sync, on the demo's own clip."""

import pytest

from relayd.commands.demo import MEDIA
from tests.support.lip_sync import Recording, decoded, measured


@pytest.fixture(scope="module")
def clip() -> Recording:
    return decoded(MEDIA / "person.mp4")


def test_the_clips_lamp_lights_as_its_phrases_begin(clip: Recording) -> None:
    offsets = [offset for _, offset in measured(clip).measurements()]
    assert offsets == pytest.approx([0.0] * 5, abs=0.005)


@pytest.mark.parametrize("late", [-0.35, -0.05, 0.08, 0.35])
def test_sound_that_is_late_or_early_is_measured_as_such(clip: Recording, late: float) -> None:
    offset = measured(clip, sound_late=late).offset()
    assert offset.count >= 4
    assert offset.p50 == pytest.approx(late, abs=0.01)


def test_a_block_counts_when_it_is_heard_not_when_it_is_handed_over(clip: Recording) -> None:
    assert measured(clip, ahead=0.17).offset().p50 == pytest.approx(0.0, abs=0.005)


def test_nothing_is_measured_at_standby_pictures(clip: Recording) -> None:
    assert measured(clip, standby=True).offset().count == 0


def test_nothing_is_measured_without_sound(clip: Recording) -> None:
    assert measured(Recording(clip.pictures, [])).offset().p50 is None


def test_the_clip_can_be_played_in_a_loop_without_a_click(clip: Recording) -> None:
    (_, first), (_, last) = clip.sound[0], clip.sound[-1]
    assert abs(first).max() < 100
    assert abs(last).max() < 100
