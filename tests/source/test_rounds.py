"""Looped recordings: each round shows every picture, in order, without a gap."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from relayd.config.settings import SourceSettings
from relayd.errors import SourceError
from relayd.media.frames import I420, Geometry
from relayd.source.connection import SourceConnection
from relayd.urls.safe import MediaUrl
from tests.support.clock import FakeClock
from tests.support.numbered import (
    B_FRAMES,
    H265,
    QUICK_VP8,
    RATE,
    make_clip,
    number_of,
)

SMALL = Geometry(96, 72)
COUNT = 12
STEP = 1 / RATE


@dataclass
class Played:
    """What a connection showed: the numbers of the pictures, and when."""

    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    error: SourceError | None = None

    @property
    def changes(self) -> tuple[list[int], list[float]]:
        """The pictures without those that only stand, and the seconds from each to the next."""
        kept = [
            n for n in range(len(self.numbers)) if not n or self.numbers[n] != self.numbers[n - 1]
        ]
        times = [self.times[n] for n in kept]
        return [self.numbers[n] for n in kept], [
            b - a for a, b in zip(times, times[1:], strict=False)
        ]


class ShowingClock(FakeClock):
    """Time that only the thread which shows pictures moves; the decoding thread waits for it."""

    MOST_WAITED = 0.2
    """s of real time after which the other thread waits for something else than time."""

    def __init__(self) -> None:
        super().__init__()
        self._moved = threading.Condition()

    def sleep_until(self, moment: float, stop: Event) -> bool:
        with self._moved:
            if threading.current_thread().name != "relayd-source-show":
                self._moved.wait_for(lambda: self.time >= moment or stop.is_set(), self.MOST_WAITED)
            self.time = max(self.time, moment)
            self._moved.notify_all()
        return stop.is_set()


class Player:
    """Plays a source on a clock that only showing moves, until enough pictures were shown."""

    def __init__(self, url: str | Path, pictures: int, **settings: Any) -> None:
        self.played = Played()
        self._enough = pictures
        self.clock = ShowingClock()
        self.on_picture: Callable[[int], None] = lambda number: None
        self.connection = SourceConnection(
            SourceSettings(url=MediaUrl(str(url)), **settings),
            SMALL,
            "stretch",
            clock=self.clock,
            wake=Event(),
            publish=self._publish,
        )

    def play(self, within: float = 10.0) -> Played:
        self.connection.start()
        assert self.connection.ended.wait(within), f"only {len(self.played.numbers)} pictures"
        assert self.connection.join(2.0)
        self.played.error = self.connection.error
        return self.played

    def _publish(self, _: SourceConnection, i420: I420) -> bool:
        if len(self.played.numbers) >= self._enough:
            self.connection.abandon()
            return False
        self.played.numbers.append(number_of(i420))
        self.played.times.append(self.clock.now())
        self.on_picture(len(self.played.numbers))
        return True


def in_rounds(pictures: int, count: int = COUNT) -> list[int]:
    return [number % count for number in range(pictures)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rounds")


CLIPS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": B_FRAMES},
    "plain.mov": {},
    "b_frames.mkv": {"options": B_FRAMES},
    "vp8.webm": {"codec": "libvpx", "options": QUICK_VP8},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"b": "2M"}},
    "key_frames.ts": {"gop": 5},
    "b_frames.ts": {"gop": 250, "options": B_FRAMES},
    "one_gop.m2ts": {"gop": 250, "muxer": "mpegts", "muxer_options": {"mpegts_m2ts_mode": "1"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"b": "2M", "bf": "2"}, "muxer": "vob"},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": {"b": "2M"}, "muxer": "mpeg"},
    "plain.flv": {},
    "anim.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "raw.h264": {"options": B_FRAMES},
    "raw.hevc": {"codec": "libx265", "options": H265, "muxer": "hevc"},
    "raw.mjpeg": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "raw.m4v": {"codec": "mpeg4", "muxer": "m4v", "options": {"b": "2M"}},
    "ogg.ogv": {"codec": "libvpx", "options": QUICK_VP8, "muxer": "ogg"},
    "asf.wmv": {"codec": "wmv2", "options": {"b": "2M"}, "muxer": "asf"},
}


@pytest.mark.parametrize("name", CLIPS)
def test_each_round_shows_all_pictures_in_order_and_without_a_gap(folder: Path, name: str) -> None:
    clip = make_clip(folder / name, COUNT, **CLIPS[name])
    played = Player(clip, 3 * COUNT).play()
    assert played.error is None
    assert played.numbers == in_rounds(3 * COUNT)
    _, steps = played.changes
    assert steps == pytest.approx([STEP] * len(steps), abs=0.002)
