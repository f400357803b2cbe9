"""When sound belongs, and how it is cut into blocks: pure functions and a clock of the test's."""

from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.media.sound import SoundPiece
from relayd.sound.blocks import BLOCK, RATE, OwnSound
from relayd.source.hearing import LEAD, MOST_AHEAD, LiveHearing, TimedHearing
from relayd.source.sound_blocks import FADE, HOLE, BlockMaker, clipped
from relayd.source.sound_times import JUMP, WINDOW, LiveTimes, ScheduledTimes
from tests.support.clock import FakeClock


def ones(seconds: float) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    return np.full(round(seconds * RATE), 1000, np.int16)


def test_sound_belongs_beside_the_picture_of_its_stamp() -> None:
    times = ScheduledTimes()
    assert times.at(0.0) is None
    for number in range(100):
        times.note(number / 25, 50 + number / 25)
    assert times.at(3.0) == pytest.approx(53.0)
    assert times.at(4.5) == pytest.approx(54.5)


def test_sound_takes_the_step_that_the_schedule_put_in_place_of_a_jump() -> None:
    times = ScheduledTimes()
    for number in range(25):
        times.note(number / 25, 50 + number / 25)
    for number in range(25):
        times.note(3600 + number / 25, 51 + number / 25)
    assert times.at(0.9) == pytest.approx(50.9)
    assert times.at(3600.5) == pytest.approx(51.5)


def test_of_two_pictures_with_the_same_stamp_the_one_that_goes_on_counts() -> None:
    times = ScheduledTimes()
    for number in range(50):
        times.note(number % 25 / 25, 50 + number / 25)
    assert times.at(0.4, 50.41) == pytest.approx(50.4)
    assert times.at(0.4, 51.39) == pytest.approx(51.4)


def test_live_sound_follows_the_median_of_the_pictures() -> None:
    times, jitter = LiveTimes(), (0.0, 0.03, 0.0, 0.0, 0.05)
    for number in range(100):
        times.note(number / 25, 10 + number / 25 + jitter[number % 5])
    assert times.at(4.0, 14.0, 0.02) == pytest.approx(14.0)


def test_pictures_that_were_held_back_at_the_start_count_only_until_newer_ones_come() -> None:
    times = LiveTimes()
    for number in range(20):  # all at once, as probing ends
        times.note(number / 25, 11.0)
    for number in range(20, 25):
        times.note(number / 25, 10.2 + number / 25)
    assert times.at(1.0, 11.2, 0.02) == pytest.approx(11.2, abs=0.01)


def test_a_small_change_is_followed_so_slowly_that_nobody_hears_it() -> None:
    times, places = LiveTimes(), list[float]()
    for number in range(200):
        at = 10 + number / 25 + (0.05 if number >= 100 else 0.0)
        times.note(number / 25, at)
        placed = times.at(number / 25, at, 0.02)
        assert placed is not None
        places.append(placed)
    assert np.diff(places) == pytest.approx(1 / 25, rel=0.01)


def test_a_large_change_is_followed_at_once() -> None:
    times = LiveTimes()
    times.note(0.0, 10.0)
    assert times.at(0.0, 10.0, 0.02) == 10.0
    for number in range(60):
        times.note(4 + number / 25, 14 + JUMP + 0.1 + number / 25)
    assert times.at(6.0, 16.1, 0.02) == pytest.approx(16 + JUMP + 0.1)


@pytest.mark.parametrize("pts", [None, 5000.0, -5000.0])
def test_live_sound_whose_stamp_means_nothing_belongs_to_its_arrival(pts: float | None) -> None:
    times = LiveTimes()
    times.note(0.0, 10.0)
    assert times.at(pts, 12.0, 0.5) == 11.5


def test_before_the_first_live_picture_nobody_knows_where_sound_belongs() -> None:
    assert LiveTimes().at(0.0, 10.0, 0.02) is None


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_blocks_hold_every_sample_once_and_in_order(lengths: list[int]) -> None:
    maker, whole = BlockMaker(), np.arange(sum(lengths)) % 30000
    blocks: list[OwnSound] = []
    place = 0
    for length in lengths:
        piece = whole[place : place + length].astype(np.int16)
        blocks += maker.put(piece, 5 + place / RATE)
        place += length
    blocks += maker.finish()
    joined = np.concatenate([block.samples for block in blocks])
    assert (joined[: len(whole)] == whole).all()
    assert not joined[len(whole) :].any()
    assert [block.at for block in blocks] == pytest.approx(
        [5 + number * 0.01 for number in range(len(blocks))]
    )


def test_rounded_stamps_make_no_uneven_blocks() -> None:
    maker, blocks = BlockMaker(), list[OwnSound]()
    for number in range(400):
        at = number * 1024 / 44100
        blocks += maker.put(ones(1024 / 44100), round(at, 3))
    assert maker.breaks == 0
    assert np.diff([block.at for block in blocks]) == pytest.approx(0.01, abs=0.0006)
    assert blocks[-1].at == pytest.approx(400 * 1024 / 44100, abs=0.03)


def test_a_hole_leaves_what_follows_in_its_place() -> None:
    maker = BlockMaker()
    before = maker.put(ones(0.025), 1.0)
    after = maker.put(ones(0.02), 1.025 + HOLE + 0.1)
    assert [block.at for block in before] == pytest.approx([1.0, 1.01])
    assert after[0].at == pytest.approx(1.02)
    assert after[0].samples.tolist() == [1000] * 240 + [0] * 240
    assert after[1].at == pytest.approx(1.025 + HOLE + 0.1)
    assert maker.breaks == 1


def test_sound_is_faded_at_both_ends_of_a_round_and_cut_there() -> None:
    kept, at = clipped(ones(0.1), 0.97, 1.0, 1.05)
    assert at == pytest.approx(1.0)
    assert len(kept) == round(0.05 * RATE)
    assert kept[0] == 0
    assert kept[-1] < 10
    assert (kept[FADE + 1 : -FADE - 1] == 1000).all()


def test_sound_outside_of_a_round_is_left_out() -> None:
    assert len(clipped(ones(0.1), 0.5, 1.0, 2.0)[0]) == 0
    assert len(clipped(ones(0.1), 2.5, 1.0, 2.0)[0]) == 0


class SteppedClock(FakeClock):
    """Time that only the hearing's thread moves, from `go` on until `until`."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until
        self.go, self.done = Event(), Event()

    def sleep_until(self, moment: float, stop: Event) -> bool:
        self.go.wait(5)
        if moment > self._until:
            self.done.set()
            stop.wait(5)
        self.time = moment
        return stop.is_set()


def spoken(hearing: TimedHearing, start: float, seconds: float) -> None:
    for number in range(round(seconds * 50)):
        hearing.put(SoundPiece(ones(0.02), start + number / 50))


def test_sound_is_handed_on_shortly_before_it_is_due() -> None:
    clock, leads = SteppedClock(until=102.0), list[float]()
    with TimedHearing(lambda block: leads.append(block.at - clock.now()), clock) as hearing:
        hearing.note_picture(0.0, 100.3)
        spoken(hearing, 0.0, 1.0)
        clock.go.set()
        assert clock.done.wait(5)
    assert len(leads) == 100
    assert max(leads) < LEAD + 0.02
    assert min(leads) > 0


def test_what_is_not_due_yet_is_not_heard_after_the_end() -> None:
    clock, heard = SteppedClock(until=100.0), list[OwnSound]()
    with TimedHearing(heard.append, clock) as hearing:
        hearing.note_picture(0.0, 100.0)
        spoken(hearing, 0.0, 5.0)
        clock.go.set()
        assert clock.done.wait(5)
    assert len(heard) <= round((LEAD + 0.1) * 100)


def test_a_round_is_heard_up_to_its_end_and_the_next_from_there() -> None:
    clock, heard = SteppedClock(until=103.0), list[OwnSound]()
    with TimedHearing(heard.append, clock) as hearing:
        hearing.note_picture(0.0, 100.5)
        spoken(hearing, 0.0, 1.5)  # longer than the pictures
        hearing.next_round(101.5)
        hearing.note_picture(7.0, 101.5)
        spoken(hearing, 7.0, 0.5)
        clock.go.set()
        assert clock.done.wait(5)
    sound = np.concatenate([block.samples for block in heard])
    assert heard[0].at == pytest.approx(100.5)
    assert len(sound) == pytest.approx(1.5 * RATE, abs=2)
    seam = np.flatnonzero(sound == 0)
    assert seam == pytest.approx(RATE, abs=10)
    assert abs(np.diff(sound.astype(int))).max() < 10  # faded out, and in again


def test_more_than_a_minute_ahead_is_left_out() -> None:
    hearing = TimedHearing(lambda _: None, FakeClock())
    hearing.stop()
    spoken(hearing, 0.0, 1.0)
    assert hearing.is_full
    assert hearing.left_out == 50
    assert MOST_AHEAD == 60.0


def test_a_live_stream_without_sound_for_longer_than_the_window_goes_on_in_step() -> None:
    clock, heard = FakeClock(), list[OwnSound]()
    hearing = LiveHearing(heard.append, clock)
    for number in range(round((WINDOW + 2) * 25)):
        clock.time = 100 + number / 25
        hearing.note_picture(number / 25, clock.time)
    hearing.put(SoundPiece(ones(BLOCK / RATE), 3.96))
    assert [block.at for block in heard] == pytest.approx([103.96])
