"""Named pipes and standard input."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relayd.errors import SourceLost, SourceUnreachable
from relayd.source.events import SourceDown, SourceEnded, SourceOpened
from relayd.source.pipes import Pipe

if TYPE_CHECKING:
    from tests.source.conftest import Watch
    from tests.support.clips import Clips


class Writer:
    """Writes a file's bytes into a pipe, each part when it is asked to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: threading.Thread | None = None

    def start(self, *parts: bytes, pause: threading.Event | None = None) -> None:
        """Write the parts, waiting for `pause` between two."""

        def write() -> None:
            with suppress(BrokenPipeError), self._path.open("wb") as pipe:
                for number, part in enumerate(parts):
                    if number and pause is not None:
                        pause.wait(10)
                    pipe.write(part)
                    pipe.flush()

        self._thread = threading.Thread(target=write)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(10)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def writer(fifo: Path) -> Iterator[Writer]:
    made = Writer(fifo)
    yield made
    made.join()


def test_a_pipe_is_paced_by_its_stamps_and_loses_no_picture(
    fifo: Path, writer: Writer, watch: "Watch", clips: "Clips"
) -> None:
    began = time.monotonic()
    watched = watch(fifo)
    writer.start(clips.grey_ramp("ramp.ts", 40, 20).read_bytes())
    _, event = watched.wait_for(SourceOpened, 3)
    assert event.kind == "pipe"
    at, _ = watched.wait_for(SourceDown, 6)
    assert at - began >= 38 / 20
    assert watched.reader.counters.frames >= 39


def test_the_end_of_a_pipe_is_a_loss_and_the_next_writer_is_read(
    fifo: Path, writer: Writer, watch: "Watch", clips: "Clips"
) -> None:
    content = clips.grey_ramp("short.ts", 10, 20).read_bytes()
    watched = watch(fifo)
    writer.start(content)
    _, event = watched.wait_for(SourceDown, 5)
    assert isinstance(event.error, SourceLost)
    assert "the program that wrote into it is gone" in str(event.error)
    writer.join()
    count = len(watched.events())
    writer.start(content)
    watched.wait_for(SourceOpened, 5, after=count)


def test_a_pipe_without_a_writer_is_said_and_waited_for(
    fifo: Path, writer: Writer, watch: "Watch", clips: "Clips"
) -> None:
    watched = watch(fifo, open_timeout=0.5)
    _, event = watched.wait_for(SourceDown, 3)
    assert isinstance(event.error, SourceUnreachable)
    assert "no program wrote into it within 0.5 s" in str(event.error)
    writer.start(clips.grey_ramp("ramp.ts", 40, 20).read_bytes())
    watched.wait_for(SourceOpened, 5)


def test_stop_ends_the_wait_for_a_writer_at_once(fifo: Path, watch: "Watch") -> None:
    watched = watch(fifo)
    time.sleep(0.2)
    before = time.monotonic()
    assert watched.reader.stop()
    assert time.monotonic() - before < 1.0


def test_a_writer_that_pauses_is_a_loss_and_goes_on_where_it_stopped(
    fifo: Path, writer: Writer, watch: "Watch", clips: "Clips"
) -> None:
    content = clips.grey_ramp("ramp.mkv", 40, 20).read_bytes()  # its header comes once
    pause = threading.Event()
    watched = watch(fifo, stall_timeout=0.5)
    writer.start(content[: len(content) // 2], content[len(content) // 2 :], pause=pause)
    _, event = watched.wait_for(SourceDown, 5)
    assert "no picture for" in str(event.error)
    count = len(watched.events())
    pause.set()
    watched.wait_for(SourceOpened, 5, after=count)
    watched.arrivals(3)


def test_standard_input_is_paced_and_its_end_is_the_end(watch: "Watch", clips: "Clips") -> None:
    began = time.monotonic()
    readable, writable = os.pipe()
    clip = clips.grey_ramp("ramp.ts", 40, 20)
    with subprocess.Popen(["/bin/cat", str(clip)], stdout=writable):
        os.close(writable)
        watched = watch(f"pipe:{readable}")
        _, event = watched.wait_for(SourceOpened, 3)
        assert event.kind == "pipe"
        at, _ = watched.wait_for(SourceEnded, 6)
        assert at - began >= 38 / 20
        assert watched.reader.counters.frames >= 39
    os.close(readable)


def test_a_file_as_standard_input_is_looped_like_any_other(watch: "Watch", clips: "Clips") -> None:
    with clips.grey_ramp("short.mp4", 10, 20).open("rb") as file:
        watched = watch(f"pipe:{file.fileno()}")
        _, event = watched.wait_for(SourceOpened, 3)
        assert event.kind == "file"
        watched.arrivals(15, since=0)
        assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_read_that_is_no_longer_wanted_takes_nothing_from_the_pipe(fifo: Path) -> None:
    pipe = Pipe(str(fifo), "pipe")
    fd = os.open(fifo, os.O_WRONLY)
    os.write(fd, b"kept")
    assert pipe.read(4, lambda: True) is None
    assert pipe.read(4, lambda: False) == b"kept"
    os.close(fd)
    assert pipe.read(4, lambda: False) == b""
    pipe.close()
    pipe.close()


def test_a_pipe_that_is_removed_and_created_again_is_read(
    fifo: Path, writer: Writer, watch: "Watch", clips: "Clips"
) -> None:
    content = clips.grey_ramp("short.ts", 10, 20).read_bytes()
    watched = watch(fifo)
    writer.start(content)
    watched.wait_for(SourceDown, 5)
    writer.join()
    fifo.unlink()
    os.mkfifo(fifo)
    count = len(watched.events())
    writer.start(content)
    watched.wait_for(SourceOpened, 5, after=count)
