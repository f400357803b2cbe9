"""URLs show nothing that may be secret, however they are printed."""

import copy
import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from relayd import logs
from relayd.urls.concealed import KNOWN
from relayd.urls.safe import MediaUrl, service_url, shown, without_secrets

SAFE_FORMS = [
    ("rtsp://me:hunter22@10.0.0.5:554/stream1", "rtsp://10.0.0.5:554/stream1"),
    ("rtsp://10.0.0.5/cam?usr=admin&pwd=hunter22", "rtsp://10.0.0.5/cam?…"),
    ("rtsp://h:554/user=admin_password=hunter22_channel=1_stream=0.sdp", "rtsp://h:554/…"),
    ("rtsp://10.0.0.5/Streaming/Channels/101", "rtsp://10.0.0.5/Streaming/…"),
    ("http://cam/video.cgi?user=admin&pass=hunter22", "http://cam/video.cgi?…"),
    ("https://cam/s?auth=hunter22&sig=deadbeef", "https://cam/s?…"),
    ("https://ghp_0123456789abcdef@host/x.mp4", "https://host/x.mp4"),
    ("https://host/faces/9f8e7d6c5b4a/anna.png#x", "https://host/faces/…/anna.png?…"),
    ("https://host/9f8e7d6c5b4a3921.png", "https://host/…"),
    ("https://host/deadbeef/face.png", "https://host/…/face.png"),
    ("https://host/eyJhbGciOiJIUzI1NiJ9/face.png", "https://host/…/face.png"),
    ("rtmp://a.rtmp.youtube.com/live2/abcd-efgh-ijkl", "rtmp://a.rtmp.youtube.com/live2/…"),
    ("RTMPS://host/streamkey", "RTMPS://host/…"),
    ("srt://:9000?mode=listener&passphrase=verysecret", "srt://:9000?…"),
    ("srt://192.0.2.10:9000?streamid=#!::u=me", "srt://192.0.2.10:9000?…"),
    ("udp://@239.0.0.1:1234", "udp://239.0.0.1:1234"),
    ("http://[::1]:8080/a/b/whip", "http://[::1]:8080/a/…/whip"),
    ("http://h:8700/rtc/{channel_id}/{front_user_id}/whip", "http://h:8700/rtc/…/whip"),
    # A mistyped URL is no less secret.
    ("rtsp://me:hun/ter22@host/cam", "rtsp://…/…"),
    ("rtsp://me:12/ter22@host/cam", "rtsp://…/…"),
    ("rtsp://me:12?ter22@host/cam", "rtsp://…?…"),
    ("rtsp://me:12#ter22@host/cam", "rtsp://…?…"),
    ("rtsp://me:hunter22@[::1", "rtsp://…"),
    ("rtsp:/me:hunter22@host/cam", "…@host/cam"),
    ("me:hunter22@host/cam", "…@host/cam"),
    ("async:rtsp://me:hunter22@host/cam", "…@host/cam"),
    # Paths and generators are not secret.
    ("/dev/video0", "/dev/video0"),
    ("out/a@b.mp4", "out/a@b.mp4"),
    ("a@b.mp4", "a@b.mp4"),
    ("~/clips/me.mp4", "~/clips/me.mp4"),
    ("file:///srv/a@b.mp4", "file:///srv/a@b.mp4"),
    ("lavfi:testsrc2=size=640x480:rate=30", "lavfi:testsrc2=size=640x480:rate=30"),
    ("lavfi:movie=rtsp://me:hunter22@host/cam", "lavfi:movie=rtsp://host/cam"),
    ("", ""),
]
SECRETS = (
    "hunter22",
    "ter22",
    "verysecret",
    "deadbeef",
    "efgh",
    "9f8e",
    "eyJ",
    "streamkey",
    "ghp_",
)


@pytest.mark.parametrize(("whole", "safe"), SAFE_FORMS)
def test_the_safe_form_shows_the_place_and_nothing_secret(whole: str, safe: str) -> None:
    url = MediaUrl(whole)
    texts = [str(url), f"{url}", f"{url:>10}", repr(url), repr([url]), f"{url!r}"]
    assert texts[0] == safe
    assert not [secret for text in texts for secret in SECRETS if secret in text]
    assert url.reveal() == whole
    assert copy.deepcopy(url) == url == MediaUrl(whole)


@pytest.mark.parametrize(("whole", "safe"), SAFE_FORMS)
def test_the_safe_form_of_a_safe_form_is_the_same(whole: str, safe: str) -> None:
    assert shown(safe) == safe
    assert logs.redact(f"{safe}: refused") == f"{safe}: refused"


@given(st.text("abz09/:?#@.-_=&[]{}% …\\", max_size=40), st.sampled_from(["rtsp", "https", "rtmp"]))
def test_no_text_after_the_scheme_breaks_it_and_its_form_is_stable(rest: str, scheme: str) -> None:
    safe = shown(f"{scheme}://{rest}")
    assert shown(safe) == safe
    without_secrets(f"{scheme}://{rest} {rest}")


@given(
    st.from_regex(r"[A-Za-z0-9._~!$&'()*+,;=:%-]{6,30}", fullmatch=True),
    st.sampled_from(["rtsp://{}@host/cam", "rtsp://me:{}@host/cam", "https://host/x?{}", "srt://h:1?streamid={}"]),
)  # fmt: skip
def test_nothing_of_user_info_or_query_is_in_the_safe_form(secret: str, template: str) -> None:
    assert secret not in shown(template.format(secret)) or secret in template


def test_a_url_cannot_be_printed_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps(MediaUrl("rtsp://me:hunter22@host/cam"))


def test_settings_write_the_safe_form_and_hold_the_whole() -> None:
    class Table(BaseModel):
        url: MediaUrl

    table = Table.model_validate({"url": "rtsp://me:hunter22@host/cam"})
    assert "hunter22" not in f"{table} {table!r} {table.model_dump_json()}"
    assert Table(url=table.url) == table
    assert table.url.reveal() == "rtsp://me:hunter22@host/cam"
    with pytest.raises(ValidationError, match="valid string"):
        Table.model_validate({"url": 5})


def test_a_quote_of_a_revealed_url_or_a_part_of_it_shows_the_safe_form() -> None:
    url = "srt://h:9000?mode=caller&passphrase=open%20sesame-1&streamid=room-4711"
    MediaUrl(url).reveal()
    MediaUrl("rtmp://host/live2/kkkk-llll-mmmm").reveal()
    MediaUrl("rtsp://me:pass-W0rd@host/cam").reveal()
    text = f"Cannot open '{url}': open sesame-1, room-4711 kkkk-llll-mmmm me:pass-W0rd pass-W0rd"
    shown = logs.redact(text)
    assert shown.startswith("Cannot open 'srt://h:9000?…': ")
    for secret in ("sesame-1", "room-4711", "kkkk", "pass-W0rd"):
        assert secret not in shown


def test_a_password_that_is_an_ordinary_word_does_not_hide_the_word() -> None:
    MediaUrl("rtsp://camera:stream@host/cam").reveal()
    assert logs.redact("the camera gives no stream") == "the camera gives no stream"
    assert "stream" not in logs.redact("no route to rtsp://camera:stream@host/cam")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://u:p@h/a/b?token=xyz: 404", "GET https://h/a/b?…: 404"),
        (r'{"url": "https:\/\/h\/9f8e7d6c5b4a\/x.png?sig=1"}', '{"url": "https://h/…/x.png?…"}'),
        ("rtsp://me:pa'ss\"word@h/cam, then", "rtsp://h/cam, then"),
        ("see https://docs.akool.com.", "see https://docs.akool.com."),
        ("(http://127.0.0.1:8642/)", "(http://127.0.0.1:8642/)"),
        ("rtmp://h/live/key rtmp://h/live/key2", "rtmp://h/live/… rtmp://h/live/…"),
        ("no url // here", "no url // here"),
    ],
)
def test_urls_in_foreign_texts_lose_what_is_secret(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_long_text_of_slashes_and_colons_is_searched_quickly() -> None:
    """A server chooses its texts; the test's time limit ensures that they cost little."""
    for word in ("a://" * 50_000, "a" * 200_000 + "://", "x:" * 100_000, "a://" + "@" * 200_000):
        without_secrets(word)


def test_the_url_of_a_service_keeps_its_plain_path() -> None:
    assert service_url("https://me:pw@host/akool/v1/") == "https://host/akool/v1"
    assert service_url("https://host") == "https://host"
    assert service_url("https://me:***@host/v1") == "https://host/v1", "as an older journal has it"


def test_a_traceback_with_a_url_in_its_error_is_logged_without_the_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("debug", json=True)
    url = MediaUrl("rtsp://me:hunter22@host/cam?key=4711471147")
    try:
        int(f"cannot open {url.reveal()}")
    except ValueError:
        assert "hunter22" in traceback.format_exc()
        logs.get("test").exception("source_fault", url=url, by_url={url.reveal(): 1})
    line = capsys.readouterr().err
    assert "hunter22" not in line
    assert "4711471147" not in line
    assert len(KNOWN) > 0

    MediaUrl("tcp://:5000?listen").conceal(lasting=True)
    assert logs.redact("connection refused: nothing listens there") == (
        "connection refused: nothing listens there"
    )
