import ast
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd import logs
from relayd.logs import redaction
from relayd.urls.concealed import HIDDEN, Concealed

ROOT = Path(__file__).parents[2]


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
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "dXNl"),
        ("Proxy-Authorization: Basic dXNlcjpwYXNz", "dXNl"),
        ("Set-Cookie: session=9f8e7d; path=/", "9f8e7d"),
        ('{"password": "open sesame"}', "sesame"),
        ("token='it\\'s sesame'", "sesame"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, secret: str) -> None:
    assert secret not in logs.redact(text)


def test_the_rest_of_the_url_stays_readable() -> None:
    assert logs.redact("rtsp://me:pw@camera:554/stream1: no") == "rtsp://camera:554/stream1: no"
    assert logs.redact("see https://host/api/open/v3/live/create.") == (
        "see https://host/api/open/v3/live/create."
    )


def test_a_concealed_secret_is_hidden_in_events_and_tracebacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.conceal("sesame-open-1")
    logs.configure("info", json=True)
    log = logs.get("test")
    try:
        dict[str, str]()["the key sesame-open-1 is wrong"]
    except KeyError:
        log.exception("refused", tried=["sesame-open-1"], front_rtc_token="x" * 9)
    line = capsys.readouterr().err
    event = json.loads(line)
    assert event["event"] == "refused"
    assert event["front_rtc_token"] == HIDDEN
    assert "the key *** is wrong" in event["exception"]
    assert "sesame" not in line


def test_a_closed_log_pipe_loses_lines_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
def test_a_secret_that_is_a_prefix_of_another_exposes_nothing_of_it(
    secrets: tuple[str, str],
) -> None:
    for secret in secrets:
        logs.conceal(secret)
    assert logs.redact(f"{max(secrets, key=len)}!") == f"{HIDDEN}!"


def test_a_long_word_is_searched_for_secrets_quickly() -> None:
    """A server chooses how long its words are; this one once took minutes, more than the limit."""
    word = "x" * 200_000
    assert logs.redact(word) == word


def test_an_ending_program_prints_nothing_after_its_last_event() -> None:
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
    "--set control.token: a command line can be read by every user of this machine",
    "control.token = ***: give 16 to 256 of the characters A-Z a-z 0-9 . _ ~ -",
    "control.token: missing",
    "no bearer token arrived",
    "the passphrase: empty",
]
"""Texts of ours that a pattern for secrets once hid, or nearly did."""


@pytest.mark.parametrize("text", OURS)
def test_our_own_messages_about_a_secret_are_left_alone(text: str) -> None:
    assert logs.redact(text) == text


def test_no_text_of_the_program_looks_like_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each literal of the source that is no docstring, f-strings with a number in each gap."""
    texts = [
        text
        for file in (ROOT / "relayd").rglob("*.py")
        if file.name != "page.py"  # pages, with a configuration as an example
        for text in texts_of(ast.parse(file.read_text()))
    ]
    assert len(texts) > 1000
    monkeypatch.setattr(redaction, "KNOWN", Concealed())
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
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in pieces
        ):
            yield node.value


def test_a_servers_text_is_redacted_before_it_is_cut() -> None:
    secret = "SUPERSECRETTOKEN-0123456789"
    logs.conceal(secret)
    for length in range(60, 100):
        assert "SUPER" not in logs.excerpt("x" * length + secret + "x" * 50, 80)
    for length in (16 * 1024 - 5, 16 * 1024, 200_000):
        assert "SUPER" not in logs.excerpt("http://h/?" + "x" * length + secret, 80)
    assert logs.excerpt("short", 80) == "short"
    assert len(logs.excerpt("word " * 10_000, 80)) == 80


def test_the_names_in_a_mapping_are_redacted_like_its_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", json=True)
    logs.get("test").info("outputs", states={"rtmp://h/live/kkkk-1111": "ok"})
    assert "kkkk-1111" not in capsys.readouterr().err


def test_a_library_s_record_is_written_without_secrets_its_traceback_included(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.conceal("sesame-open-2", lasting=True)
    logs.configure("info")
    library = logging.getLogger("asyncio")
    try:
        int("sesame-open-2")
    except ValueError:
        library.exception("of %s", "sesame-open-2")
    library.warning("with a stack", stack_info=True, extra={"x": "sesame-open-2"})
    output = capsys.readouterr().err
    assert "asyncio: of ***" in output
    assert "ValueError: invalid literal for int() with base 10: '***'" in output
    assert "sesame" not in output


def test_a_record_with_wrong_arguments_quotes_none_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info")
    logging.getLogger("library").warning("%d pictures", "sesame-open-3")
    output = capsys.readouterr().err
    assert "sesame" not in output
    assert output.startswith("library: ")


UNCAUGHT = """
import asyncio, gc, threading, warnings
from relayd import logs
logs.configure("warning")
logs.report_uncaught()
logs.conceal("sesame-open-4", lasting=True)

def fail():
    raise RuntimeError("in a thread: sesame-open-4")

class Finalized:
    def __del__(self):
        raise RuntimeError("in a finalizer: sesame-open-4")

async def main():
    async def job():
        raise RuntimeError("in a task: sesame-open-4")
    kept = asyncio.create_task(job())
    await asyncio.sleep(0)
    del kept
    gc.collect()

thread = threading.Thread(target=fail)
thread.start()
thread.join()
Finalized()
warnings.warn("in a warning: sesame-open-4")
asyncio.run(main())
raise RuntimeError("in the program: sesame-open-4")
"""


def test_what_python_prints_by_itself_holds_no_secret() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", UNCAUGHT], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    for place in ("a thread", "a finalizer", "a task", "a warning", "the program"):
        assert f"in {place}: ***" in ended.stderr
    assert "sesame" not in ended.stderr


COLLECTED_WHILE_WRITING = """
import gc, sys
from relayd import logs

class Fails:
    def __del__(self):
        raise RuntimeError("in a finalizer")

class Collects:
    def write(self, text):
        if "first" in text:
            one = Fails()
            one.itself = one
            del one
            gc.collect()
        return sys.__stdout__.write(text)
    def flush(self):
        pass

sys.stderr = Collects()
logs.configure("warning", json=True)
logs.report_uncaught()
logs.get("test").warning("first")
logs.get("test").warning("last")
"""


def test_an_exception_in_a_finalizer_that_runs_while_a_line_is_written_blocks_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", COLLECTED_WHILE_WRITING],
        check=True, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    events = [json.loads(line)["event"] for line in ended.stdout.splitlines()]
    assert sorted(events) == ["exception.ignored", "first", "last"]


@pytest.mark.parametrize("module", ["commands/app", "rtc/worker", "output/pusher"])
def test_each_of_our_programs_logs_its_uncaught_exceptions(module: str) -> None:
    tree = ast.parse((ROOT / "relayd" / f"{module}.py").read_text())
    main = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    calls = [ast.unparse(node) for node in ast.walk(main) if isinstance(node, ast.Call)]
    assert "logs.report_uncaught()" in calls
