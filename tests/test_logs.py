import ast
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd import logs
from relayd.urls.concealed import Concealed

ROOT = Path(__file__).parent.parent


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
    assert logs.redact("rtsp://me:pw@camera:554/stream1: no") == "rtsp://camera:554/stream1: no"
    assert logs.redact("see https://host/api/open/v3/live/create.") == (
        "see https://host/api/open/v3/live/create."
    )


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


OURS = [
    "akool.api_key: missing; set AKOOL_API_KEY, the systemd credential akool-api-key",
    "akool.client_secret: missing; client_id needs it",
    "akool.client_id: missing; client_secret needs it",
    "akool.api_key = ***: input should be a valid string",
    "--set akool.api_key: not a TOML value: nested too deeply",
    "--set akool.api_key: a command line can be read by every user of this machine",
    "RELAYD_AKOOL__API_KEY (environment): unknown; did you mean AKOOL_API_KEY?",
    "akool.api_keys: unknown key; did you mean akool.api_key?",
    "no bearer token arrived",
    "the passphrase: empty",
]
"""What a pattern for secrets once ate of our own words, or nearly did."""


@pytest.mark.parametrize("words", OURS)
def test_our_own_words_about_a_secret_are_left_alone(words: str):
    assert logs.redact(words) == words


def test_no_text_of_the_program_is_taken_for_a_secret(monkeypatch: pytest.MonkeyPatch):
    """Each literal of the source that is no docstring, f-strings with a number in each gap."""
    texts = [
        text
        for file in (ROOT / "relayd").rglob("*.py")
        if file.name != "page.py"  # pages, with a configuration as an example
        for text in texts_of(ast.parse(file.read_text()))
    ]
    assert len(texts) > 1000
    monkeypatch.setattr(logs, "KNOWN", Concealed())
    headers_and_the_pages_url = {"Bearer 7", 'Bearer realm="relayd"', "7?token=7"}
    assert {text for text in texts if logs.redact(text) != text} == headers_and_the_pages_url


def texts_of(tree: ast.AST) -> Iterator[str]:
    pieces = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # a docstring
            pieces.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces |= {id(piece) for piece in node.values}
            yield "".join(
                str(piece.value) if isinstance(piece, ast.Constant) else "7"
                for piece in node.values
            )
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in pieces:
            yield str(node.value)


def test_what_a_server_says_is_redacted_before_it_is_cut():
    secret = "SUPERSECRETTOKEN-0123456789"
    logs.conceal(secret)
    for length in range(60, 100):
        assert "SUPER" not in logs.excerpt("x" * length + secret + "x" * 50, 80)
    for length in (16 * 1024 - 5, 16 * 1024, 200_000):
        assert "SUPER" not in logs.excerpt("http://h/?" + "x" * length + secret, 80)
    assert logs.excerpt("short", 80) == "short"
    assert len(logs.excerpt("word " * 10_000, 80)) == 80


def test_the_names_in_a_mapping_are_redacted_as_its_values_are(
    capsys: pytest.CaptureFixture[str],
):
    logs.configure("info", json=True)
    logs.get("test").info("outputs", states={"rtmp://h/live/kkkk-1111": "ok"})
    assert "kkkk-1111" not in capsys.readouterr().err
