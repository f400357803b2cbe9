"""Waiting works for descriptors of any number, and children get only what they should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relayd.process.descriptors import keep_from_children, wait_readable

MANY = """
import os, resource, sys, threading, time
from pathlib import Path

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
while os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) < 1024:
    pass
"""
"""The start of a program in which all further descriptors are above 1024."""

SLOT = """
import numpy as np
from relayd.media.frames import Geometry
from relayd.media.slots import SharedSlot

size = Geometry(64, 48)
slot = SharedSlot.create(size, "test")
assert slot.bell_fd > 1024
assert not slot.wait(0.01)
slot.write(np.zeros(size.shape, np.uint8), 1.0)
assert slot.wait(5)
"""

STREAM = """
from relayd.media.frames import Geometry, StandbyFrame, black
from relayd.output.stream import StreamOutput

size = Geometry(64, 48)
events = []
output = StreamOutput(sys.argv[1], size, 20, 200, on_event=events.append)
output.open()
deadline = time.monotonic() + 20
while output.stats().frames < 5 and time.monotonic() < deadline:
    output.show(StandbyFrame(black(size), ""))
    time.sleep(0.05)
output.close()
assert output.stats().frames >= 5, events
"""

SRT = """
from relayd.media.srt import SrtReader

reader = SrtReader("srt://127.0.0.1:9?timeout=100000", "srt", open_timeout=0.3, read_timeout=0.3,
                   cancelled=threading.Event())
assert reader.read(10) == b""
assert reader.fault
reader.close()
"""

WORKER = """
from relayd.media.frames import Geometry
from relayd.rtc.link import LinkEventKind
from relayd.rtc.process import RtcWorker

events = []
worker = RtcWorker(Geometry(64, 48), on_event=events.append, on_picture=lambda _: None)
worker.start()
assert worker._control.fileno() > 1024
deadline = time.monotonic() + 20
while not events and time.monotonic() < deadline:
    time.sleep(0.02)
worker.stop(2.0)
assert [event.kind for event in events] == [LinkEventKind.READY], events
"""


@pytest.mark.parametrize(
    "work", [SLOT, STREAM, SRT, WORKER], ids=["slot", "stream", "srt", "worker"]
)
def test_a_process_with_more_than_1024_descriptors_works(work: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY + work, str(tmp_path / "out.mkv")],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_readable_and_ended_descriptors_are_returned_and_others_are_not() -> None:
    readable, into = os.pipe()
    try:
        assert wait_readable((readable,), 0) == set()
        assert wait_readable((readable,), -1) == set()
        os.close(into)
        assert wait_readable((readable,), 5) == {readable}
    finally:
        os.close(readable)


def test_descriptors_kept_from_children_are_closed_in_them() -> None:
    readable, into = os.pipe()
    try:
        os.set_inheritable(into, True)
        keep_from_children((into,))
        seen = subprocess.run(
            [sys.executable, "-c", f"import os; os.fstat({into})"],
            close_fds=False,
            check=False,
            capture_output=True,
        )
        assert b"Bad file descriptor" in seen.stderr
    finally:
        os.close(readable)
        os.close(into)


STREAMS = """
import json, os, socket, subprocess, sys
from relayd.process import stdio

stdio.open_missing()
first = socket.socket().fileno()
print("something")
sys.stderr.write("something")
child = subprocess.run([sys.executable, "-c", "import os; [os.fstat(n) for n in (0, 1, 2)]"])
with open(sys.argv[1], "w") as file:
    streams = [os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)]
    json.dump([first, child.returncode, streams], file)
"""


@pytest.mark.parametrize("closed", [(1,), (2,), (0,), (0, 1, 2)])
def test_a_process_started_without_standard_streams_has_empty_ones(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    result = tmp_path / "result"
    shut = " ".join(f"{number}>&-" for number in closed)
    subprocess.run(
        ["sh", "-c", f'exec "$@" {shut}', "sh", sys.executable, "-c", STREAMS, str(result)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    first, child, streams = json.loads(result.read_text())
    assert first > 2
    assert child == 0
    assert all(streams[number] == "/dev/null" for number in closed)


def test_a_command_without_stdout_or_stderr_exits_as_with_them(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    command = [sys.executable, "-m", "relayd", "check", "--config", missing]
    usual = subprocess.run(command, check=False, capture_output=True)
    for closed in ("1>&-", "2>&-", "0>&- 1>&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *command], check=False, capture_output=True
        )
        assert done.returncode == usual.returncode == 78


ODD_NAMES = """
import sys
from relayd.process import stdio

stdio.escape_unprintable()
for stream in (sys.stdout, sys.stderr):
    stream.write(chr(0xdcff) + chr(0xfc) + chr(0x2026))
"""


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8:strict", "\\udcff\u00fc\u2026".encode()),
        ("latin-1", b"\\udcff\xfc\\u2026"),
        ("ascii", b"\\udcff\\xfc\\u2026"),
    ],
)
def test_characters_that_a_terminal_cannot_show_are_escaped(encoding: str, shown: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ODD_NAMES],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.stdout, done.stderr) == (shown, shown)
