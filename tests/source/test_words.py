"""Each cause for which a source cannot be read is named, with what to do, and without secrets."""

import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np
import pytest
from PIL import Image

from relayd.errors import SourceError
from relayd.media.causes import Contact, Facts, explained
from relayd.media.contents import is_encrypted_matroska
from relayd.media.decode import VideoInput
from relayd.media.frames import Geometry
from relayd.media.refusals import refusal
from relayd.media.symptoms import Asked, Symptom
from relayd.source.events import SourceDown
from relayd.source.inspect_server import look_at_server
from relayd.source.option_names import unknown_options
from tests.support.clips import Clips
from tests.support.refusing import (
    Reply,
    WebServer,
    described,
    rtsp_server,
    self_signed,
    web_server,
)

if TYPE_CHECKING:
    from tests.source.conftest import Watch
    from tests.support.rtsp import RtspCamera

PAGE = b"<!DOCTYPE html><html><title>Camera</title><body>Please log in</body></html>"
MPD = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="dynamic"></MPD>'
SEGMENT = b"#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngone.ts\n#EXT-X-ENDLIST\n"
SAMPLE_AES = b'#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://x"\n'
HLS = "application/vnd.apple.mpegurl"
LOGIN = "me:Hidden7Word"


def why(watch: "Watch", url: str | Path, **how: Any) -> SourceError:
    """Return the error of the first attempt."""
    watched = watch(url, **how)
    _, event = watched.wait_for(SourceDown, 8)
    watched.reader.stop()
    assert "Hidden" not in f"{event.error} {event.error!r} {event.error.hint}"
    return event.error


# HTTP.


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    refused = {f"status{code}": Reply(code) for code in (400, 403, 404, 410, 418, 429, 500, 503)}
    replies = refused | {
        "page": Reply(200, PAGE, "text/html; charset=utf-8"),
        "page.mp4": Reply(200, PAGE, "text/html"),
        "untold": Reply(200, PAGE, "video/mp4"),
        "moved": Reply(302, headers={"Location": "/page"}),
        "elsewhere": Reply(302, headers={"Location": "http://127.0.0.2:9/live"}),
        "circle": Reply(302, headers={"Location": "/circle"}),
        "json": Reply(200, b'{"error": "no such camera"}', "application/json"),
        "text": Reply(200, b"no such camera\n", "text/plain"),
        "empty": Reply(200, b"", "video/mp2t"),
        "dash": Reply(200, MPD, "application/dash+xml"),
        "bare": Reply(200, b"#EXTM3U\n", HLS),
        "segments": Reply(200, b"#EXTM3U\n" + SEGMENT, HLS),
        "locked": Reply(200, b"#EXTM3U\n" + SAMPLE_AES + SEGMENT, HLS),
        "silent": Reply(None),
    }
    with web_server(replies) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "said", "retryable"),
    [
        ("page", "the server sent a web page (text/html", False),
        ("page.mp4", "the server sent a web page (text/html), not video", False),
        ("untold", "the server sent a web page", False),
        ("moved", "the server sent a web page", False),
        ("elsewhere", "connection refused", True),
        ("circle", "redirects in a circle", False),
        ("json", "JSON text (application/json), not video", False),
        ("text", "plain text (text/plain), not video", False),
        ("empty", "an empty answer", True),
        ("dash", "needs a build of FFmpeg with libxml2", False),
        ("bare", "names no segment yet", True),
        ("segments", "no segment of the playlist can be read", True),
        ("locked", "encrypted (SAMPLE-AES)", False),
        ("silent", "the server closed the connection", True),
        ("status400", "does not understand the request (400)", True),
        ("status403", "refuses access (403)", False),
        ("status404", "nothing at this path (404)", True),
        ("status410", "refuses the request (410)", True),
        ("status418", "refuses the request (418)", True),
        ("status429", "(429", True),
        ("status500", "the server failed (500)", True),
        ("status503", "the server failed (503)", True),
    ],
)
def test_what_an_http_server_sends_instead_of_video_is_named(
    web: WebServer, watch: "Watch", path: str, said: str, *, retryable: bool
) -> None:
    error = why(watch, web.url(path, LOGIN))
    assert said in str(error)
    assert error.retryable is retryable


def test_another_server_is_never_asked(watch: "Watch", web: WebServer) -> None:
    """FFmpeg follows the redirect by itself; the look at it does not."""
    with web_server({"page": Reply(200, PAGE, "text/html")}) as other:
        replies = {"away": Reply(302, headers={"Location": other.url("page")})}
        with web_server(replies, login=LOGIN) as first:
            error = why(watch, first.url("away", LOGIN))
    assert "redirects to another one" in str(error)
    assert all(headers["User-Agent"].startswith("Lavf/") for _, headers in other.asked)
    assert "authorization" not in str(other.asked).lower()


def test_a_page_behind_a_login_is_looked_at_with_it(watch: "Watch") -> None:
    with web_server({"page": Reply(200, PAGE, "text/html")}, login=LOGIN) as server:
        assert "a web page" in str(why(watch, server.url("page", LOGIN)))
        assert "wrong user or password (401)" in str(why(watch, server.url("page", "me:HiddenNo1")))
        assert "asks for a user and a password" in str(why(watch, server.url("page")))


def test_a_stream_without_end_is_looked_at_for_a_moment_only(watch: "Watch") -> None:
    with web_server({"page": Reply(200, PAGE + b" " * 5_000_000, "text/html")}) as server:
        assert "a web page" in str(why(watch, server.url("page")))


@pytest.fixture(scope="module")
def late_index(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MP4 of about 1 MB with its index at the end, as recorders write it."""
    clips = Clips(tmp_path_factory.mktemp("late"))
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)
    content = clips.video("late.mp4", [noise] * 15).read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    assert len(content) > 200_000
    return content


def test_an_index_at_the_end_of_a_file_needs_ranges(watch: "Watch", late_index: bytes) -> None:
    replies = {
        "whole.mp4": Reply(200, late_index, "video/mp4"),
        "cut.mp4": Reply(200, late_index[:99_000], "video/mp4"),
    }
    with web_server(replies) as server:
        error = why(watch, server.url("whole.mp4"))
        assert "the server does not allow ranges" in error.message
        assert "-movflags +faststart" in error.hint
        assert "cut off" in str(why(watch, server.url("cut.mp4")))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(certificate: Path) -> Iterator[WebServer]:
    with web_server({"page": Reply(200, PAGE, "text/html")}, certificate=certificate) as server:
        yield server


def test_what_is_wrong_with_tls_is_named(watch: "Watch", web: WebServer, secure: WebServer) -> None:
    plain, tls = f"127.0.0.1:{web.port}", f"127.0.0.1:{secure.port}"
    assert "speaks no TLS" in str(why(watch, f"https://{LOGIN}@{plain}/page"))
    assert "speaks no TLS" in str(why(watch, f"rtsps://{LOGIN}@{plain}/page"))
    assert "try https://" in str(why(watch, f"http://{LOGIN}@{tls}/page"))
    assert "try rtsps://" in str(why(watch, f"rtsp://{LOGIN}@{tls}/page"))
    # FFmpeg accepts any certificate unless told otherwise, and so does the look.
    assert "a web page" in str(why(watch, f"https://{tls}/page"))
    error = why(watch, f"https://{tls}/page", options={"tls_verify": "1"})
    assert "certificate is not trusted" in error.message
    assert not error.retryable


@pytest.mark.parametrize("named_by", ["option", "environment"])
def test_a_certificate_is_verified_with_the_ca_store_that_is_named(
    watch: "Watch",
    secure: WebServer,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    named_by: str,
) -> None:
    options = {"tls_verify": "1"}
    if named_by == "option":
        options["ca_file"] = str(certificate)
    else:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert "a web page" in str(why(watch, secure.url("page"), options=options))


# Hosts.


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp", "https", "rtsps"])
def test_an_unknown_host_and_a_closed_port_are_told_apart(watch: "Watch", scheme: str) -> None:
    error = why(watch, f"{scheme}://{LOGIN}@no-such-host.invalid/live")
    assert "the host's name is unknown (DNS)" in error.message
    assert error.retryable
    error = why(watch, f"{scheme}://{LOGIN}@127.0.0.1:9/live")
    assert "connection refused" in error.message
    assert error.retryable


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rtsp://127.0.0.1:99999/live", "its port is no number from 1 to 65535"),
        ("http://127.0.0.1:port/live", "its port is no number from 1 to 65535"),
        ("http://", "names no host"),
        ("rtsp:///live", "names no host"),
        ("tcp://127.0.0.1", "names no port"),
        ("rtsp:/me:Hidden7@127.0.0.1/live", "a colon and two slashes"),
        ("http//me:Hidden7@127.0.0.1/live", "a colon and two slashes"),
        (" rtsp://me:Hidden7@127.0.0.1/live", "remove the blank"),
        ("'rtsp://me:Hidden7@127.0.0.1/live'", "remove the quotes"),
        ("192.168.1.2:8554/live", "put the protocol first"),
        ("me:Hidden7@camera/live", "put the protocol first"),
        ("C:\\clips\\a.mp4", "a Windows path"),
        ("$HOME/a.mp4", "variables are not filled in"),
        ("rtps://127.0.0.1/live", "did you mean rtsps://"),
        ("sftp://me:Hidden7@host/a.mp4", "mount the folder"),
        ("webrtc://host/a", "not read over WebRTC"),
        ("nosuch://host/a", "does not know the protocol 'nosuch'"),
    ],
)
def test_a_url_that_cannot_work_is_told(watch: "Watch", url: str, said: str) -> None:
    error = why(watch, url)
    assert said in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EHOSTUNREACH, "the host cannot be reached"),
        (errno.ENETUNREACH, "no network leads to the host"),
        (errno.ETIMEDOUT, "no answer in time"),
        (errno.EADDRINUSE, "another program listens at this port"),
    ],
)
def test_errors_of_the_network_are_told_apart(number: int, said: str) -> None:
    """FFmpeg's own numbers: no machine has an unreachable network at hand."""
    with pytest.raises(av.error.FFmpegError) as caught:
        av.error.err_check(-number)
    error = refusal(caught.value, Asked("rtsp://me:Hidden7@cam/live", "rtsp://cam/live", {}, True))
    assert said in error.message
    assert error.retryable


def test_a_port_of_another_program_is_told(watch: "Watch") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        assert "another program listens at this port" in str(why(watch, f"udp://127.0.0.1:{port}"))


def test_a_port_at_which_nothing_arrives_is_told(watch: "Watch") -> None:
    error = why(watch, "udp://127.0.0.1:0", open_timeout=0.5)
    assert "nothing arrives there" in error.message
    assert "firewall" in error.hint
    assert error.retryable


# RTSP.


def test_what_a_camera_refuses_is_named(watch: "Watch") -> None:
    wrong = 'RTSP/1.0 401 Unauthorized\nWWW-Authenticate: Basic realm="camera"'
    with rtsp_server(lambda *_: wrong) as port:
        error = why(watch, f"rtsp://{LOGIN}@127.0.0.1:{port}/live")
        assert "wrong user or password (401)" in error.message
        assert "@ as %40" in error.hint
        assert not error.retryable
        assert "put user:password@" in why(watch, f"rtsp://127.0.0.1:{port}/live").hint
    with rtsp_server(lambda *_: "RTSP/1.0 404 Not Found") as port:
        error = why(watch, f"rtsp://{LOGIN}@127.0.0.1:{port}/live")
        assert "nothing at this path (404)" in error.message
        assert error.retryable


@pytest.mark.parametrize(("tried", "only"), [("tcp", "UDP"), ("udp", "TCP")])
def test_a_camera_that_refuses_the_transport_is_told(tried: str, only: str) -> None:
    with (
        rtsp_server(described("461 Unsupported Transport")) as port,
        pytest.raises(SourceError) as caught,
    ):
        VideoInput.open(
            f"rtsp://{LOGIN}@127.0.0.1:{port}/live",
            geometry=Geometry(64, 48),
            options={"rtsp_transport": tried},
            low_delay=True,
        )
    assert f"the camera speaks {only} only" in caught.value.message
    assert f'rtsp_transport = "{only.lower()}"' in caught.value.hint


def test_a_web_server_at_an_rtsp_port_is_told(watch: "Watch", web: WebServer) -> None:
    error = why(watch, f"rtsp://{LOGIN}@127.0.0.1:{web.port}/live")
    assert "a web server answers at this port, not RTSP" in error.message


def test_the_look_at_an_rtsp_port_sends_no_password(watch: "Watch") -> None:
    heard: list[str] = []

    def answer(method: str, headers: object) -> str:
        heard.append(f"{method} {headers}")
        return ""

    with rtsp_server(answer) as port:
        assert "no valid RTSP answer" in str(why(watch, f"rtsp://{LOGIN}@127.0.0.1:{port}/live"))
    assert len(heard) > 1
    assert not any("authorization" in one or "Hidden" in one for one in heard)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://me@mail.com:Hidden@Hidden#1/%?:&=@127.0.0.1:9/live",
        "rtsp://me:Hidden/Word@127.0.0.1:9/live",
        "rtsp://me:1234/Hidden@127.0.0.1:9/live",
        "http://me:Hidden#Word@127.0.0.1:9/live.mp4",
        "http://me:Hidden?Word@127.0.0.1:9/live",
        "rtmp://me:Hidden@Hidden/Word@127.0.0.1:9/live/x",
    ],
)
def test_a_password_that_needs_encoding_is_told_and_not_shown(watch: "Watch", url: str) -> None:
    error = why(watch, url)
    assert "the password" in error.message
    assert "# %23" in error.hint
    assert not error.retryable


@pytest.mark.parametrize("rtsp_camera", ["me@mail.com:Hidden9Word"], indirect=True)
def test_a_password_that_works_is_not_shown_when_the_camera_stops(
    rtsp_camera: "RtspCamera", watch: "Watch"
) -> None:
    watched = watch(rtsp_camera.url("me%40mail.com:Hidden9Word"), stall_timeout=0.5)
    watched.frame()
    rtsp_camera.freeze()
    _, event = watched.wait_for(SourceDown, 8)
    rtsp_camera.thaw()
    assert "no picture for" in event.error.message
    assert "Hidden" not in f"{event.error}"
    assert "mail.com" not in f"{event.error}"


# Files.


def test_a_missing_file_is_compared_with_those_beside_it(watch: "Watch", tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").touch()
    (tmp_path / "Recording.MKV").touch()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").touch()
    for wrong, meant in [
        ("holyday.mp4", "holiday.mp4"),
        ("holiday.mkv", "holiday.mp4"),
        ("recording.mkv", "Recording.MKV"),
        ("vidoes/a.mp4", "videos/a.mp4"),
    ]:
        error = why(watch, tmp_path / wrong)
        assert f"there is no file {tmp_path / wrong}" in error.message
        assert error.hint == f"did you mean {tmp_path / meant}"
    assert "did you mean" not in str(why(watch, tmp_path / "zzz.mp4"))
    assert "is a folder, not a file" in str(why(watch, tmp_path / "videos"))
    assert str(tmp_path / "videos/a.mp4") in why(watch, tmp_path / "videos").hint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.mp4", b"", "is an empty file"),
        ("text.mp4", b"hello\n" * 99, "is plain text, not video"),
        ("page.mp4", PAGE, "is a web page, not video"),
        ("paper.mp4", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3", "is a PDF document, not video"),
        ("films.mp4", b"PK\x03\x04" + b"\x14\0\7" * 99, "is a ZIP archive, not video"),
        ("zeros.mp4", bytes(5000), "nothing but zero bytes"),
        ("lfs.mp4", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("live.mpd", MPD, "needs a build of FFmpeg with libxml2"),
    ],
)
def test_a_file_that_is_no_video_is_named(
    watch: "Watch", tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    error = why(watch, tmp_path / name)
    assert said in error.message
    assert name in error.message
    assert not error.retryable


def test_a_recording_without_its_index_is_told(
    watch: "Watch", late_index: bytes, tmp_path: Path
) -> None:
    content = late_index
    (tmp_path / "cut.mp4").write_bytes(content[:99_000])
    assert "is cut off: its index (moov) is missing" in str(why(watch, tmp_path / "cut.mp4"))
    # As a recorder leaves it that was killed: the length of mdat was never written.
    at = content.index(b"mdat") - 4
    broken = content[:at] + struct.pack(">I", 0) + content[at + 4 : content.index(b"moov") - 4]
    (tmp_path / "killed.mp4").write_bytes(broken)
    assert "the recording was not ended properly" in str(why(watch, tmp_path / "killed.mp4"))


def test_pictures_that_ffmpeg_cannot_decode_are_named(
    watch: "Watch", clips: Clips, tmp_path: Path
) -> None:
    content = clips.quadrants("late.mp4", 640, 480).read_bytes()
    (tmp_path / "avs3.mp4").write_bytes(content.replace(b"avc1", b"avs3"))
    assert "no decoder for avs3" in str(why(watch, tmp_path / "avs3.mp4"))
    assert "has no video: it has sound alone" in str(why(watch, clips.sound("sound.mp4")))


@pytest.mark.skipif("webp_anim" in av.codecs_available, reason="FFmpeg 9 plays it")
def test_an_animated_webp_is_told(watch: "Watch", tmp_path: Path) -> None:
    first, *rest = (Image.new("RGB", (64, 48), colour) for colour in ("red", "green"))
    first.save(tmp_path / "moving.webp", save_all=True, append_images=rest, duration=100)
    assert "animated WebP is not supported" in str(why(watch, tmp_path / "moving.webp"))


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the program ffmpeg is not installed")
def test_an_encrypted_file_is_told(watch: "Watch", tmp_path: Path) -> None:
    path = tmp_path / "locked.mp4"
    key = "76a6c65c5ea762046bd749a2e632ccbb"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=160x120:d=0.5",
         "-c:v", "libx264", "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key,
         "-encryption_kid", key, path],
        check=True,
    )  # fmt: skip
    assert "is encrypted" in str(why(watch, path))


def test_a_header_without_pictures_is_told(
    watch: "Watch", late_index: bytes, tmp_path: Path
) -> None:
    index = late_index[late_index.index(b"moov") - 4 :]
    (tmp_path / "init.mp4").write_bytes(late_index[: late_index.index(b"mdat") - 4] + index)
    assert "only the header of a stream" in str(why(watch, tmp_path / "init.mp4"))


def test_an_encrypted_webm_is_recognised() -> None:
    encrypted = b"\x6d\x80\x8a\x62\x40\x87\x50\x35\x84\x47\xe1\x81\x05"
    assert is_encrypted_matroska(b"\x1aE\xdf\xa3" + encrypted)
    assert not is_encrypted_matroska(b"\x1aE\xdf\xa3" + encrypted[:6] + bytes(99))


def test_a_name_too_long_for_a_file_is_told_and_shortened(watch: "Watch") -> None:
    error = why(watch, "/tmp/" + "a" * 5000)
    assert "too long" in error.message
    assert len(error.message) < 400
    assert not error.retryable


def test_an_unknown_format_is_compared_with_the_known_ones(watch: "Watch") -> None:
    assert 'did you mean format = "mjpeg"' in str(why(watch, "x.bin", demuxer="mjepg"))


LOOK_AS_NOBODY = """
import os, sys
from threading import Event
from relayd.media.symptoms import Asked
from relayd.source.inspection import inspect

os.setuid(65534)
facts = inspect("forbidden", Asked(sys.argv[1], sys.argv[1], {}, False), Event())
print(facts.user, facts.blocked)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_what_may_not_be_read_is_told_with_the_folder_in_the_way(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", LOOK_AS_NOBODY, str(tmp_path / "a.mp4")],
        capture_output=True,
        text=True,
        check=True,
    )
    user, blocked = done.stdout.split()
    facts = Facts(user=user, blocked=blocked)
    error = SourceError("no")
    error.symptom = Symptom.FORBIDDEN
    said = explained(error, Asked("a.mp4", "a.mp4", {}, live=False), facts)
    assert f"user {user} may not enter the folder" in said.message
    assert tmp_path.is_relative_to(blocked)


# Options.


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("rtsp_transprot", "rtsp_transport"),
        ("rtsp-transport", "rtsp_transport"),
        ("stimeout", "timeout"),
        ("probsize", "probesize"),
        ("video_sise", "video_size"),
    ],
)
def test_an_option_that_ffmpeg_would_ignore_is_told(given: str, meant: str) -> None:
    (unknown,) = unknown_options("rtsp://camera/live", [given, "probesize"])
    assert (unknown.name, unknown.meant) == (given, meant)


def test_options_that_ffmpeg_knows_are_no_surprise() -> None:
    known = [
        "rtsp_transport", "rtsp_flags", "timeout", "rw_timeout", "probesize", "analyzeduration",
        "input_format", "video_size", "framerate", "user_agent", "headers", "cookies",
        "reconnect", "reconnect_streamed", "tls_verify", "ca_file", "passphrase", "streamid",
        "latency", "mode", "fflags", "protocol_whitelist", "live_start_index", "http_persistent",
        "loop", "start_number", "pixel_format", "buffer_size", "reorder_queue_size", "max_delay",
        "allowed_media_types", "strict", "err_detect", "skip_frame", "threads", "flags",
    ]  # fmt: skip
    assert unknown_options("srt://host:9?mode=caller&latency=200&passphrase=x", known) == []


def test_a_misspelt_option_in_the_url_of_udp_is_told_without_its_value() -> None:
    (unknown,) = unknown_options("udp://0.0.0.0:9?fifo_siz=Hidden1", [])
    assert (unknown.name, unknown.meant) == ("fifo_siz", "fifo_size")
    assert unknown_options("rtsp://camera/live?user=me&password=Hidden1", []) == []


def test_a_value_that_ffmpeg_refuses_is_told_by_its_option(watch: "Watch") -> None:
    url = "rtsp://127.0.0.1:9/live"
    error = why(watch, url, options={"rtsp_transport": "upd"})
    assert "rtsp_transport" in error.hint


@pytest.mark.parametrize("location", ["http://127.0.0.1:99999/", "http://[bad/"])
def test_a_redirect_to_an_address_that_is_none_is_no_failure_of_ours(location: str) -> None:
    with web_server({"cam": Reply(302, headers={"Location": location})}) as server:
        url = server.url("cam")
        facts = look_at_server(Asked(url, url, {}, live=True), Event())
    assert facts.contact is Contact.CIRCLE
