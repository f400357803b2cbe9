"""What is read of the sound in containers of all kinds, without a clock."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relayd.errors import SourceLost
from relayd.media.frames import luma
from relayd.media.picture import CodedPicture
from relayd.media.reading_ahead import LONGEST, LONGEST_WAIT, read_ahead
from relayd.media.sound import SoundPiece
from relayd.sound.blocks import RATE
from tests.support.inputs import opened
from tests.support.sounding import LOUD, Sounding, damage, write, write_twice

SECONDS = 2.0
PICTURES = 50
WHOLE = {
    "plain.mp4": Sounding(SECONDS),
    "chunked.mp4": Sounding(SECONDS, options=(("chunk_duration", "1000000"),)),
    "fragmented.mp4": Sounding(SECONDS, options=(("movflags", "frag_keyframe+empty_moov"),)),
    "stereo.ts": Sounding(SECONDS, rate=44100, layout="stereo"),
    "surround.mkv": Sounding(SECONDS, codec="ac3", layout="5.1"),
    "telephone.mkv": Sounding(SECONDS, rate=8000, codec="pcm_s16le"),
    "plain.flv": Sounding(SECONDS),
    "opus.mkv": Sounding(SECONDS, codec="libopus"),
}
ODD = {
    "late.mp4": Sounding(SECONDS, sound_from=1.4),
    "late.ts": Sounding(SECONDS, sound_from=1.4),
    "late.flv": Sounding(SECONDS, sound_from=1.4),
    "short.mp4": Sounding(SECONDS, sound_to=0.5),
    "hole.ts": Sounding(SECONDS, hole=(0.6, 1.1)),
    "jump.ts": Sounding(SECONDS, jump_at=1.0, jump=3600.0),
    "none.mp4": Sounding(SECONDS, with_sound=False),
}


class Ear:
    """Hears everything, or nothing."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.is_full = is_full
        self.pieces: list[SoundPiece] = []

    def put(self, piece: SoundPiece) -> None:
        self.pieces.append(piece)

    def beeps(self) -> list[float]:
        """Stamps at which it became loud, after 50 ms of quiet."""
        found, loud_at = list[float](), -1.0
        for piece in self.pieces:
            assert piece.pts is not None
            loud = piece.pts + np.flatnonzero(np.abs(piece.samples.astype(np.int32)) > LOUD) / RATE
            if len(loud):
                if abs(loud[0] - loud_at) > 0.05:
                    found.append(float(loud[0]))
                loud_at = float(loud[-1])
        return found


def seen_and_heard(path: Path, ear: Ear, **how: Any) -> tuple[list[float], int]:
    """Return the stamps of the flashes, and the number of pictures."""
    flashes, lit, count = list[float](), True, 0
    with opened(path, with_sound=True, **how) as source:
        source.hear(ear)
        for picture in source.pictures():
            count += 1
            was, lit = lit, bool(luma(picture.i420()).mean() > 120)
            if lit and not was:
                assert picture.pts is not None
                flashes.append(picture.pts)
    return flashes, count


@pytest.mark.parametrize("name", WHOLE)
def test_sound_of_any_form_is_stamped_as_the_pictures_beside_it(tmp_path: Path, name: str) -> None:
    ear = Ear()
    flashes, count = seen_and_heard(write(tmp_path / name, WHOLE[name]), ear)
    assert count == PICTURES
    assert len(flashes) == 4
    assert ear.beeps() == pytest.approx(flashes, abs=0.015)
    assert sum(len(piece.samples) for piece in ear.pieces) / RATE == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ODD)
def test_odd_or_missing_sound_costs_no_picture(tmp_path: Path, name: str) -> None:
    ear = Ear()
    flashes, count = seen_and_heard(write(tmp_path / name, ODD[name]), ear)
    assert count == PICTURES
    assert all(min(abs(beep - flash) for flash in flashes) < 0.015 for beep in ear.beeps())


def test_rubbish_in_place_of_sound_costs_no_picture(tmp_path: Path) -> None:
    ear = Ear()
    path = damage(write(tmp_path / "damaged.mp4", WHOLE["plain.mp4"]))
    with opened(path, with_sound=True) as source:
        source.hear(ear)
        assert len(list(source.pictures())) == PICTURES
        assert source.corrupt == 0
    assert ear.beeps() == []


def test_stamps_that_begin_again_cost_no_picture(tmp_path: Path) -> None:
    ear = Ear()
    flashes, count = seen_and_heard(write_twice(tmp_path / "twice.ts", Sounding(SECONDS)), ear)
    assert count == 2 * PICTURES
    assert ear.beeps() == pytest.approx(flashes, abs=0.015)


def test_sound_without_a_decoder_counts_as_none(tmp_path: Path) -> None:
    path = write(tmp_path / "unknown.mp4", Sounding(SECONDS))
    content = path.read_bytes()
    assert content.count(b"mp4a") == 1
    path.write_bytes(content.replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    with opened(path, with_sound=True) as source:
        assert source.sound is None
        assert len(list(source.pictures())) == PICTURES


def test_what_came_before_somebody_heard_is_kept_until_a_seek(tmp_path: Path) -> None:
    with opened(write(tmp_path / "plain.mp4", WHOLE["plain.mp4"]), with_sound=True) as source:
        first, again = Ear(), Ear()
        pictures = source.pictures()
        next(pictures)
        source.hear(first)
        assert first.pieces[0].pts == pytest.approx(0, abs=0.03)
        list(pictures)
        heard = len(first.pieces)
        assert source.rewind()
        list(source.pictures())
        assert len(first.pieces) == heard
        source.hear(again)
        assert again.beeps() == pytest.approx(first.beeps())


def test_sound_that_nobody_has_room_for_is_not_decoded(tmp_path: Path) -> None:
    ear = Ear(is_full=True)
    _, count = seen_and_heard(write(tmp_path / "plain.mp4", WHOLE["plain.mp4"]), ear)
    assert (count, ear.pieces) == (PICTURES, [])


def test_a_recording_is_read_on_until_the_sound_of_a_picture_is_there(tmp_path: Path) -> None:
    """The sound of a fragment stands behind its pictures."""
    ear, late = Ear(), list[float]()
    path = write(tmp_path / "fragmented.mp4", WHOLE["fragmented.mp4"])
    with opened(path, with_sound=True) as source:
        source.hear(ear)
        for picture in source.pictures():
            assert picture.pts is not None
            newest = ear.pieces[-1]
            assert newest.pts is not None
            late.append(picture.pts - newest.pts)
    assert max(late[:-3]) < 0.03  # in the encoder's last packet the sound ends earlier


class Packet:
    """A packet of pictures with a stamp."""

    size = 1000

    def __init__(self, stamp: float) -> None:
        self.stamp = stamp


class Silent:
    """A stream of sound that never comes."""

    newest: float | None = None


def test_sound_that_never_comes_holds_two_seconds_of_packets_at_most() -> None:
    read = 0

    def packets() -> Iterator[Packet]:
        nonlocal read
        for number in range(200):
            read = number
            yield Packet(number / 20)

    handed = read_ahead(packets(), Silent(), lambda: 0.0)  # type: ignore[arg-type]  # stand-ins
    next(handed)
    assert read / 20 == pytest.approx(LONGEST)
    assert len(list(handed)) == 199


def test_a_slow_server_holds_no_picture_back_for_its_sound() -> None:
    waited = 0.0

    def packets() -> Iterator[Packet]:
        nonlocal waited
        for number in range(200):
            waited += 0.05
            yield Packet(number / 20)

    handed: Iterator[CodedPicture] = read_ahead(
        packets(),  # type: ignore[arg-type]  # stand-ins
        Silent(),  # type: ignore[arg-type]
        lambda: waited,
    )
    next(handed)
    assert waited < LONGEST_WAIT + 0.11


def test_what_was_read_before_a_failure_is_shown() -> None:
    def packets() -> Iterator[Packet]:
        yield Packet(0.0)
        yield Packet(0.1)
        raise SourceLost("gone")

    handed = read_ahead(packets(), Silent(), lambda: 0.0)  # type: ignore[arg-type]  # stand-ins
    assert [next(handed).stamp, next(handed).stamp] == [0.0, 0.1]
    with pytest.raises(SourceLost):
        next(handed)
