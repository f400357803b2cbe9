"""Cameras that speak HTTP, opened and played as what they are."""

import io
import time
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from PIL import Image

from relayd.errors import SourceLost, SourceUnreachable
from relayd.source.events import SourceDown, SourceOpened
from tests.support.http_camera import RATE, HttpCamera, number_of

if TYPE_CHECKING:
    from tests.source.conftest import Watch
    from tests.support.clips import Clips

SOON = 1.0
"""s to the first picture of a stream whose beginning has to be looked for; twice that on a busy
machine."""


@pytest.mark.parametrize("path", ["/faststream.jpg", "/noinitial", "/imagejpg", "/jpegs"])
def test_jpeg_pictures_in_a_row_move_and_begin_soon_whatever_the_url_looks_like(
    http_camera: HttpCamera, watch: "Watch", path: str
) -> None:
    began = time.monotonic()
    watched = watch(http_camera.url(path))
    _, event = watched.wait_for(SourceOpened, 5)
    assert time.monotonic() - began < 2 * SOON
    assert (event.kind, event.codec) == ("live", "mjpeg")
    frames = watched.arrivals(RATE)
    assert len({number_of(frame.i420) for frame in frames}) > RATE / 2
    lasted = frames[-1].captured_at - frames[0].captured_at
    assert lasted == pytest.approx(1.0, rel=0.3)  # as they come, not in a rush


@pytest.mark.parametrize("path", ["/snapshot.cgi", "/snap.jpg", "/snap.png", "/nolength"])
def test_a_snapshot_url_is_asked_again_at_the_refresh(
    http_camera: HttpCamera, watch: "Watch", path: str
) -> None:
    watched = watch(http_camera.url(path), refresh=0.3)
    _, event = watched.wait_for(SourceOpened, 3)
    # Without a length, there might be more to come.
    assert event.kind == ("live" if path == "/nolength" else "snapshot")
    frames = watched.arrivals(6, since=0)
    numbers = [number_of(frame.i420) for frame in frames]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) >= 5
    lasted = frames[-1].captured_at - frames[0].captured_at
    assert lasted == pytest.approx(5 * 0.3, abs=0.4)
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_photo_larger_than_what_is_probed_is_shown(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    written = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (1200, 1600, 3), np.uint8)
    Image.fromarray(noise).save(written, "JPEG", quality=90)
    http_camera.large = written.getvalue()
    assert len(http_camera.large) > 1_000_000
    watched = watch(http_camera.url("/large.jpg"))
    _, event = watched.wait_for(SourceOpened, 5)
    assert (event.width, event.height, event.kind) == (1600, 1200, "snapshot")


def test_a_still_picture_is_polled_too_and_stays_fresh_in_between(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    watched = watch(http_camera.url("/still.jpg"), refresh=1.4, stall_timeout=1.0)
    frames = watched.arrivals(4, since=0)
    assert {number_of(frame.i420) for frame in frames} == {3}
    assert http_camera.requests["/still.jpg"] <= 2
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_picture_that_the_user_calls_an_image_is_fetched_once(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    watched = watch(http_camera.url("/snap.jpg"), kind="image", refresh=0.1)
    _, event = watched.wait_for(SourceOpened, 3)
    assert event.kind == "image"
    watched.arrivals(2)
    assert http_camera.requests["/snap.jpg"] == 1


def test_a_camera_that_answers_with_rubbish_now_and_then_is_not_lost(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    watched = watch(http_camera.url("/half.jpg"), refresh=0.1)
    frames = watched.arrivals(8)
    assert len({number_of(frame.i420) for frame in frames}) >= 4
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_snapshot_camera_that_fails_is_lost_with_its_reason_and_read_again(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    watched = watch(http_camera.url("/snap.jpg"), refresh=0.1, stall_timeout=1.0)
    watched.frame()
    http_camera.is_refusing = True
    _, event = watched.wait_for(SourceDown, 4)
    assert event.error.retryable
    assert "no picture for" not in str(event.error)
    assert watched.slot.latest()[1] is None
    http_camera.is_refusing = False
    watched.wait_for(SourceOpened, 4, after=1)


def test_the_end_of_a_polled_url_is_noticed_when_it_hangs(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    watched = watch(http_camera.url("/snap.jpg"), refresh=0.1, stall_timeout=0.8)
    watched.frame()
    http_camera.hold = 60.0
    last_at = watched.last_picture_until(SourceDown)
    at, event = watched.wait_for(SourceDown, 3)
    assert 0.7 < at - last_at < 1.5
    assert isinstance(event.error, SourceLost)


def test_a_camera_that_answers_after_longer_than_the_stall_limit_opens(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    http_camera.hold = 0.9
    watched = watch(http_camera.url("/faststream.jpg"), stall_timeout=0.4)
    watched.wait_for(SourceOpened, 4)
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_server_that_accepts_and_sends_nothing_fails_at_the_open_limit(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    http_camera.hold = 60.0
    began = time.monotonic()
    watched = watch(http_camera.url("/faststream.jpg"), open_timeout=1.0, stall_timeout=0.3)
    at, event = watched.wait_for(SourceDown, 4)
    assert 0.9 < at - began < 2.5
    assert isinstance(event.error, SourceUnreachable)
    assert "could not be opened within 1 s" in str(event.error)
    assert "open_timeout" in event.error.hint


def test_stop_ends_an_opening_that_hangs_at_once(http_camera: HttpCamera, watch: "Watch") -> None:
    http_camera.hold = 60.0
    watched = watch(http_camera.url("/faststream.jpg"))
    time.sleep(0.3)
    before = time.monotonic()
    assert watched.reader.stop()
    assert time.monotonic() - before < 1.0


def test_a_page_of_text_is_no_picture(http_camera: HttpCamera, watch: "Watch") -> None:
    http_camera.files["/page"] = b"<html>" + b"words " * 2000
    http_camera.seconds = 0.05
    watched = watch(http_camera.url("/page"))
    _, event = watched.wait_for(SourceDown, 4)
    assert "could not be opened within" not in str(event.error)


def test_live_flv_with_a_sound_that_never_comes_begins_soon(
    http_camera: HttpCamera, watch: "Watch", clips: "Clips"
) -> None:
    clip = clips.grey_ramp("live.flv", 80, 20)
    content = bytearray(clip.read_bytes())
    content[4] = 5  # the header announces sound and video
    announced = clips.file("announced.flv", bytes(content))
    began = time.monotonic()
    watched = watch(http_camera.serve("/live.flv", announced, 4.0))
    _, event = watched.wait_for(SourceOpened, 5)
    assert time.monotonic() - began < 2 * SOON
    assert event.kind == "bursts"


def test_a_live_mp4_is_no_recording_because_of_its_ending(
    http_camera: HttpCamera, watch: "Watch", clips: "Clips"
) -> None:
    path = clips.folder / "fragmented.mp4"
    source = clips.grey_ramp("ramp.ts", 60, 20)
    flags = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(source)) as read, av.open(str(path), "w", options=flags) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    watched = watch(http_camera.serve("/stream.mp4", path, 3.0))
    _, event = watched.wait_for(SourceOpened, 5)
    assert event.kind == "bursts"


def test_a_recording_without_an_ending_in_its_name_is_paced(
    http_camera: HttpCamera, watch: "Watch", clips: "Clips"
) -> None:
    clip = clips.grey_ramp("ramp.mkv", 40, 20)
    http_camera.serve("/download", clip, 0.1)
    watched = watch(http_camera.url("/download"))
    _, event = watched.wait_for(SourceOpened, 5)
    assert event.kind == "file"
    frames = watched.arrivals(20)
    assert frames[-1].captured_at - frames[0].captured_at == pytest.approx(19 / 20, rel=0.2)


def test_a_source_slower_than_its_stall_limit_says_so_and_then_plays_on(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    watched = watch(http_camera.url("/slow"), stall_timeout=0.5)
    _, event = watched.wait_for(SourceDown, 4)
    assert "no picture for 0.5 s" in str(event.error)
    assert "stall_timeout" in str(event.error)
    watched.wait_for(SourceOpened, 4, after=2)
    count = len(watched.events())
    frames = watched.arrivals(12, within=8.0)
    assert len({number_of(frame.i420) for frame in frames}) >= 3
    gaps = np.diff([frame.captured_at for frame in frames])
    assert max(gaps) < 0.75  # kept fresh between two pictures
    assert len(watched.events()) == count


@pytest.mark.parametrize("path", ["/cut.jpg", "/cut"])
def test_of_a_picture_whose_sending_breaks_off_no_half_is_shown(
    http_camera: HttpCamera, watch: "Watch", path: str
) -> None:
    watched = watch(http_camera.url(path), refresh=0.1)
    frames = watched.arrivals(8, since=0)
    assert len({number_of(frame.i420) for frame in frames}) >= 2
    below = [float(frame.i420[460].std()) for frame in frames]
    assert min(below) > 10  # noise, not the grey of what is missing


def test_a_snapshot_camera_that_answers_slower_than_the_stall_limit_is_kept(
    http_camera: HttpCamera, watch: "Watch"
) -> None:
    http_camera.hold = 0.8
    watched = watch(http_camera.url("/snap.jpg"), refresh=0.6, stall_timeout=0.5)
    watched.wait_for(SourceDown, 5)
    watched.wait_for(SourceOpened, 5, after=2)  # by then it is known
    known = len(watched.events())
    watched.arrivals(8)
    time.sleep(2.0)
    assert watched.events()[known:] == []
