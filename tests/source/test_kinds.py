import os
import stat
from pathlib import Path

import pytest

from relayd.config.settings import SourceSettings
from relayd.media.look import Look
from relayd.source.addresses import VIDEO_MAJOR, ffmpeg_url
from relayd.source.kinds import SourceKind, WantedKind, as_wanted, guess, settle
from relayd.source.plans import InputPlan, plan_input
from relayd.urls.safe import MediaUrl


def plan(url: str, demuxer: str = "", kind: WantedKind = "auto", **options: str) -> InputPlan:
    return plan_input(SourceSettings(url=MediaUrl(url), format=demuxer, kind=kind, options=options))


def node(mode: int, major: int) -> os.stat_result:
    """Return what os.stat says of a device node."""
    return os.stat_result((mode | 0o660, *[0] * 9), {"st_rdev": os.makedev(major, 0)})


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("clip.mp4", SourceKind.FILE),
        ("/srv/clips/odd:name.ts", SourceKind.FILE),
        ("file:/srv/clip.mkv", SourceKind.FILE),
        ("https://host/clip.MP4?token=1", SourceKind.FILE),
        ("ftp://host/clip.ts", SourceKind.FILE),
        ("rtsp://user:pass@host/stream", SourceKind.LIVE),
        ("rtmp://host/app/key", SourceKind.LIVE),
        ("srt://:9000?mode=listener", SourceKind.LIVE),
        ("udp://239.0.0.1:1234", SourceKind.LIVE),
        ("http://cam/video.mjpg", SourceKind.LIVE),
        ("http://cam/faststream.jpg", SourceKind.LIVE),
        ("http://cam/video", SourceKind.LIVE),
        ("https://host/live.m3u8", SourceKind.LIVE),
        ("camera.sdp", SourceKind.LIVE),
        ("pipe:0", SourceKind.PIPE),
        ("lavfi:testsrc2=size=1280x720:rate=30", SourceKind.GENERATOR),
        ("http://[broken", SourceKind.FILE),
        ("", SourceKind.FILE),
        ("nul\0byte", SourceKind.FILE),
    ],
)
def test_a_url_is_opened_as_the_kind_it_looks_like(url: str, kind: SourceKind) -> None:
    assert guess(url) is kind


def test_a_named_pipe_is_read_as_a_pipe_whatever_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert guess(str(tmp_path / "pipe.mp4")) is SourceKind.PIPE


@pytest.mark.parametrize(
    ("demuxer", "kind"), [("v4l2", SourceKind.DEVICE), ("lavfi", SourceKind.GENERATOR)]
)
def test_a_forced_demuxer_decides(demuxer: str, kind: SourceKind) -> None:
    assert guess("anything", demuxer) is kind


@pytest.mark.parametrize(
    "path",
    [
        "/dev/video0",
        "/dev/v4l/by-id/usb-046d_C920-video-index0",
        "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0",
        "/dev/webcam",
        "my-camera",
    ],
)
def test_a_device_node_of_video4linux_is_a_camera_by_whatever_link(path: str) -> None:
    def look(asked: str) -> os.stat_result:
        assert asked == path
        return node(stat.S_IFCHR, VIDEO_MAJOR)

    assert guess(path, look=look) is SourceKind.DEVICE
    assert guess(path, wanted="live", look=look) is SourceKind.DEVICE


@pytest.mark.parametrize(("mode", "major"), [(stat.S_IFCHR, 1), (stat.S_IFBLK, VIDEO_MAJOR)])
def test_other_device_nodes_are_no_cameras(mode: int, major: int) -> None:
    assert guess("/dev/zero", look=lambda _: node(mode, major)) is SourceKind.FILE


def test_an_unplugged_camera_whose_link_is_gone_is_still_a_camera() -> None:
    assert guess("/dev/v4l/by-id/usb-gone-video-index0") is SourceKind.DEVICE
    assert guess("/dev/my_unplugged_webcam") is SourceKind.DEVICE
    assert guess("/srv/missing.mp4") is SourceKind.FILE


@pytest.mark.parametrize(
    ("url", "wanted", "kind"),
    [
        ("http://cam/x.mp4", "live", SourceKind.LIVE),
        ("rtsp://cam/recording", "file", SourceKind.FILE),
        ("http://cam/snap.jpg", "image", SourceKind.IMAGE),
        ("strange-node", "camera", SourceKind.DEVICE),
        ("lavfi:testsrc2", "file", SourceKind.GENERATOR),
        ("pipe:0", "file", SourceKind.PIPE),
        ("pipe:0", "live", SourceKind.LIVE),
    ],
)
def test_the_users_word_counts_more(url: str, wanted: WantedKind, kind: SourceKind) -> None:
    made = plan(url, kind=wanted)
    assert made.kind is kind
    assert made.is_settled
    assert not plan(url).is_settled


def found(demuxers: str, codec: str = "h264", **more: float) -> Look:
    return Look(frozenset(demuxers.split(",")), codec, **more)  # type: ignore[arg-type]  # numbers


MP4 = "mov,mp4,m4a,3gp,3g2,mj2"


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (found("mpjpeg", "mjpeg"), SourceKind.LIVE),
        (found("mpjpeg", "mjpeg", size=2**31 - 1), SourceKind.LIVE),
        (found("jpeg_pipe", "mjpeg", size=9000), SourceKind.SNAPSHOT),
        (found("png_pipe", "png", size=9000), SourceKind.SNAPSHOT),
        (found(MP4, "av1", size=9000, pictures=1), SourceKind.SNAPSHOT),
        (found("jpeg_pipe", "mjpeg"), SourceKind.LIVE),
        (found("mpegts"), SourceKind.BURSTS),
        (found("mpegts", size=2**40), SourceKind.BURSTS),
        (found("mpegts", size=10**7), SourceKind.FILE),
        (found("flv", duration=20.1), SourceKind.BURSTS),
        (found("flv", duration=20.1, size=10**7), SourceKind.FILE),
        (found(MP4, duration=1.0), SourceKind.BURSTS),
        (found(MP4, duration=9.0, size=10**6, pictures=99), SourceKind.FILE),
        (found(MP4, duration=9.0, pictures=99), SourceKind.FILE),
        (found("matroska,webm", duration=9.0), SourceKind.FILE),
        (found("matroska,webm"), SourceKind.BURSTS),
        (found("hls", duration=60.0, size=400), SourceKind.FILE),
        (found("hls", size=400), SourceKind.BURSTS),
        (found("dash"), SourceKind.BURSTS),
    ],
)
@pytest.mark.parametrize("guessed", [SourceKind.LIVE, SourceKind.FILE])
def test_behind_http_what_is_found_decides(
    guessed: SourceKind, seen: Look, kind: SourceKind
) -> None:
    assert settle(guessed, "http", seen) is kind


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (found("png_pipe", "png", size=9000), SourceKind.IMAGE),
        (found("image2", "mjpeg", size=9000, pictures=1), SourceKind.IMAGE),
        (found("image2", "png", pictures=5), SourceKind.FILE),
        (found("gif", "gif", pictures=1), SourceKind.IMAGE),
        (found("gif", "gif", pictures=3), SourceKind.FILE),
        (found("mpegts", size=10**7), SourceKind.FILE),
        (found("sdp"), SourceKind.LIVE),
    ],
)
def test_on_this_machine_what_is_found_decides(seen: Look, kind: SourceKind) -> None:
    assert settle(SourceKind.FILE, "", seen) is kind


def test_streams_by_their_protocol_are_live_whatever_is_found() -> None:
    for scheme in ("rtsp", "udp", "tcp", "rtmp", "srt"):
        assert settle(SourceKind.LIVE, scheme, found("mpegts", duration=9.0)) is SourceKind.LIVE


def test_user_options_take_precedence() -> None:
    (options,) = plan("rtsp://h/x", rtsp_transport="udp").options
    assert options["rtsp_transport"] == "udp"


def test_live_sources_are_looked_at_shortly_before_the_first_picture() -> None:
    for url in ("rtsp://h/x", "srt://h:1", "http://h/x", "udp://h:1", "rtmp://h/x", "pipe:0"):
        options = plan(url).options[0]
        assert 0 < int(options["analyzeduration"]) <= 500_000
        assert "nobuffer" not in options.get("fflags", "")


def test_protocols_wait_as_long_as_the_longest_limit() -> None:
    settings = SourceSettings(url=MediaUrl("rtsp://h/x"), open_timeout=3, first_frame_timeout=20)
    assert plan_input(settings).options[0]["timeout"] == "20000000"


def test_rtmp_gets_no_timeout_that_would_make_it_listen() -> None:
    assert all("timeout" not in options for options in plan("rtmp://h/x").options)


def test_rtsp_prefers_tcp_and_takes_udp() -> None:
    first, second = plan("rtsp://h/x").options
    assert (first["rtsp_transport"], first["rtsp_flags"]) == ("udp+tcp", "prefer_tcp")
    assert second["rtsp_transport"] == "udp"
    assert [options["rtsp_transport"] for options in plan("rtsps://h/x").options] == ["tcp"]


def test_a_camera_is_opened_by_the_v4l2_demuxer_with_the_users_options() -> None:
    made = plan("/dev/video3", framerate="15")
    assert (made.demuxer, made.options) == ("v4l2", ({"framerate": "15"},))


def test_a_generator_loses_its_prefix() -> None:
    made = plan("lavfi:color=red")
    assert (made.url, made.demuxer) == ("color=red", "lavfi")


def test_srt_options_go_into_the_url_after_its_own_ones() -> None:
    made = plan("srt://h:1?timeout=5", passphrase="0123456789")
    assert made.url.startswith("srt://h:1?timeout=5&timeout=2000000&")
    assert made.url.endswith("&passphrase=0123456789")
    assert plan("srt://h:1").url.startswith("srt://h:1?timeout=2000000&")


@pytest.mark.parametrize(
    ("written", "opened"),
    [
        ("HTTP://cam/Video", "http://cam/Video"),
        ("Rtsp://User@Cam/Live", "rtsp://User@Cam/Live"),
        ("LAVFI:testsrc2", "lavfi:testsrc2"),
        ("-", "pipe:0"),
        ("/dev/stdin", "pipe:0"),
        ("/dev/fd/7", "pipe:7"),
        ("pipe:", "pipe:"),
        ("clip.mp4", "clip.mp4"),
        ("a: b.mp4", "a: b.mp4"),
        ("concat:a.ts|b.ts", "concat:a.ts|b.ts"),
        ("file:a%20b.mp4", "file:a%20b.mp4"),
        ("file:///srv/a%20b.mp4", "file:/srv/a b.mp4"),
        ("FILE://localhost/srv/%C3%BC.mp4", "file:/srv/ü.mp4"),
        ("~/x.mp4", "/home/me/x.mp4"),
        ("file:~/x.mp4", "file:/home/me/x.mp4"),
        ("~nobody-of-this-name/x.mp4", "~nobody-of-this-name/x.mp4"),
    ],
)
def test_what_people_write_becomes_what_ffmpeg_opens(
    written: str, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert ffmpeg_url(written) == opened


@pytest.mark.parametrize("name", ["c:d.mp4", "i:m.png", "http:x.mp4"])
def test_a_file_with_a_colon_is_no_protocol(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert ffmpeg_url(name) == f"file:{name}"


def test_a_file_whose_name_has_a_percent_sign_is_found_by_it(tmp_path: Path) -> None:
    (tmp_path / "a%20b.mp4").touch()
    assert ffmpeg_url(f"file://{tmp_path}/a%20b.mp4") == f"file:{tmp_path}/a%20b.mp4"


def test_live_by_the_users_word_still_plays_segments_by_their_stamps() -> None:
    assert as_wanted(SourceKind.LIVE, found("hls")) is SourceKind.BURSTS
    assert as_wanted(SourceKind.LIVE, found("mpegts")) is SourceKind.LIVE
    assert as_wanted(SourceKind.FILE, found("hls")) is SourceKind.FILE


def test_a_playlist_in_a_folder_is_played_by_its_stamps_until_it_ends() -> None:
    assert settle(SourceKind.FILE, "", found("hls")) is SourceKind.BURSTS
    assert settle(SourceKind.FILE, "", found("hls", duration=60.0)) is SourceKind.FILE
