import contextlib
import json
import os
import subprocess
import sys

import pytest

from relayd import logs


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("rtsp://me:hunter2@camera/1", "hunter2"),
        ("rtsp://me:hun:t@er2@camera/1", "er2"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ('{"clientSecret": "tcMhvgV0fY"}', "tcMhvgV0fY"),
        ("x-api-key=0123456789", "0123456789"),
        ("srt://host:9000?passphrase=verysecret&mode=caller", "verysecret"),
        ("front_rtc_token: 007eJxTYFj", "007eJxTYFj"),
    ],
)
def test_what_looks_like_a_secret_is_blotted_out(text: str, secret: str):
    assert secret not in logs.redact(text)


def test_the_rest_of_the_url_stays_readable():
    assert logs.redact("rtsp://me:pw@camera:554/stream1") == "rtsp://me:***@camera:554/stream1"
    assert logs.redact("http://host:80/a@b") == "http://host:80/a@b"


def test_a_concealed_secret_is_blotted_out_of_events_and_tracebacks(
    capsys: pytest.CaptureFixture[str],
):
    logs.conceal("sesame-open-1")
    logs.configure("info", json=True)
    log = logs.get("test")
    try:
        {}["the key sesame-open-1 is wrong"]
    except KeyError:
        log.exception("refused", tried=["sesame-open-1"], front_rtc_token="x" * 9)
    line = capsys.readouterr().err
    event = json.loads(line)
    assert event["event"] == "refused"
    assert event["front_rtc_token"] == logs.HIDDEN
    assert "the key *** is wrong" in event["exception"]
    assert "sesame" not in line


def test_a_reader_of_the_log_who_left_ends_lines_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    stderr = os.fdopen(writer, "w", buffering=1)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stderr)
        logs.configure("info")
        logs.get("test").info("session.created")
    with contextlib.suppress(BrokenPipeError):
        stderr.close()
    logs.configure("info")


@pytest.mark.parametrize("secrets", [("abcdefgh", "abcdefgh-tail"), ("ijklmnop-tail", "ijklmnop")])
def test_a_secret_that_begins_another_leaves_nothing_of_it(secrets: tuple[str, str]):
    for secret in secrets:
        logs.conceal(secret)
    assert logs.redact(f"{max(secrets, key=len)}!") == f"{logs.HIDDEN}!"


def test_a_long_word_is_searched_for_secrets_in_no_time():
    """A server chooses how long its words are; this one took minutes, past the test's limit."""
    word = "x" * 200_000
    assert logs.redact(word) == word


def test_a_program_that_ends_prints_nothing_after_its_last_event():
    # Modules that are still in use are emptied from the newest to the oldest, so that here, as
    # in a whole relay, the log's file outlives the names of its own module.
    program = (
        "import sys, structlog; from relayd import logs; logs.configure();"
        "sys.kept = structlog._config, logs; logs.get('test').info('last')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["last"]
