import pytest

from relayd.config.settings import SourceSettings
from relayd.source.limits import LONGEST_KEY_WAIT, MOST_GROWTH, Run, SourceLimits
from relayd.source.progress import longest_start


def limits(stall: float = 2.0, first: float = 10.0) -> SourceLimits:
    return SourceLimits(SourceSettings(stall_timeout=stall, first_frame_timeout=first))


def run(pictures: int = 100, step: float = 0.04, longest: float = 0.0, key: float = 0.0) -> Run:
    return Run(pictures, (pictures - 1) * step, longest or step, key)


def test_a_steady_source_keeps_the_configured_limits() -> None:
    made = limits()
    assert not made.learn(run(key=2.0))
    made.learn_from_stall(run())
    assert (made.stall, made.first_frame, made.is_slow) == (2.0, 10.0, False)


def test_a_source_that_stalls_after_one_picture_gets_longer_until_the_second_is_seen() -> None:
    made = limits()
    made.learn_from_stall(run(pictures=1))
    assert made.stall == 4.0
    assert not made.is_slow  # it may as well be frozen
    assert made.learn(run(pictures=2, step=3.0))
    assert made.stall == 6.0
    assert made.is_slow
    assert not made.learn(run(pictures=9, step=3.0, longest=3.1))  # nothing new


def test_a_source_that_shows_one_picture_only_gets_no_more_and_more_time() -> None:
    made = limits()
    tried = []
    for _ in range(5):
        made.learn_from_stall(run(pictures=1))
        tried.append(made.stall)
    assert tried == [4.0, 8.0, MOST_GROWTH, 2.0, 4.0]


def test_a_source_whose_usual_step_is_just_below_the_limit_counts_as_slow() -> None:
    made = limits()
    made.learn_from_stall(run(pictures=20, step=1.9))
    assert made.stall == 4.0


def test_a_limit_that_was_learnt_by_mistake_is_forgotten_when_a_fast_source_stalls() -> None:
    made = limits()
    made.learn_from_stall(run(pictures=1))
    made.learn(run(pictures=2, step=3.5))
    made.learn_from_stall(run(pictures=500))
    assert made.stall == 2.0


def test_a_stall_limit_above_all_that_is_tried_stays_as_it_is() -> None:
    made = limits(stall=30.0)
    made.learn_from_stall(run(pictures=1))
    assert made.stall == 30.0
    assert made.first_frame == 30.0


def test_the_wait_for_a_first_picture_grows_with_the_key_frames_seen_and_says_so() -> None:
    made = limits()
    assert made.first_frame_reason() == ""
    assert made.learn(run(key=20.8))
    assert made.first_frame == pytest.approx(31.2)
    assert "20.8 s apart" in made.first_frame_reason()


def test_nonsense_in_time_stamps_makes_no_endless_limit() -> None:
    made = limits()
    made.learn(run(key=1e9))
    assert made.first_frame == 900.0


def test_check_waits_as_long_for_a_source_as_its_limits_allow() -> None:
    settings = SourceSettings(open_timeout=30.0, first_frame_timeout=90.0)
    assert longest_start(settings) >= 30.0 + 90.0
    assert longest_start(SourceSettings()) >= 10.0 + LONGEST_KEY_WAIT
