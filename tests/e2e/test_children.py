"""What the processes of a real relay get of it, and leave behind in a crash."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.source.conftest import SrtCamera
from tests.support.stage import (
    LIVE,
    PERSON,
    Emulator,
    free_port,
    relay_config,
    wait_for,
)

pytestmark = pytest.mark.relay

SECRETS = {
    "AKOOL_API_KEY": "marker-key",
    "AWS_SECRET_ACCESS_KEY": "marker-aws",
    "CREDENTIALS_DIRECTORY": "/nonexistent/marker",
    "RELAYD_FACE__LANDMARKS": "",
    "SOMETHING_ELSE": "marker-else",
}
FFMPEG = shutil.which("ffmpeg") or ""
WORKER, PUSHER, EMULATOR = "relayd.rtc.worker", "relayd.output.pusher", "emulator"
NO_LIMIT = ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh"]


@dataclass
class Crowd:
    """A program with its children, which works in a folder of its own."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    def child(self, *words: str) -> psutil.Process:
        """Wait for a descendant whose command line has one of these words."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            children = psutil.Process(self.process.pid).children(recursive=True)
            found[:] = [child for child in children if set(words) & set(command(child))]
            return bool(found)

        wait_for(f"a child with {words}", is_there, LIVE)
        return found[0]

    def cores(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.name.startswith("core")]


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def limits(pid: int) -> list[str]:
    words = Path(f"/proc/{pid}/limits").read_text().partition("Max core file size")[2]
    return words.split()[:2]


Start = Callable[..., Crowd]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Crowd] = []

    def started(*arguments: object, **settings: object) -> Crowd:
        folder = tmp_path / "here"
        folder.mkdir()
        log = tmp_path / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*NO_LIMIT, sys.executable, "-m", "relayd", *map(str, arguments)],
                cwd=folder,
                env=os.environ | SECRETS,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                **settings,  # type: ignore[call-overload]  # pass_fds, where a test has some
            )
        running.append(Crowd(process, folder, log))
        return running[-1]

    yield started
    for crowd in running:
        crowd.process.terminate()
        try:
            crowd.process.wait(20)
        finally:
            crowd.process.kill()
            crowd.process.wait()


@pytest.fixture
def start_relay(emulator: Emulator, tmp_path: Path, start: Start) -> Start:
    def started(source: str = str(PERSON), **settings: object) -> Crowd:
        config = tmp_path / "studio.toml"
        config.write_text(relay_config(emulator, source, tmp_path))
        return start("run", "-c", config, **settings)

    return started


def environment(process: psutil.Process) -> str:
    """Wait for a process to be what it will be, and give its environment."""
    path = Path(f"/proc/{process.pid}/environ")
    wait_for("an environment", path.read_text, LIVE)
    return path.read_text()


def descriptors(pid: int) -> set[str]:
    """Return what a process has open."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(fd.readlink()))
    return found


@pytest.fixture
def camera() -> Iterator[SrtCamera]:
    camera = SrtCamera()
    camera.start()
    yield camera
    camera.kill()


def is_ffmpeg(child: psutil.Process) -> bool:
    return child.name() == "ffmpeg"


def is_limited(child: psutil.Process) -> bool:
    return limits(child.pid) == ["0", "0"]


def is_gone(child: psutil.Process) -> bool:
    return not child.is_running()


def has_died(child: psutil.Process) -> bool:
    return is_gone(child) or child.status() == "zombie"


needs_ffmpeg = pytest.mark.skipif(not FFMPEG, reason="SRT goes through the program ffmpeg")


@needs_ffmpeg
def test_no_child_of_a_relay_gets_the_key_or_anything_else_of_its_environment(
    start_relay: Start, camera: SrtCamera
) -> None:
    relay = start_relay(camera.url())
    assert "marker-key" in environment(psutil.Process(relay.process.pid))
    for word in (FFMPEG, PUSHER, WORKER):
        child = relay.child(word)
        if word == FFMPEG:
            wait_for("ffmpeg itself", partial(is_ffmpeg, child), LIVE)
        seen = environment(child)
        assert "PATH=" in seen
        assert "marker" not in seen
        assert "AKOOL" not in seen
        assert "RELAYD" not in seen
        assert limits(child.pid) == ["0", "0"]
    assert limits(relay.process.pid) == ["0", "0"]


@needs_ffmpeg
def test_children_inherit_what_was_passed_and_no_other_descriptor(
    start_relay: Start, camera: SrtCamera
) -> None:
    readable, into = os.pipe()
    try:
        relay = start_relay(camera.url(), pass_fds=(into,))
        pipe = str(Path(f"/proc/self/fd/{into}").readlink())
        assert pipe in descriptors(relay.process.pid)
        for word in (FFMPEG, PUSHER, WORKER):
            seen = descriptors(relay.child(word).pid)
            assert pipe not in seen
            assert not [target for target in seen if "/state/" in target]
    finally:
        os.close(readable)
        os.close(into)


def test_a_relay_and_its_children_that_abort_leave_no_core(start_relay: Start) -> None:
    relay = start_relay()
    for word in (WORKER, PUSHER):
        child = relay.child(word)
        wait_for("its limits", partial(is_limited, child), LIVE)
        filter_ = Path(f"/proc/{child.pid}/coredump_filter")
        assert int(filter_.read_text(), 16) == 0
        child.send_signal(signal.SIGABRT)
        wait_for("its end", partial(has_died, child), LIVE)
    wait_for("it is noticed", lambda: "SIGABRT" in relay.log.read_text(), LIVE)
    relay.process.send_signal(signal.SIGABRT)
    assert relay.process.wait(20) == -signal.SIGABRT
    assert relay.cores() == []


def test_the_demos_emulator_gets_nothing_of_the_environment_either(start: Start) -> None:
    demo = start("demo", "--no-camera", "--port", "0", "--seconds", "60")
    for word in (EMULATOR, WORKER):
        seen = environment(demo.child(word))
        assert "marker" not in seen
        assert "AKOOL" not in seen


@needs_ffmpeg
def test_a_relay_that_is_killed_leaves_no_process(start_relay: Start) -> None:
    relay = start_relay(f"srt://127.0.0.1:{free_port()}?mode=listener")
    children = [relay.child(word) for word in (FFMPEG, PUSHER)]
    wait_for("ffmpeg itself", lambda: children[0].name() == "ffmpeg", LIVE)
    relay.process.kill()
    for child in children:
        wait_for(f"the end of {child}", partial(is_gone, child), 10)
