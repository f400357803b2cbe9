"""Decoding that is too slow: noticed, told, made up for, and given up again."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from threading import Event

import pytest

from relayd.errors import SourceLost
from relayd.media.frames import I420, Geometry, black
from relayd.media.skipping import INTRA_AFTER, PacketSkipper, SkipLevel
from relayd.media.sound import Hearing
from relayd.source.kinds import SourceKind
from relayd.source.playing import Playback, follow
from relayd.source.slowness import (
    CAUGHT_UP,
    FIRST_TRIAL,
    LEAP,
    LONGEST_TRIAL,
    NOTICED,
    PATIENCE,
    DecodingLoad,
    DecodingWatch,
    LiveEdge,
    WaitingShare,
)
from tests.support.clock import FakeClock

STEP = 1 / 30


class Decoder:
    """A live stream of 30 fps and the machine that decodes it, at so many times its speed."""

    def __init__(self, *speeds: float) -> None:
        """The speeds are those at each level."""
        self.load = DecodingLoad()
        self.speeds = dict(zip(SkipLevel, speeds, strict=True))
        self.spent = dict.fromkeys(SkipLevel, 0.0)
        self.now = self.pts = 0.0
        self.behind: list[float] = []
        self.levels: list[SkipLevel] = []

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            level = self.load.level
            self.pts += STEP
            began, self.now = self.now, max(self.pts, self.now + STEP / self.speeds[level])
            self.spent[level] += self.now - began
            self.behind.append(self.now - self.pts)
            self.levels.append(self.load.note(self.behind[-1], self.now))


def test_a_fast_machine_decodes_everything() -> None:
    decoder = Decoder(1.5, 1.5, 1.5)
    decoder.run(100)
    assert set(decoder.levels) == {SkipLevel.NOTHING}


def test_one_slow_moment_changes_nothing() -> None:
    load = DecodingLoad()
    assert load.note(5.0, 0.0) is SkipLevel.NOTHING
    assert load.note(0.1, PATIENCE) is SkipLevel.NOTHING
    assert load.note(5.0, PATIENCE * 2) is SkipLevel.NOTHING


def test_a_source_that_is_read_too_slowly_is_no_reason_to_leave_pictures_out() -> None:
    load = DecodingLoad()
    levels = {load.note(number * 0.1, float(number), waiting=True) for number in range(200)}
    assert levels == {SkipLevel.NOTHING}


def test_pictures_that_no_other_needs_are_left_out_first() -> None:
    decoder = Decoder(0.6, 1.6, 50.0)
    decoder.run(60)
    assert SkipLevel.ALL_BUT_KEYS not in decoder.levels
    assert max(decoder.behind) < LEAP
    assert decoder.spent[SkipLevel.UNREFERENCED] > 60 * 0.6


def test_what_is_never_enough_leaps_to_the_newest_key_picture_and_stays_near_it() -> None:
    decoder = Decoder(0.4, 0.4, 20.0)
    decoder.run(120)
    assert max(decoder.behind) < LEAP + NOTICED
    leaps = sum(b > a for a, b in pairwise(decoder.levels) if a is SkipLevel.UNREFERENCED)
    assert leaps >= 10
    assert decoder.spent[SkipLevel.ALL_BUT_KEYS] < 120 * 0.1


def test_a_machine_that_recovered_decodes_everything_again() -> None:
    decoder = Decoder(0.5, 1.5, 50.0)
    decoder.run(8)
    assert decoder.load.level > SkipLevel.NOTHING
    decoder.speeds[SkipLevel.NOTHING] = 2.0
    decoder.run(FIRST_TRIAL + 10)
    assert decoder.levels[-1] == SkipLevel.NOTHING
    assert decoder.behind[-1] <= CAUGHT_UP


def test_what_fails_again_and_again_is_tried_ever_more_seldom() -> None:
    decoder = Decoder(0.5, 3.0, 50.0)
    decoder.run(3600)
    tries = sum(b < a for a, b in pairwise(decoder.levels))
    assert 5 <= tries <= 3600 / LONGEST_TRIAL + 10


def test_a_live_stream_that_is_waited_for_is_never_behind() -> None:
    edge, now, pts = LiveEdge(), 50.0, 0.0
    for number in range(300):
        now += STEP + (2.0 if number % 100 == 50 else 0.0)  # the sender stops and goes on
        pts += STEP
        behind = edge.behind(pts, now, waiting=True)
    assert behind == 0.0


def test_a_live_stream_that_fills_every_buffer_is_as_far_behind_as_its_stamps() -> None:
    edge, behind = LiveEdge(), 0.0
    for number in range(550):
        behind = edge.behind(number / 30, 50 + number / 10 * 0.5, waiting=number == 0)
    assert behind == pytest.approx(549 / 20 - 549 / 30, rel=0.03)


def test_a_burst_at_the_start_is_no_delay() -> None:
    edge = LiveEdge()
    backlog = [edge.behind(n * STEP, 50 + n * 0.001, waiting=False) for n in range(60)]
    assert max(backlog) == 0.0
    assert edge.behind(60 * STEP, 50.06 + STEP, waiting=False) < 0.002


@pytest.mark.parametrize("jump", [1e6, -1e6, 26.5 * 3600])
def test_a_sender_that_sets_its_clock_is_no_later_than_before(jump: float) -> None:
    edge = LiveEdge()
    edge.behind(0.0, 50.0, waiting=True)
    assert edge.behind(1.0, 51.5, waiting=False) == pytest.approx(0.5, abs=0.01)
    assert edge.behind(jump, 51.54, waiting=False) == pytest.approx(0.5, abs=0.1)


def test_a_clock_that_drifts_is_no_delay() -> None:
    edge = LiveEdge()
    behind = [edge.behind(n * 0.9999, 50.0 + n, waiting=False) for n in range(36000)]
    assert max(behind) < 0.1


def test_the_share_of_waiting_tells_a_slow_network_from_a_slow_machine() -> None:
    waiting, working = WaitingShare(), WaitingShare()
    for number in range(200):
        now = number * STEP
        shares = waiting.note(now * 0.5, now), working.note(now * 0.01, now)
    assert shares[0] == pytest.approx(0.5, abs=0.01)
    assert shares[1] == pytest.approx(0.01, abs=0.01)


def test_a_source_that_is_far_behind_is_never_silent(capsys: pytest.CaptureFixture[str]) -> None:
    watch = DecodingWatch()
    assert watch.text == ""
    for number in range(130):
        watch.note(31.0 * number / 129, float(number))
    assert watch.text == "decoding is too slow: 31 s behind"
    assert watch.behind == pytest.approx(31.0)
    assert capsys.readouterr().out.count("source.too_slow") in (2, 3)  # one a minute
    watch.note(0.1, 130.0)
    assert watch.text == "decoding is too slow: some pictures are left out"
    for number in range(131, 150):
        watch.note(0.1, float(number))
    assert watch.text == ""
    assert "source.keeps_up" in capsys.readouterr().out


def test_a_player_that_leaves_out_pictures_itself_is_not_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = DecodingWatch()
    for number in range(20):  # each leap takes it back before it counts as slow
        watch.note(0.5, number * 0.3)
        assert watch.note_left_out(1.1, number * 0.3 + 0.1) is SkipLevel.UNREFERENCED
    assert watch.text == "decoding is too slow: 1 s behind"
    assert capsys.readouterr().out.count("source.too_slow") == 1


def wanted(skipper: PacketSkipper, keys: str) -> str:
    """Return which packets of a stream are decoded; `K` is a key, `p` another picture."""
    return "".join(key for key in keys if skipper.wants(is_key=key == "K"))


def test_between_keys_nothing_is_decoded_until_the_next_key() -> None:
    skipper = PacketSkipper()
    assert wanted(skipper, "KppKp") == "KppKp"
    skipper.level = SkipLevel.ALL_BUT_KEYS
    assert wanted(skipper, "ppKppKp") == "KK"
    skipper.level = SkipLevel.NOTHING
    assert wanted(skipper, "ppKpp") == "Kpp"


def test_what_other_pictures_need_is_left_to_the_decoder() -> None:
    skipper = PacketSkipper()
    skipper.level = SkipLevel.UNREFERENCED
    assert wanted(skipper, "KppppKpp") == "KppppKpp"


@pytest.mark.parametrize(
    ("level", "share"),
    [(SkipLevel.NOTHING, 1), (SkipLevel.UNREFERENCED, 2), (SkipLevel.ALL_BUT_KEYS, 8)],
)
def test_of_pictures_that_are_all_keys_some_are_left_out(level: SkipLevel, share: int) -> None:
    skipper = PacketSkipper()
    wanted(skipper, "K" * INTRA_AFTER)
    skipper.level = level
    assert len(wanted(skipper, "K" * 80)) == 80 // share


class SlowInput:
    """Simulates a live stream of 30 fps with a key each second, of which few can be decoded."""

    width, height, rate, codec, corrupt, finite = 96, 72, 30.0, "slow", 0, False
    KEY_EACH, DECODING = 30, 0.1
    sound = None

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock, self._began, self._seconds = clock, clock.now(), seconds
        self._skipper = PacketSkipper()
        self.waited, self.pts = 0.0, 0.0

    def skip(self, level: SkipLevel) -> None:
        self._skipper.level = level

    def pictures(self, on_skipped: Callable[[], None]) -> Iterator["SlowInput"]:
        for number in range(int(self._seconds * 30)):
            self.pts = number / 30
            wait = max(0.0, self._began + self.pts - self._clock.now())
            self._clock.time += wait
            self.waited += wait
            if self._skipper.wants(is_key=number % self.KEY_EACH == 0):
                self._clock.time += self.DECODING
                yield self
            else:
                on_skipped()

    def i420(self) -> I420:
        return black(Geometry(96, 72))

    def hear(self, hearing: Hearing) -> None: ...

    def close(self) -> None: ...


def test_a_live_stream_that_is_too_heavy_stays_near_its_edge_and_moves() -> None:
    clock, shown = FakeClock(), list[tuple[float, float]]()
    source = SlowInput(clock, 120.0)

    def publish(_: I420) -> bool:
        shown.append((clock.now(), source.pts))
        return True

    playback = Playback(
        source,  # type: ignore[arg-type]  # a simulation
        kind=SourceKind.LIVE,
        clock=clock,
        abandoned=Event(),
        publish=publish,
        open_again=lambda: pytest.fail("a live stream is not opened again by itself"),
    )
    began = clock.now()
    with pytest.raises(SourceLost):
        follow(playback)
    behind = [at - began - pts for at, pts in shown]
    assert max(behind) < LEAP + NOTICED  # it would be 80 s at the end
    assert max(b - a for (a, _), (b, _) in pairwise(shown)) < 1.5  # no stall, no frozen picture
    assert len({pts for _, pts in shown}) > 120 * 5
