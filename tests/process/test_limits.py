"""If the system refuses a thread, descriptor or memory: a clear error, and nothing leaks."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.config.settings import SourceSettings
from relayd.errors import ExitCode, OutputError, SourceUnreachable, Unavailable
from relayd.media.frames import Geometry, StandbyFrame, black
from relayd.media.slots import LatestSlot, SharedSlot
from relayd.output.base import OutputChange, OutputEvent
from relayd.output.clock import Fallback, OutputClock
from relayd.output.stream import StreamOutput
from relayd.process import limits
from relayd.source.events import SourceDown
from relayd.source.reader import SourceReader
from relayd.urls.safe import MediaUrl


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


SIZE = Geometry(160, 120)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Refuse to start threads with this name prefix, until called again (empty: none)."""
    refused = ""
    usual = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if refused and thread.name.startswith(refused):
            raise RuntimeError("can't start new thread")
        usual(thread)

    def refuse(name: str) -> None:
        nonlocal refused
        refused = name

    monkeypatch.setattr(threading.Thread, "start", start)
    return refuse


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("can't start new thread"), "no thread can be started"),
        (MemoryError(), "out of memory"),
        (OSError(errno.EMFILE, "x"), "too many open files: the limit is "),
        (OSError(errno.ENFILE, "x"), "the machine has too many open files"),
        (OSError(errno.ENOMEM, "x"), "out of memory"),
        (ImportError("x.so: failed to map segment from shared object"), "out of memory"),
        (ImportError("libGL.so.1: cannot open shared object file"), "a library cannot be loaded: "),
        (OSError(errno.ENOSPC, "x", "/tmp/a"), "no space left on the disk for /tmp/a"),
        (ExceptionGroup("several", [ValueError(), OSError(errno.EMFILE, "x")]), "too many open"),
    ],
)
def test_a_system_limit_is_named_with_how_to_raise_it(fault: BaseException, message: str) -> None:
    error = limits.error_for(fault)
    assert error
    assert error.message.startswith(message)
    assert error.hint
    assert error.exit_code is ExitCode.UNAVAILABLE


def test_other_errors_are_not_changed() -> None:
    assert limits.error_for(ValueError("x")) is None
    assert limits.error_for(RuntimeError("x")) is None
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="once"):
        limits.start_thread(thread)


@pytest.mark.parametrize("lacking", ["ftruncate", "eventfd"])
def test_a_slot_that_cannot_be_created_leaks_no_descriptor(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = descriptors()
    monkeypatch.setattr(os, lacking, refuse)
    with pytest.raises(OSError, match="Too many"):
        SharedSlot.create(SIZE, "test")
    assert descriptors() == before


def test_a_stream_without_a_thread_reports_it_and_leaks_no_descriptor(
    refuse_threads: Callable[[str], None], tmp_path: Path
) -> None:
    output = StreamOutput(str(tmp_path / "out.mkv"), SIZE, 20, 500)
    before = descriptors()
    refuse_threads("relayd-stream")
    for _ in range(3):
        with pytest.raises(OutputError, match="no thread can be started") as caught:
            output.open()
        assert "ulimit" in caught.value.hint
        output.close()
    assert descriptors() == before


def test_a_source_without_a_thread_is_retried(refuse_threads: Callable[[str], None]) -> None:
    events: list[object] = []
    opened = threading.Event()

    def on_event(event: object) -> None:
        events.append(event)
        if isinstance(event, SourceDown):
            refuse_threads("")
        else:
            opened.set()

    settings = SourceSettings(url=MediaUrl("lavfi:testsrc2=size=160x120:rate=10"))
    reader = SourceReader(settings, SIZE, "crop", LatestSlot(), on_event)
    refuse_threads("relayd-source-read")
    reader.start()
    assert opened.wait(20)
    assert reader.stop()
    assert isinstance(events[0], SourceDown)
    assert isinstance(events[0].error, SourceUnreachable)
    assert "no thread can be started" in str(events[0].error)


class Broken:
    """An output that fails at the first picture, and works once it was reopened."""

    name = "broken"

    def __init__(self) -> None:
        self.opened = threading.Event()

    def open(self) -> None:
        self.opened.set()

    def show(self, frame: object) -> None:
        if not self.opened.is_set():
            raise OutputError("broken")

    def close(self) -> None:
        pass


def test_a_lost_output_is_reopened_as_soon_as_there_is_a_thread_for_it(
    refuse_threads: Callable[[str], None],
) -> None:
    events: list[OutputEvent] = []
    output, back, ticks = Broken(), threading.Event(), threading.Semaphore(0)

    def on_event(event: OutputEvent) -> None:
        events.append(event)
        if event.change is OutputChange.BACK:
            back.set()

    output_clock = OutputClock(
        [output],
        LatestSlot(),
        StandbyFrame(black(SIZE), ""),
        fps=50,
        policy=Fallback.STANDBY,
        on_shown=lambda *_: ticks.release(),
        on_event=on_event,
    )
    refuse_threads("relayd-reopen")
    output_clock.start()
    for _ in range(3):
        assert ticks.acquire(timeout=10)
    refuse_threads("")
    assert back.wait(20)
    output_clock.stop()
    assert [event.change for event in events] == [OutputChange.LOST, OutputChange.BACK]


def test_an_output_clock_without_a_thread_is_a_clear_error_and_can_be_stopped(
    refuse_threads: Callable[[str], None],
) -> None:
    output_clock = OutputClock(
        [], LatestSlot(), StandbyFrame(black(SIZE), ""), fps=50, policy=Fallback.STANDBY
    )
    refuse_threads("relayd-output-clock")
    with pytest.raises(Unavailable, match="no thread can be started"):
        output_clock.start()
    output_clock.stop()


CONFIG = """
[source]
url = "lavfi:testsrc2=size=320x240:rate=20"
[face]
image = "http://127.0.0.1:1/x.png"
[akool]
api_key = "a-test-key"
base_url = "http://127.0.0.1:1"
[rtc]
kind = "webrtc"
[[output]]
kind = "stream"
url = "{folder}/out.mkv"
[state]
directory = "{folder}/state"
"""


@pytest.mark.parametrize("limit", ["-v 250000", "-v 600000", "-n 16"])
def test_a_relay_under_a_tight_limit_names_it_and_never_ends_with_a_traceback(
    limit: str, tmp_path: Path
) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(CONFIG.format(folder=tmp_path))
    command = f"ulimit {limit}; exec timeout -s INT 4 {sys.executable} -m relayd run -c {config}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert "unexpected " not in done.stderr, done.stderr[-3000:]
    assert done.returncode in {0, 124, ExitCode.UNAVAILABLE}, done.stderr[-3000:]
