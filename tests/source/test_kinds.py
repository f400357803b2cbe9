import os
from pathlib import Path

import pytest

from relayd.source.kinds import SourceKind, classify, plan_input


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("clip.mp4", SourceKind.FILE),
        ("/srv/clips/odd:name.ts", SourceKind.FILE),
        ("file:/srv/clip.mkv", SourceKind.FILE),
        ("https://host/clip.MP4?token=1", SourceKind.FILE),
        ("face.JPG", SourceKind.IMAGE),
        ("http://host/a.png", SourceKind.IMAGE),
        ("rtsp://user:pass@host/stream", SourceKind.LIVE),
        ("rtmp://host/app/key", SourceKind.LIVE),
        ("srt://:9000?mode=listener", SourceKind.LIVE),
        ("udp://239.0.0.1:1234", SourceKind.LIVE),
        ("http://cam/video.mjpg", SourceKind.LIVE),
        ("http://cam/video", SourceKind.LIVE),
        ("https://host/live.m3u8", SourceKind.LIVE),
        ("camera.sdp", SourceKind.LIVE),
        ("pipe:0", SourceKind.LIVE),
        ("/dev/video0", SourceKind.DEVICE),
        ("lavfi:testsrc2=size=1280x720:rate=30", SourceKind.GENERATOR),
        ("http://[broken", SourceKind.FILE),
        ("", SourceKind.FILE),
        ("nul\0byte", SourceKind.FILE),
    ],
)
def test_a_url_is_of_the_kind_it_looks_like(url: str, kind: SourceKind) -> None:
    assert classify(url) is kind


def test_a_named_pipe_is_live(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert classify(str(tmp_path / "pipe.mp4")) is SourceKind.LIVE


@pytest.mark.parametrize(
    ("demuxer", "kind"), [("v4l2", SourceKind.DEVICE), ("lavfi", SourceKind.GENERATOR)]
)
def test_a_forced_demuxer_decides(demuxer: str, kind: SourceKind) -> None:
    assert classify("anything", demuxer) is kind


def test_user_options_take_precedence() -> None:
    (options,) = plan_input("rtsp://h/x", "", {"rtsp_transport": "udp"}, 2.0).options
    assert options["rtsp_transport"] == "udp"
    assert options["timeout"] == "2000000"


def test_live_sources_are_read_with_little_delay() -> None:
    for url in ("rtsp://h/x", "srt://h:1", "http://h/x", "udp://h:1", "rtmp://h/x"):
        (options,) = plan_input(url, "", {}, 2.0).options
        assert options["analyzeduration"] == "0"
        assert "nobuffer" not in options.get("fflags", "")


def test_rtmp_gets_no_timeout_that_would_make_it_listen() -> None:
    assert "timeout" not in plan_input("rtmp://h/x", "", {}, 2.0).options[0]


def test_a_camera_is_opened_by_the_v4l2_demuxer_with_the_users_options() -> None:
    plan = plan_input("/dev/video3", "", {"framerate": "15"}, 2.0)
    assert (plan.demuxer, plan.options) == ("v4l2", ({"framerate": "15"},))


def test_a_generator_loses_its_prefix() -> None:
    plan = plan_input("lavfi:color=red", "", {}, 2.0)
    assert (plan.url, plan.demuxer) == ("color=red", "lavfi")


def test_srt_options_go_into_the_url_after_its_own_ones() -> None:
    plan = plan_input("srt://h:1?timeout=5", "", {"passphrase": "0123456789"}, 2.0)
    assert plan.url.startswith("srt://h:1?timeout=5&timeout=2000000&")
    assert plan.url.endswith("&passphrase=0123456789")
    assert plan_input("srt://h:1", "", {}, 2.0).url.startswith("srt://h:1?timeout=2000000&")
