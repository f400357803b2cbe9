"""When pictures are shown, for arrivals of every kind; time is simulated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.output.cadence import Cadence

PERIOD = 0.05
START = 1000.0


class Played:
    """What was shown: when, and the waits of those that were new."""

    def __init__(
        self, arrivals: list[float], until: float, late: dict[int, float] | None = None
    ) -> None:
        cadence, now = Cadence(20.0, START), START
        waiting = [START + at for at in arrivals]
        times: list[float] = []
        fresh: list[tuple[float, float]] = []
        arrived, is_new, self.left_out = 0.0, False, 0
        while now < START + until:
            due = cadence.due(is_new=is_new)
            if waiting and waiting[0] <= max(due, now):
                now = arrived = max(now, waiting.pop(0))
                is_new = True
                cadence.arrived(now)
                continue
            now = max(now, due) + (late or {}).get(len(times), 0.0)
            times.append(now - START)
            if is_new:
                fresh.append((now - START, now - arrived))
            is_new = False
            self.left_out += cadence.shown(now)
        self.times = np.array(times)
        self.gaps = np.diff(self.times)
        self.fresh = fresh

    def waits(self, after: float = 0.0) -> list[float]:
        return [wait for at, wait in self.fresh if at > after]

    def repeated(self, after: float) -> int:
        return int((self.times > after).sum()) - len(self.waits(after))

    def rates(self) -> np.ndarray:
        """The frame rate over each ten seconds, a picture more or less."""
        return np.concatenate(
            [ticks / (self.times[ticks:] - self.times[:-ticks]) for ticks in (199, 200, 201)]
        )


def share_of(rate: float, seconds: float, start: float = 0.0831) -> list[float]:
    """Return when the pictures of a source of `rate` come back: 20 a second of them."""
    times = start + np.arange(round(rate * seconds)) / rate
    ticks = np.floor((times - start) * 20 + 1e-6)
    return [float(at) for at in times[np.diff(ticks, prepend=-1) > 0]]


@pytest.mark.parametrize(
    ("rate", "p50", "p95"),
    [
        (20, 0.001, 0.001),
        (24, 0.009, 0.0255),
        (25, 0.008, 0.0225),
        (30, 0.001, 0.0095),
        (50, 0.001, 0.004),
        (60, 0.001, 0.001),
    ],
)
def test_what_returned_pictures_wait(rate: float, p50: float, p95: float) -> None:
    played = Played(share_of(rate, 50), 50)
    waits = played.waits(after=35)
    assert np.quantile(waits, 0.45) <= p50
    assert np.quantile(waits, 0.95) <= p95
    assert played.repeated(after=35) == 0


@pytest.mark.parametrize(
    ("rate", "jitter"),
    [(20.005, 0.0), (23.976, 0.003), (24, 0.0), (25, 0.02), (30, 0.0), (59.94, 0.02)],
)
def test_every_gap_and_the_rate_over_any_ten_seconds_stay_within_bounds(
    rate: float, jitter: float
) -> None:
    rng = np.random.default_rng(5)
    arrivals = np.array(share_of(rate, 45))
    arrivals = np.maximum.accumulate(arrivals + rng.uniform(0, jitter, len(arrivals)))
    played = Played(list(arrivals), 45)
    assert played.gaps.min() >= 0.035
    assert played.gaps.max() <= 0.065
    assert np.abs(played.rates() - 20).max() <= 0.02
    assert abs((len(played.times) - 1) / played.times[-1] - 20) <= 0.02


def test_without_arrivals_the_clock_shows_exactly_20_a_second() -> None:
    played = Played([], 30)
    assert played.gaps == pytest.approx(PERIOD, abs=1e-9)


@pytest.mark.parametrize("start", [0.0101, 0.0234, 0.0399])
def test_the_windows_meet_the_arrivals_within_half_a_minute(start: float) -> None:
    played = Played([start + number * PERIOD for number in range(900)], 44)
    assert max(played.waits(after=32)) <= 0.0005
    assert played.repeated(after=32) == 0


def test_the_windows_follow_a_clock_that_is_50_ppm_slower() -> None:
    arrivals = [0.02 + number * PERIOD * 1.00005 for number in range(3600)]
    played = Played(arrivals, 175)
    assert np.mean(played.waits(after=40)) < 0.001
    assert played.repeated(after=40) <= 3


def test_jitter_of_30_ms_repeats_less_than_one_picture_in_a_hundred() -> None:
    rng = np.random.default_rng(4)
    arrivals = np.array(share_of(20, 90)) + rng.uniform(0, 0.03, 1800)
    played = Played([float(at) for at in arrivals], 89)
    assert played.repeated(after=40) < 10
    assert np.median(played.waits(after=40)) < 0.012
    assert np.quantile(played.waits(after=40), 0.95) < 0.025


def test_after_a_stall_pictures_are_again_shown_when_they_arrive() -> None:
    arrivals = [at for at in share_of(20, 100) if not 50 < at < 53]
    played = Played(arrivals, 100)
    assert max(played.waits(after=54)) <= 0.0151
    assert np.median(played.waits(after=54)) == pytest.approx(0.0, abs=1e-9)


def test_a_path_that_becomes_longer_for_good_is_followed() -> None:
    arrivals = [at + (0.03 if at > 60 else 0.0) for at in share_of(20, 120)]
    played = Played(arrivals, 120)
    assert max(played.waits(after=95)) == pytest.approx(0.0, abs=1e-9)
    assert np.abs(played.rates() - 20).max() <= 0.02


def test_a_picture_that_was_late_once_makes_no_gap_too_short() -> None:
    played = Played(share_of(20, 60), 60, late={800: 0.03, 900: 0.21})
    assert played.gaps.min() >= 0.035 - 1e-9
    assert played.left_out == 4
    assert np.median(played.waits(after=48)) <= 0.001


@pytest.mark.parametrize("late", [{500: 0.045}, {500 + 7 * number: 0.049 for number in range(60)}])
def test_lateness_of_the_machine_delays_no_picture_after_it(late: dict[int, float]) -> None:
    played = Played(share_of(20, 80), 80, late)
    assert np.median(played.waits(after=25)[:500]) <= 0.005
    assert played.repeated(after=25) == 0
    assert len(played.times) + played.left_out == pytest.approx(80 * 20, abs=2)


def test_a_machine_that_is_always_late_leaves_pictures_out_and_never_catches_up_in_a_burst() -> (
    None
):
    slow = range(400, 800)
    played = Played(share_of(20, 100), 100, dict.fromkeys(slow, 0.045))
    assert len(played.times) + played.left_out == pytest.approx(100 * 20, abs=2)
    assert (played.gaps[slow.stop + 3 :] >= 0.045).all()


@settings(max_examples=20, deadline=None)
@given(
    intervals=st.lists(st.floats(0.0, 0.2), min_size=100, max_size=400),
    evenness=st.floats(0, 1),
)
def test_bounds_hold_whatever_arrives(intervals: list[float], evenness: float) -> None:
    mixed = evenness * PERIOD + (1 - evenness) * np.array(intervals)
    arrivals = list(np.cumsum(mixed))
    played = Played([float(at) for at in arrivals], max(15.0, float(arrivals[-1])))
    assert played.gaps.min() >= 0.035
    assert played.gaps.max() <= 0.065
    assert np.abs(played.rates() - 20).max() <= 0.02
    assert played.left_out == 0
