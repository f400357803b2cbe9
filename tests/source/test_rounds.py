"""Looped recordings: each round shows every picture, in order, without a gap."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceUnusable
from relayd.logs import LogEvent
from relayd.media.frames import I420, Geometry
from relayd.source.connection import SourceConnection
from relayd.source.limits import SourceLimits
from relayd.source.opening import OpenedSource, SourceOpener
from relayd.source.playing import REFRESH
from relayd.source.rounds import HELD
from relayd.urls.safe import MediaUrl
from tests.support.clock import FakeClock
from tests.support.numbered import (
    B_FRAMES,
    H265,
    QUICK_VP8,
    RATE,
    make_clip,
    number_of,
    numbered,
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
        return [self.numbers[n] for n in kept], [later - now for now, later in pairwise(times)]


class ShowingClock(FakeClock):
    """Time that only the thread which shows pictures moves; the decoding thread waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._moved = threading.Condition()
        self.most_waited = 1.0
        """s of real time after which the other thread waits for something else than time."""

    def sleep_until(self, moment: float, stop: Event) -> bool:
        with self._moved:
            if threading.current_thread().name != "relayd-source-show":
                self._moved.wait_for(lambda: self.time >= moment or stop.is_set(), self.most_waited)
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
        chosen = SourceSettings(url=MediaUrl(str(url)), **settings)
        limits = SourceLimits(chosen)
        self.connection = SourceConnection(
            chosen,
            SourceOpener(chosen, SMALL, "stretch", limits, fps=20),
            limits=limits,
            clock=self.clock,
            wake=Event(),
            publish=self._publish,
        )

    def play(self, within: float = 10.0) -> Played:
        self.connection.start()
        assert self.connection.ended.wait(within), f"only {len(self.played.numbers)} pictures"
        assert self.connection.join(2.0)
        if len(self.played.numbers) < self._enough:  # else it was interrupted, which is an error
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


def test_a_recording_that_can_be_sought_is_opened_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    original = SourceOpener.open

    def count(opener: SourceOpener, *how: Any) -> OpenedSource:
        opened.append(opener)
        return original(opener, *how)

    monkeypatch.setattr(SourceOpener, "open", count)
    for name in ("b_frames.mp4", "b_frames.ts", "mpeg2.mpg", "anim.gif", "mpeg4.avi"):
        opened.clear()
        Player(make_clip(folder / name, COUNT, **CLIPS[name]), 3 * COUNT).play()
        assert len(opened) == 1, name
    opened.clear()
    Player(make_clip(folder / "raw.h264", COUNT, **CLIPS["raw.h264"]), 3 * COUNT).play()
    assert 3 <= len(opened) <= 5  # the next round is prepared while the third is shown


@pytest.mark.parametrize("name", ["short.h264", "short.gif", "short.mp4"])
def test_a_clip_of_two_pictures_loops_as_well(folder: Path, name: str) -> None:
    how = CLIPS["anim.gif"] if name.endswith("gif") else {}
    played = Player(make_clip(folder / name, 2, **how), 60).play()
    assert played.error is None
    assert played.numbers == in_rounds(60, 2)
    assert played.times[-1] - played.times[0] == pytest.approx(59 * STEP, abs=0.002)


def test_a_test_picture_that_ends_begins_again() -> None:
    url = "lavfi:color=black:size=96x72:rate=25:duration=0.2"
    played = Player(url, 15).play()
    assert played.error is None
    assert [b - a for a, b in pairwise(played.times)] == pytest.approx([STEP] * 14, abs=0.002)


def test_a_splice_with_other_stamps_makes_no_pause(folder: Path) -> None:
    joined = folder / "spliced.ts"
    parts = [
        make_clip(folder / "early.ts", COUNT),
        make_clip(folder / "late.ts", COUNT, first=20, muxer_options={"output_ts_offset": "5000"}),
    ]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    whole = [*range(COUNT), *range(20, 20 + COUNT)]
    played = Player(joined, 2 * len(whole)).play()
    assert played.numbers == whole * 2
    assert max(b - a for a, b in pairwise(played.times)) < 2 * STEP


def test_stamps_that_jump_back_do_not_mislead_the_seek(folder: Path) -> None:
    # Both halves have the same stamps: seeking cannot tell them apart.
    half = make_clip(folder / "half.ts", COUNT, gop=4)
    other = make_clip(folder / "other.ts", COUNT, gop=4, first=20)
    joined = folder / "joined.ts"
    joined.write_bytes(half.read_bytes() + other.read_bytes())
    whole = [*range(COUNT), *range(20, 20 + COUNT)]
    assert Player(joined, 3 * len(whole)).play().numbers == whole * 3


def test_an_avi_with_b_frames_has_the_right_speed(folder: Path) -> None:
    clip = make_clip(folder / "b_frames.avi", 30, options=B_FRAMES)
    played = Player(clip, 90).play()
    assert played.numbers == in_rounds(90, 30)
    assert played.times[-1] - played.times[0] == pytest.approx(89 * STEP, abs=2 * STEP)


@pytest.mark.parametrize("name", ["pause.mkv", "pause.mp4", "pause.webm", "pause.flv", "pause.ts"])
@pytest.mark.parametrize("pause", [15.0, 150.0])
def test_a_picture_stands_as_long_as_in_the_recording_and_is_kept_fresh(
    folder: Path, name: str, pause: float
) -> None:
    times = [n * STEP for n in range(5)] + [4 * STEP + pause + n * STEP for n in range(5)]
    codec = "libvpx" if name.endswith("webm") else "libx264"
    options = QUICK_VP8 if codec == "libvpx" else None
    path = folder / f"{pause:g}_{name}"
    clip = make_clip(path, len(times), times=times, codec=codec, options=options)
    kept_fresh = int(pause / REFRESH)
    played = Player(clip, 2 * (len(times) + kept_fresh)).play()
    numbers, steps = played.changes
    assert numbers[:19] == in_rounds(19, 10)
    assert steps[:9] == pytest.approx([*[STEP] * 4, pause, *[STEP] * 4], abs=0.002)
    assert steps[9] < 0.2
    assert steps[14] == pytest.approx(pause, abs=0.002)
    assert max(b - a for a, b in pairwise(played.times)) <= REFRESH + STEP


def test_the_last_picture_of_a_loop_stands_as_long_as_it_says(folder: Path) -> None:
    clip = folder / "slow.gif"
    pictures = [Image.fromarray(numbered(number)) for number in range(3)]
    pictures[0].save(clip, save_all=True, append_images=pictures[1:], duration=[100, 200, 4000])
    numbers, steps = Player(clip, 40).play().changes
    assert numbers[:7] == in_rounds(7, 3)
    assert steps[:6] == pytest.approx([0.1, 0.2, 4.0, 0.1, 0.2, 4.0], abs=0.01)


@pytest.mark.parametrize("rate", [15, 30, 50])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_raw_stream_plays_at_the_rate_in_its_headers(folder: Path, rate: int, codec: str) -> None:
    encoder: dict[str, Any] = {"codec": "libx265", "options": H265} if codec == "hevc" else {}
    clip = make_clip(folder / f"rate{rate}.{codec}", COUNT, rate=rate, muxer=codec, **encoder)
    _, steps = Player(clip, 2 * COUNT).play().changes
    assert steps == pytest.approx([1 / rate] * len(steps), abs=0.002)


def test_the_user_may_set_the_rate_of_a_raw_stream(folder: Path) -> None:
    clip = make_clip(folder / "set.h264", COUNT, rate=30)
    _, steps = Player(clip, 2 * COUNT, options={"framerate": "12"}).play().changes
    assert steps == pytest.approx([1 / 12] * len(steps), abs=0.002)


def test_a_recording_that_is_not_looped_ends_when_its_last_picture_was_shown(folder: Path) -> None:
    clip = make_clip(folder / "plain.mov", COUNT)
    player = Player(clip, 10 * COUNT, loop=False)
    played = player.play()
    assert played.error is None
    assert played.numbers == list(range(COUNT))
    assert player.clock.now() == pytest.approx(played.times[-1] + STEP, abs=0.002)


class Files(BaseHTTPRequestHandler):
    """Serves the files of a folder; under /whole without ranges, as some servers do."""

    folder: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content = (self.folder / self.path.rpartition("/")[2]).read_bytes()
        asked = self.headers["Range"] if not self.path.startswith("/whole") else None
        first = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content[first:])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    """The address of a server of the folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Files,), {"folder": folder}))
    server.daemon_threads = False  # so that closing waits for them
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("where", ["ranges", "whole"])
@pytest.mark.parametrize(
    "name", ["fast_start.mp4", "b_frames.mkv", "b_frames.ts", "one_gop.m2ts", "raw.h264"]
)
def test_a_recording_on_a_web_server_loops_whole(
    folder: Path, web: str, where: str, name: str
) -> None:
    how = CLIPS.get(name, {"muxer_options": {"movflags": "faststart"}})
    make_clip(folder / name, COUNT, **how)
    played = Player(f"{web}/{where}/{name}", 3 * COUNT).play()
    assert played.error is None
    assert played.numbers == in_rounds(3 * COUNT)
    _, steps = played.changes
    assert steps == pytest.approx([STEP] * len(steps), abs=0.002)


def test_a_transport_stream_is_sought_on_a_server_that_ends_connections_when_asked(
    folder: Path, web: str
) -> None:
    """It is longer than FFmpeg's buffer: measuring its length needs a second request."""
    make_clip(
        folder / "longer.ts",
        3 * COUNT,
        **CLIPS["b_frames.ts"] | {"codec": "mpeg2video", "options": {"b": "20M"}},
    )
    played = Player(f"{web}/ranges/longer.ts", 6 * COUNT).play()
    assert played.error is None
    assert played.numbers == in_rounds(6 * COUNT, 3 * COUNT)


@pytest.mark.parametrize("name", ["new.mp4", "new.ts", "new.h264"])
@pytest.mark.parametrize("how", ["renamed", "written over"])
def test_a_file_that_is_replaced_is_shown_from_the_next_round_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    clip = make_clip(tmp_path / name, COUNT)
    newer = make_clip(tmp_path / f"newer{clip.suffix}", COUNT, first=30)
    player = Player(clip, 4 * COUNT)

    def replace(shown: int) -> None:
        if shown == COUNT + 2:
            if how == "renamed":
                newer.rename(clip)
            else:
                clip.write_bytes(newer.read_bytes())

    player.on_picture = replace
    played = player.play()
    assert played.error is None
    numbers = played.numbers
    assert numbers[: COUNT + 2] == in_rounds(COUNT + 2)
    assert list(range(30, 30 + COUNT)) == numbers[-COUNT:]
    assert LogEvent.SOURCE_FILE_CHANGED in capsys.readouterr().out


def test_a_file_that_is_gone_goes_on_as_long_as_it_is_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "gone.mp4", COUNT)
    player = Player(clip, 4 * COUNT)
    player.on_picture = lambda shown: clip.unlink() if shown == COUNT + 2 else None
    played = player.play()
    assert played.error is None
    assert played.numbers == in_rounds(4 * COUNT)
    assert capsys.readouterr().out.count(LogEvent.SOURCE_NOT_REOPENED) == 1  # not in each round


def test_the_last_picture_stands_until_a_file_that_was_gone_is_back(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "copied.h264", COUNT)
    newer = make_clip(tmp_path / "newer.h264", COUNT, first=30)
    player = Player(clip, 3 * COUNT)

    def copy(shown: int) -> None:
        if shown == 3:
            clip.unlink()
        elif shown == COUNT:
            player.clock.most_waited = 0.1  # it waits for the file
        elif shown == COUNT + 2:
            player.clock.most_waited = 1.0
            newer.rename(clip)

    player.on_picture = copy
    played = player.play()
    assert played.error is None
    numbers, _ = played.changes
    assert numbers[: 2 * COUNT] == [*range(COUNT), *range(30, 30 + COUNT)]
    assert played.numbers.count(COUNT - 1) >= 3


def test_what_cannot_be_opened_again_is_lost_after_a_while(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "lost.h264", COUNT)
    player = Player(clip, 1000)

    def lose(shown: int) -> None:
        clip.unlink(missing_ok=True)
        if shown == COUNT:
            player.clock.most_waited = 0.1  # it waits for the file

    player.on_picture = lose
    played = player.play(30.0)
    assert isinstance(played.error, SourceUnusable)
    assert str(clip) in str(played.error)
    assert set(played.numbers[COUNT:]) == {COUNT - 1}
    # The clock of this test runs ahead while a busy machine is slow to show a picture.
    assert HELD / 2 < played.times[-1] - played.times[COUNT - 1] < HELD + 2.0
