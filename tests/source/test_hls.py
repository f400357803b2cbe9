import base64
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from relayd.errors import SourceUnreachable, SourceUnusable
from relayd.media.frames import SourceFrame, luma
from relayd.source.events import SourceDown, SourceOpened
from tests.support.frame_code import number_of
from tests.support.hls_server import RATE, HlsServer

if TYPE_CHECKING:
    from tests.source.conftest import Watch

LONGEST_GAP = 0.45
"""s on a machine that does much else; a segment lasts 1 s."""


def numbers(frames: list[SourceFrame]) -> list[int]:
    return [number_of(luma(frame.i420)) for frame in frames]


def gaps(frames: list[SourceFrame]) -> list[float]:
    return list(np.diff([frame.captured_at for frame in frames]))


def test_live_hls_is_played_evenly_a_segment_behind(watch: "Watch") -> None:
    with HlsServer() as server:
        watched = watch(server.url())
        watched.frame()
        frames = watched.arrivals(45)
        assert 0.9 < watched.reader.buffered < 2.2
        watched.reader.pause()
    shown = numbers(frames)
    assert shown == sorted(shown)
    assert len(set(shown)) > 35
    assert max(gaps(frames)) < LONGEST_GAP
    ages = [frame.captured_at - server.made_at(n) for frame, n in zip(frames, shown, strict=True)]
    assert np.median(ages) < 2.2  # a segment, the margin, and a request that came too early
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_encrypted_segments_are_played_evenly_however_long_they_are_said_to_last(
    watch: "Watch",
) -> None:
    with HlsServer(key=b"16 bytes of key.", duration=1.0, target=6) as server:
        watched = watch(server.url())
        watched.frame()
        frames = watched.arrivals(60)
        watched.reader.pause()
    shown = numbers(frames)
    assert shown == sorted(shown)
    assert max(gaps(frames)) < LONGEST_GAP
    ages = [frame.captured_at - server.made_at(n) for frame, n in zip(frames, shown, strict=True)]
    assert np.median(ages) < 2.2


def test_low_latency_hls_is_played_by_its_parts(watch: "Watch") -> None:
    with HlsServer(duration=2.0, parts=8) as server:
        watched = watch(server.url())
        watched.frame()
        watched.arrivals(20)
        frames = watched.arrivals(30)
        watched.reader.pause()
    shown = numbers(frames)
    assert shown == sorted(shown)
    ages = [frame.captured_at - server.made_at(n) for frame, n in zip(frames, shown, strict=True)]
    assert np.median(ages) < 1.6  # by whole segments it would be more than 2
    assert max(gaps(frames)) < LONGEST_GAP


def test_one_variant_alone_is_fetched_and_no_sound(watch: "Watch") -> None:
    sizes = {"low": (320, 180), "middle": (640, 360), "high": (1280, 720), "huge": (2560, 1440)}
    with HlsServer(sizes=sizes) as server:
        watched = watch(server.url("/master.m3u8"))
        _, opened = watched.wait_for(SourceOpened, 5)
        assert isinstance(opened, SourceOpened)
        assert (opened.width, opened.height) == (1280, 720)
        watched.reader.pause()
        folders = {path.split("/")[1] for path in server.asked}
    assert folders == {"master.m3u8", "high"}


def test_a_redirected_playlist_is_followed_to_its_segments(watch: "Watch") -> None:
    with HlsServer() as server:
        watched = watch(server.url("/elsewhere/of/it.m3u8"))
        assert watched.frame()
        watched.reader.pause()


def test_user_and_password_are_sent_for_lists_and_segments(watch: "Watch") -> None:
    expected = "Basic " + base64.b64encode(b"me@home:p w").decode()
    with HlsServer(login=expected) as server:
        watched = watch(server.url("/master.m3u8", login="me%40home:p%20w@"))
        assert watched.frame()
        watched.reader.pause()


def test_a_wrong_password_and_a_missing_playlist_are_told_apart(watch: "Watch") -> None:
    with HlsServer(login="Basic something") as server:
        watched = watch(server.url(login="me:wrong@"))
        _, event = watched.wait_for(SourceDown, 3)
        assert isinstance(event, SourceDown)
        assert isinstance(event.error, SourceUnusable)
        assert "401" in str(event.error)
    with HlsServer(away=True) as server:
        watched = watch(server.url())
        _, event = watched.wait_for(SourceDown, 3)
        assert isinstance(event, SourceDown)
        assert isinstance(event.error, SourceUnreachable)
        assert "404" in str(event.error)
        watched.reader.pause()


def test_a_playlist_that_is_away_for_a_moment_is_not_seen(watch: "Watch") -> None:
    with HlsServer(phase=0.6) as server:
        watched = watch(server.url())
        watched.frame()
        server.away = True
        frames = watched.arrivals(12)
        server.away = False
        frames += watched.arrivals(30)
        watched.reader.pause()
    assert max(gaps(frames)) < LONGEST_GAP + 0.6  # it may have been away too long by so much
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_list_that_jumps_or_counts_anew_goes_on(watch: "Watch") -> None:
    server = HlsServer(
        restarts=[(6, 0), (7, 500)], jumps={6: 1.4, 7: 90000.0}, missing={8}, duration=0.5
    )
    with server:
        watched = watch(server.url())
        watched.frame()
        frames = watched.arrivals(52)
        watched.reader.pause()
    shown = numbers(frames)
    assert shown == sorted(shown)
    each = round(RATE * server.duration)
    assert {number // each for number in shown} >= {5, 6, 7, 9}
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_stream_that_ends_is_lost_after_its_pictures_and_the_limit(watch: "Watch") -> None:
    with HlsServer(duration=0.5) as server:
        watched = watch(server.url(), stall_timeout=0.6)
        watched.frame()
        server.stopped_at = time.monotonic()
        last_at = watched.last_picture_until(SourceDown)
        at, _ = watched.wait_for(SourceDown, 6)
        # The limit counts from the last picture, and a segment's length is no stall.
        assert at - last_at > 1.0
        watched.reader.pause()


def test_a_stop_does_not_wait_for_the_next_segment(watch: "Watch") -> None:
    with HlsServer(duration=4.0) as server:
        watched = watch(server.url())
        watched.frame()
        before = time.monotonic()
        assert watched.reader.stop()
        assert time.monotonic() - before < 1.0


def test_bursts_over_http_are_played_evenly_after_the_first(watch: "Watch") -> None:
    with HlsServer(duration=0.6) as server:
        watched = watch(server.url("/one/bursts"))
        watched.frame()
        watched.arrivals(18)
        frames = watched.arrivals(30)
        watched.reader.pause()
    assert max(gaps(frames)) < LONGEST_GAP
    shown = numbers(frames)
    assert shown == sorted(shown)
    assert len(set(shown)) > 25


@pytest.mark.parametrize("mime", ["application/vnd.apple.mpegurl", "text/plain"])
def test_hls_is_known_under_any_address_and_only_its_variant_fetched(
    watch: "Watch", mime: str
) -> None:
    with HlsServer(sizes={"low": (160, 120), "one": (640, 480)}, mime=mime) as server:
        watched = watch(server.url("/watch?channel=1"))
        _, opened = watched.wait_for(SourceOpened, 5)
        assert isinstance(opened, SourceOpened)
        assert (opened.width, opened.kind) == (640, "bursts")
        watched.reader.pause()
        assert not [path for path in server.asked if path.startswith("/low/segment")]


def test_the_newest_segment_is_not_played_from_its_start_when_the_next_is_there(
    watch: "Watch",
) -> None:
    with HlsServer(duration=4.0, phase=3.6) as server:
        watched = watch(server.url())
        watched.frame()
        time.sleep(1.5)
        frames = watched.arrivals(10)
        assert watched.reader.slowness == ""
        watched.reader.pause()
    shown = numbers(frames)
    ages = [frame.captured_at - server.made_at(n) for frame, n in zip(frames, shown, strict=True)]
    assert np.median(ages) < 5.5  # from its start it would be 8
