"""The order, the repair and the delay of returned sound, in simulated time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.rtc.webrtc.playout import DEPTH, Playout
from relayd.sound.blocks import BLOCK, RATE, Samples

PACKET = 960
SECONDS = PACKET / RATE


def decode(payload: bytes) -> np.ndarray:
    return np.frombuffer(payload, np.int16)


def packet(number: int, level: int | None = None) -> bytes:
    """One packet of a slow wave, by which each sample tells its place."""
    at = number * PACKET + np.arange(PACKET)
    return (
        (np.sin(at / 50) * 8000).astype(np.int16).tobytes()
        if level is None
        else (np.full(PACKET, level, np.int16).tobytes())
    )


class Path:
    """Sends a packet each 20 ms and plays what arrives, by a simulated clock."""

    def __init__(self, first: int = 0) -> None:
        self.playout = Playout(decode)
        self.blocks: list[tuple[Samples, float]] = []
        self.first = first

    def run(self, arrivals: dict[int, float]) -> None:
        """Deliver each packet of that number at that time, and play what is due meanwhile."""
        for number, at in sorted(arrivals.items(), key=lambda one: one[1]):
            self._play_until(at)
            self.playout.put((number + self.first) % 65536, packet(number), at)

    def _play_until(self, end: float) -> None:
        while self.playout.due <= end:
            self.blocks += self.playout.take(self.playout.due)

    def finish(self) -> np.ndarray:
        self._play_until(1e9)
        return np.concatenate([samples for samples, _ in self.blocks])

    def delay_of(self, number: int) -> float | None:
        """Seconds from the sending of a packet until it is played; None if it never is."""
        wanted = decode(packet(number))[:BLOCK]
        for samples, at in self.blocks:
            if np.array_equal(samples, wanted):
                return at - number * SECONDS
        return None


def even(count: int) -> dict[int, float]:
    return {number: number * SECONDS for number in range(count)}


def wave(count: int) -> np.ndarray:
    return np.concatenate([decode(packet(number)) for number in range(count)])


def test_sound_of_an_even_path_comes_out_as_it_was_depth_later() -> None:
    path = Path()
    path.run(even(50))
    heard = path.finish()
    assert np.array_equal(heard[240 : 50 * PACKET], wave(50)[240:])  # it begins with a fade
    times = [at for _, at in path.blocks]
    assert times[0] == pytest.approx(DEPTH)
    assert np.diff(times) == pytest.approx(BLOCK / RATE)


def test_packets_that_overtook_each_other_are_put_in_order() -> None:
    path = Path()
    arrivals = even(50)
    arrivals[20] += SECONDS * 1.3
    path.run(arrivals)
    assert np.array_equal(path.finish()[240 : 50 * PACKET], wave(50)[240:])
    assert path.playout.counts.lost == 0


@pytest.mark.parametrize("lost", [{20}, {20, 21}, {20, 21, 22}, {20, 40, 41, 60}])
def test_lost_packets_leave_no_delay_behind(lost: set[int]) -> None:
    path = Path()
    path.run({number: at for number, at in even(150).items() if number not in lost})
    heard = path.finish()
    assert path.delay_of(10) == pytest.approx(DEPTH)
    assert path.delay_of(140) == pytest.approx(DEPTH)
    assert path.playout.counts.lost == len(lost)
    begin = 20 * PACKET
    assert np.array_equal(heard[240:begin], wave(20)[240:])


def test_a_loss_of_more_than_is_concealed_leaves_no_delay_behind_either() -> None:
    path = Path()
    path.run({number: at for number, at in even(150).items() if not 20 <= number < 28})
    path.finish()
    assert path.delay_of(140) == pytest.approx(DEPTH)
    assert path.playout.counts.dried == 2  # then, and at the end


def test_a_loss_is_heard_without_a_click() -> None:
    path = Path()
    path.run({number: at for number, at in even(60).items() if number not in {20, 30, 31}})
    steps = np.abs(np.diff(path.finish()[: 59 * PACKET].astype(int)))
    assert steps.max() <= np.abs(np.diff(wave(60).astype(int))).max() * 1.5


def test_a_packet_after_its_turn_is_not_played() -> None:
    path = Path()
    arrivals = even(50)
    arrivals[20] += 0.2
    path.run(arrivals)
    path.finish()
    assert path.delay_of(20) is None
    assert path.delay_of(45) == pytest.approx(DEPTH)


def test_after_a_pause_of_the_path_the_delay_is_back_within_two_seconds() -> None:
    path = Path()
    arrivals = even(300)
    arrivals |= {number: max(at, 2.6) for number, at in arrivals.items() if at > 2.1}
    path.run(arrivals)
    path.finish()
    back = path.delay_of(round(4.6 / SECONDS))
    assert back is not None
    assert back < DEPTH + 0.021


def test_delay_that_a_slow_second_left_behind_is_taken_out_within_two_seconds() -> None:
    path = Path()
    arrivals = {n: at + (0.08 if 2 < at < 3 else 0) for n, at in even(300).items()}
    path.run(arrivals)
    path.finish()
    later = path.delay_of(round(5.2 / SECONDS))
    assert later is not None
    assert later < DEPTH + 0.021


def test_a_path_that_became_slower_for_good_is_followed() -> None:
    path = Path()
    path.run({n: at + (0.15 if at > 2 else 0) for n, at in even(300).items()})
    path.finish()
    later = path.delay_of(280)
    assert later is not None
    assert 0.15 < later < 0.15 + DEPTH + 0.03


def test_a_silent_sender_is_not_made_up_for_and_begins_anew() -> None:
    path = Path()
    arrivals = {number: at for number, at in even(50).items() if number < 20}
    arrivals |= {number: at + 3 for number, at in even(50).items() if number >= 20}
    path.run(arrivals)
    path.finish()
    times = np.array([at for _, at in path.blocks])
    assert np.diff(times).max() > 2.5
    assert path.playout.counts.dried >= 1
    first_again = times[np.argmax(np.diff(times)) + 1]
    assert first_again == pytest.approx(20 * SECONDS + 3 + DEPTH)


def test_a_caller_that_was_away_gets_no_burst() -> None:
    playout = Playout(decode)
    for number in range(100):
        playout.put(number, packet(number), 0.0)
    assert len(playout.take(2.0)) <= 8
    assert playout.due > 2.0


def test_the_sequence_number_may_wrap() -> None:
    path = Path(first=65520)
    path.run(even(60))
    assert np.array_equal(path.finish()[240 : 60 * PACKET], wave(60)[240:])


def test_another_stream_begins_anew() -> None:
    playout = Playout(decode)
    playout.put(100, packet(0), 0.0)
    playout.take(DEPTH)
    playout.put(30_000, packet(7), 0.02)
    assert playout.due == pytest.approx(0.02 + DEPTH)
    assert len(playout.take(playout.due)) == 2


def test_a_packet_that_cannot_be_decoded_counts_as_lost() -> None:
    path = Path()
    path.run(even(10))
    path.playout.put(10, b"", 10 * SECONDS)
    path.finish()
    assert path.playout.counts.lost == 1


@pytest.mark.parametrize("length", [120, 240, 480, 1920, 2880])
def test_packets_of_any_length_become_blocks(length: int) -> None:
    playout, blocks = Playout(decode), []
    for number in range(48):
        at = number * length / RATE
        while playout.due <= at:
            blocks += playout.take(playout.due)
        playout.put(number, np.full(length, 1000, np.int16).tobytes(), at)
    while playout.due < 1e9 and len(blocks) < 48 * length // BLOCK:
        blocks += playout.take(playout.due)
    heard = np.concatenate([samples for samples, _ in blocks])[240 : 48 * length]
    assert (heard == 1000).all()
    assert all(len(samples) == BLOCK for samples, _ in blocks)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.3)), min_size=5, max_size=80))
def test_whatever_the_path_does_blocks_are_even_and_the_delay_returns(
    fates: list[tuple[bool, float]],
) -> None:
    path = Path()
    arrivals = {
        number: number * SECONDS + late for number, (lost, late) in enumerate(fates) if not lost
    }
    count = len(fates)
    arrivals |= {number: number * SECONDS for number in range(count, count + 150)}
    path.run(arrivals)
    path.finish()
    times = np.diff([at for _, at in path.blocks])
    assert (times > BLOCK / RATE - 1e-6).all()
    last = path.delay_of(count + 145)
    assert last is not None
    assert last < DEPTH + 0.03
