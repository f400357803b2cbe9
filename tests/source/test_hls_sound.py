"""HLS whose sound has a playlist of its own: heard in step, and never in the pictures' way."""

import base64
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pytest

from relayd.media.frames import Geometry
from relayd.media.hls_playlist import choose_sound, choose_variant, variants
from tests.support.hls_server import HlsServer
from tests.support.sounding import Sounding, beeps, flashes, offsets, write

if TYPE_CHECKING:
    from tests.source.conftest import Watch

SEGMENTS = ("-f", "hls", "-hls_time", "1", "-hls_list_size", "4")
STREAMS = "a:0,agroup:sound,default:yes v:0,agroup:sound"
NO_GAP = 0.6
"""s between two pictures on a busy machine."""


@contextmanager
def packager(clip: Path, folder: Path, *, live: bool = True) -> Iterator[Path]:
    """Write HLS with sound and pictures apart, as time goes by; returns the master playlist."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("nothing to package HLS with: apt-get install ffmpeg")
    command = [
        *("ffmpeg", "-nostdin", "-v", "error", *(("-re",) if live else ()), "-i", str(clip)),
        *("-map", "0:v", "-map", "0:a", "-c", "copy", *SEGMENTS),
        *(() if live else ("-hls_playlist_type", "vod")),
        *("-var_stream_map", STREAMS, "-master_pl_name", "master.m3u8"),
        str(folder / "list_%v.m3u8"),
    ]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 20
        wanted = [folder / name for name in ("master.m3u8", "list_0.m3u8", "list_1.m3u8")]
        while not all(path.exists() for path in wanted) or not (live or process.poll() == 0):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield folder / "master.m3u8"
    finally:
        process.kill()
        process.wait()


def test_sound_of_its_own_playlist_is_heard_in_step_with_live_pictures(
    watch: "Watch", tmp_path: Path
) -> None:
    with packager(write(tmp_path / "clip.ts", Sounding(20.0)), tmp_path) as master:
        watched = watch(master, sound=True)
        frames = watched.arrivals(120, within=30)
        blocks = watched.heard()
        watched.reader.pause()
    off = offsets(flashes(frames), beeps(blocks))
    assert len(off) >= 4
    assert median(off) == pytest.approx(0, abs=0.05)
    assert median(np.diff([block.at for block in blocks])) == pytest.approx(0.01, abs=0.001)


def test_a_recording_with_sound_of_its_own_playlist_is_heard_each_time_that_it_is_shown(
    watch: "Watch", tmp_path: Path
) -> None:
    clip = write(tmp_path / "clip.ts", Sounding(3.0))
    with packager(clip, tmp_path, live=False) as master:
        watched = watch(master, sound=True, loop=True)
        frames = watched.arrivals(150, within=30)
        blocks = watched.heard()
        watched.reader.pause()
    off = offsets(flashes(frames), beeps(blocks))
    assert frames[-1].captured_at - frames[0].captured_at > 4.0
    late = [block.at for block in blocks if block.at > frames[0].captured_at + 3.5]
    assert len(late) > 50, "it is heard in the second round, too"
    assert median(off) == pytest.approx(0, abs=0.05)


def test_sound_that_vanishes_stops_no_picture_and_is_heard_again_when_it_is_back(
    watch: "Watch", tmp_path: Path
) -> None:
    with packager(write(tmp_path / "clip.ts", Sounding(40.0)), tmp_path) as master:
        watched = watch(master, sound=True)
        watched.arrivals(50, within=30)
        segments = tmp_path / "list_0.m3u8"
        hidden = threading.Event()

        def hide() -> None:
            while not hidden.wait(0.02):
                segments.unlink(missing_ok=True)

        hider = threading.Thread(target=hide)
        hider.start()
        frames = watched.arrivals(75, within=30)
        watched.heard()
        hidden.set()
        hider.join()
        assert np.diff([frame.captured_at for frame in frames]).max() < NO_GAP
        watched.arrivals(75, within=30)
        assert len(watched.heard()) > 50
        watched.reader.pause()


@dataclass
class SilentServer(HlsServer):
    """Never answers, or refuses, requests for sound."""

    hangs: bool = False
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.hangs and request.path.startswith("/sound"):
            self.asked.append(request.path)
            self.released.wait(20)
            return
        super().answer(request)


@pytest.mark.parametrize("hangs", [False, True])
def test_a_sound_playlist_that_fails_or_hangs_holds_up_no_picture(
    watch: "Watch", *, hangs: bool
) -> None:
    with SilentServer(hangs=hangs) as server:
        watched = watch(server.url("/master.m3u8"), sound=True)
        began = time.monotonic()
        watched.frame()
        assert time.monotonic() - began < 5.0
        frames = watched.arrivals(60, within=15)
        assert np.diff([frame.captured_at for frame in frames]).max() < NO_GAP
        assert any(path.startswith("/sound") for path in server.asked)
        assert watched.heard() == []
        watched.reader.pause()
        server.released.set()


@dataclass
class NamingServer(HlsServer):
    """Names the sound's playlist elsewhere, and notes the logins that it gets."""

    sound: str = ""
    logins: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.logins.append(request.headers.get("Authorization"))
        super().answer(request)

    def _master(self) -> str:
        return super()._master().replace("sound/live.m3u8", self.sound)


def test_a_login_is_not_sent_to_another_server_that_has_the_sound(watch: "Watch") -> None:
    login = "Basic " + base64.b64encode(b"me:secret").decode()
    with NamingServer() as other, NamingServer(login=login) as server:
        server.sound = f"http://localhost:{other.port}/one/live.m3u8"
        watched = watch(server.url("/master.m3u8", login="me:secret@"), sound=True)
        watched.arrivals(10, within=15)
        deadline = time.monotonic() + 5
        while not other.asked:
            assert time.monotonic() < deadline, "it is asked for the sound"
            time.sleep(0.05)
        watched.reader.pause()
    assert set(other.logins) == {None}
    assert login in server.logins


def test_a_playlist_from_the_web_cannot_have_a_file_of_this_machine_played(
    watch: "Watch", tmp_path: Path
) -> None:
    clip = write(tmp_path / "clip.ts", Sounding(6.0))
    with packager(clip, tmp_path, live=False), NamingServer() as server:
        server.sound = (tmp_path / "list_0.m3u8").as_uri()
        watched = watch(server.url("/master.m3u8"), sound=True)
        watched.arrivals(60, within=15)
        assert watched.heard() == []
        watched.reader.pause()


def chosen(*renditions: str, group: str = 'AUDIO="a"') -> str:
    """Return the sound that is chosen from these beside the only variant."""
    rows = ["#EXTM3U", *(f"#EXT-X-MEDIA:{one}" for one in renditions)]
    text = "\n".join([*rows, f"#EXT-X-STREAM-INF:BANDWIDTH=1,{group}", "one.m3u8", ""])
    variant = choose_variant(variants(text), Geometry(640, 480))
    assert variant is not None
    return choose_sound(text, variant)


FIRST = 'TYPE=AUDIO,GROUP-ID="a",NAME="first",URI="first.m3u8"'
AUTO = 'TYPE=AUDIO,GROUP-ID="a",NAME="auto",AUTOSELECT=YES,URI="auto.m3u8"'
DEFAULT = 'TYPE=AUDIO,GROUP-ID="a",NAME="default",DEFAULT=YES,AUTOSELECT=YES,URI="default.m3u8"'


def test_the_default_sound_is_chosen_else_what_players_choose_else_the_first() -> None:
    assert chosen(FIRST, AUTO, DEFAULT) == "default.m3u8"
    assert chosen(FIRST, AUTO) == "auto.m3u8"
    assert chosen(FIRST, FIRST.replace("first", "second")) == "first.m3u8"


def test_sound_of_another_group_or_kind_or_among_the_pictures_is_none_of_its_own() -> None:
    assert chosen(FIRST.replace('"a"', '"b"')) == ""
    assert chosen(FIRST.replace("AUDIO", "SUBTITLES")) == ""
    assert chosen(FIRST, group='VIDEO="a"') == ""
    assert chosen(FIRST, DEFAULT.replace(',URI="default.m3u8"', "")) == "", "it is in the segments"
    assert chosen() == ""
