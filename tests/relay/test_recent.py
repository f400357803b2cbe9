"""Measurements of the last seconds."""

import numpy as np
import pytest

from relayd.media.delay import Spread
from relayd.relay.recent import Recent, spread_of_sum


@pytest.mark.parametrize("fps", [5, 20, 60])
def test_what_is_older_than_the_window_is_forgotten_at_any_rate(fps: int) -> None:
    recent = Recent(60.0)
    for number in range(100 * fps):
        recent.add(float(number < 30 * fps), number / fps)
    assert len(recent.numbers()) == 60 * fps + 1
    assert set(recent.numbers()) == {0.0}
    assert recent.rate() == pytest.approx(fps)


def test_there_is_no_rate_before_there_are_two() -> None:
    recent = Recent(5.0)
    assert recent.rate() == 0.0
    recent.add(1.0, 10.0)
    assert recent.rate() == 0.0
    recent.add(1.0, 10.0)  # at the same moment
    assert recent.rate() == 0.0


def test_the_spread_of_a_sum_is_that_of_all_pairs_within_a_few_percent() -> None:
    random = np.random.default_rng(1)
    first = random.lognormal(-5.0, 0.8, 1200)
    second = random.gamma(2.0, 0.01, 900)
    found = spread_of_sum(first.tolist(), second.tolist())
    p50, p95 = np.percentile(np.add.outer(first, second), (50, 95))
    assert found.p50 == pytest.approx(p50, rel=0.02)
    assert found.p95 == pytest.approx(p95, rel=0.03)
    assert found.count == 900


def test_of_one_measurement_each_the_spread_is_their_sum() -> None:
    assert spread_of_sum([0.25], [0.5]) == Spread(0.75, 0.75, 1)


def test_without_one_half_nothing_is_known() -> None:
    assert spread_of_sum([], [1.0]) == spread_of_sum([1.0], []) == Spread()
