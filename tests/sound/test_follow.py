"""What the sound's delay aims at."""

import numpy as np
import pytest

from relayd.sound.blocks import BLOCK_SECONDS
from relayd.sound.follow import DelayFollower
from relayd.sound.line import DelayLine
from tests.support.voice import blocks_of, voice

FPS = 20


def note(follower: DelayFollower, delays: list[float], begin: float = 0.0) -> None:
    for number, delay in enumerate(delays):
        follower.note(delay, begin + number / FPS)


def test_there_is_no_target_before_a_route_was_measured_five_times() -> None:
    follower = DelayFollower()
    note(follower, [0.4] * 4)
    assert follower.target() is None
    follower.note(0.4, 1.0)
    assert follower.target() == pytest.approx(0.4)


def test_a_few_late_pictures_do_not_move_the_target() -> None:
    follower = DelayFollower()
    note(follower, [0.4] * 16 + [0.9] * 4)
    assert follower.target() == pytest.approx(0.4)


@pytest.mark.parametrize("delay", [0.7, 0.3])
def test_a_step_of_the_delay_is_followed_within_a_third_of_a_second(delay: float) -> None:
    follower = DelayFollower()
    note(follower, [0.4] * 100)
    note(follower, [delay] * 6, 5.0)
    assert follower.target() == pytest.approx(delay)


def test_a_step_is_followed_as_soon_when_the_delay_is_uneven() -> None:
    follower, rng = DelayFollower(), np.random.default_rng(2)
    note(follower, list(0.4 + 0.02 * rng.standard_normal(100)))
    note(follower, list(0.65 + 0.02 * rng.standard_normal(6)), 5.0)
    assert follower.target() == pytest.approx(0.66, abs=0.03)


@pytest.mark.parametrize(("delay", "pictures"), [(0.45, 10), (0.35, 16)])
def test_a_change_too_small_for_a_step_is_followed_within_a_second(
    delay: float, pictures: int
) -> None:
    follower = DelayFollower()
    note(follower, [0.4] * 100 + [delay] * pictures)
    assert follower.target() == pytest.approx(delay)


def test_delays_between_two_ticks_of_the_output_move_the_target_little() -> None:
    follower, rng, targets = DelayFollower(), np.random.default_rng(1), []
    for number in range(2000):
        follower.note(0.45 + 0.05 * rng.integers(2), number / FPS)
        targets.append(follower.target())
    later = np.array(targets[20:], float)
    assert later.mean() > 0.475
    assert later.std() < 0.012


def test_another_route_starts_anew_and_the_last_target_holds_meanwhile() -> None:
    follower = DelayFollower()
    note(follower, [0.4] * 20)
    follower.forget()
    assert follower.target() == pytest.approx(0.4)
    note(follower, [0.8] * 5, 2.0)
    assert follower.target() == pytest.approx(0.8)


def test_measurements_from_before_a_still_scene_do_not_count_after_it() -> None:
    follower = DelayFollower()
    note(follower, [0.4] * 20)
    note(follower, [0.6] * 4, 60.0)
    assert follower.target() == pytest.approx(0.4)  # nothing better is known
    note(follower, [0.6], 60.3)
    assert follower.target() == pytest.approx(0.6)


def test_the_offset_is_added_and_a_fixed_delay_needs_no_measurement() -> None:
    follower = DelayFollower(offset=-0.1)
    note(follower, [0.4] * 5)
    assert follower.target() == pytest.approx(0.3)
    follower.set_offset(-1.0)
    assert follower.target() == pytest.approx(0.0)
    fixed = DelayFollower(offset=0.05, fixed=0.5)
    note(fixed, [0.9] * 20)
    assert fixed.target() == 0.55


def true_delay(now: float) -> float:
    """A step of 0.25 s at 20 s; from 40 to 70 s 0.2 s more, little by little."""
    return 0.45 + (0.25 if now >= 20 else 0.0) + 0.2 * min(max((now - 40) / 30, 0), 1)


def test_sound_stays_with_the_picture_through_a_step_and_a_creep() -> None:
    rng, follower, line = np.random.default_rng(4), DelayFollower(), DelayLine()
    errors = []
    for number, block in enumerate(blocks_of(voice(20.0)) * 4):
        now = number * BLOCK_SECONDS
        if number % 5 == 0:  # a picture, shown at the next tick of a clock of 20 a second
            jitter = 0.018 * abs(rng.standard_normal())
            follower.note(np.ceil((true_delay(now) + jitter) * FPS) / FPS, now)
        if (target := follower.target()) is not None:
            line.steer(target)
        line.push(block, now)
        line.pull(now + 0.02)
        errors.append(line.delay - true_delay(now))
    late = np.array(errors)
    steady = np.concatenate((late[200:2000], late[2200:4000], late[7300:]))
    assert ((steady > -0.02) & (steady < 0.075)).all()  # pictures wait for the tick: 50 ms
    creeping = late[4000:7000]
    assert np.mean((creeping > -0.045) & (creeping < 0.09)) > 0.9
    assert line.counts.cuts_in_speech <= 1
