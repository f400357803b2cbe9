"""How a child is started and ended, whatever it does."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from relayd.process.child import KILL_TIMEOUT, Child, describe_exit, run_to_end
from relayd.process.environment import program_environment, python_environment

LONG = 60
"""s, longer than any test waits."""
SLACK = 5.0
"""s that a busy machine may add."""


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_for(done: Callable[[], object], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def start(*command: str, **settings: object) -> Child:
        environment = program_environment()
        child = Child.start(command, environment=environment, with_stdout=True, **settings)  # type: ignore[arg-type]  # values of several types
        started.append(child)
        return child

    yield start
    for child in started:
        child.end(0.0)
        child.stdout.close()


def read_line(child: Child) -> str:
    return b"".join(iter(lambda: child.stdout.read(1), b"\n")).decode()


def test_a_child_inherits_only_the_passed_descriptors(
    start: Callable[..., Child],
) -> None:
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    os.set_inheritable(others[0], True)
    try:
        child = start("sleep", str(LONG), pass_fds=(others[1],))
        wait_for(lambda: psutil.Process(child.pid).name() == "sleep")
        folder = Path(f"/proc/{child.pid}/fd")
        wait_for(lambda: {int(fd.name) for fd in folder.iterdir()} == {0, 1, 2, others[1]})
    finally:
        for fd in others:
            os.close(fd)


def test_a_child_leads_a_session(start: Callable[..., Child]) -> None:
    child = start("sleep", str(LONG))
    assert os.getsid(child.pid) == child.pid == os.getpgid(child.pid)


def test_a_child_that_ends_by_itself_is_not_killed(start: Callable[..., Child]) -> None:
    child = start("sh", "-c", "read line; exit 3", with_stdin=True)
    assert child.alive
    child.stdin.close()
    assert child.end(20.0)
    assert child.poll() == 3
    assert not child.alive


def test_a_child_that_does_not_end_is_killed_with_everything_that_it_started(
    start: Callable[..., Child],
) -> None:
    child = start("sh", "-c", f"trap '' TERM INT HUP; sleep {LONG} & echo $!; sleep {LONG}")
    grandchild = int(read_line(child))
    began = time.monotonic()
    assert not child.end(0.1)
    assert time.monotonic() - began < 0.1 + KILL_TIMEOUT + SLACK
    assert child.poll() == -9
    wait_for(lambda: is_gone(grandchild))


def test_processes_that_a_child_leaves_behind_end_with_it(start: Callable[..., Child]) -> None:
    child = start("sh", "-c", f"sleep {LONG} & echo $!")
    left = int(read_line(child))
    assert child.end(20.0)
    wait_for(lambda: is_gone(left))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-6, "was ended by SIGABRT"),
        (-40, "was ended by signal 40"),
    ],
)
def test_an_exit_status_is_described_as_text(status: int, text: str) -> None:
    assert describe_exit(status) == text


def test_a_command_that_hangs_is_killed_at_its_time_limit() -> None:
    with pytest.raises(TimeoutError, match=r"sleep did not end within 0\.1 s"):
        run_to_end(["sleep", str(LONG)], timeout=0.1)
    assert run_to_end(["sh", "-c", "echo a; echo b >&2; exit 4"], timeout=20) == (4, "a\n", "b\n")


# Third-party programs.


def test_a_program_gets_our_limits_but_not_our_environment_or_python_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AKOOL_API_KEY", "marker")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    cat = shutil.which("cat")
    assert cat
    with tempfile.TemporaryFile() as stderr:
        program = Child.start_program([cat], stderr=stderr, environment={"LC_ALL": "C.UTF-8"})
        try:
            proc = Path(f"/proc/{program.pid}")
            wait_for(
                lambda: "cat" in (proc / "comm").read_text() and (proc / "environ").read_text()
            )
            environment = (proc / "environ").read_text().split("\0")
            names = {entry.partition("=")[0] for entry in environment if entry}
            assert "PATH" in names
            assert "LC_ALL=C.UTF-8" in environment, "in the language whose answers are read"
            assert not [name for name in names if "AKOOL" in name or "PYTHON" in name]
            limits = (proc / "limits").read_text()
            assert limits.partition("Max core file size")[2].split()[:2] == ["0", "0"]
            assert int((proc / "coredump_filter").read_text(), 16) == 0
            ignored = next(
                line for line in (proc / "status").read_text().splitlines() if "SigIgn" in line
            )
            assert not int(ignored.split()[1], 16) & 1 << 12, "SIGPIPE is ignored"
            program.stdin.write(b"through")
            assert program.stdout.read(7) == b"through"
        finally:
            program.stdin.close()
            assert program.end(20.0)
            program.stdout.close()


def test_a_program_that_cannot_be_started_reports_why() -> None:
    with tempfile.TemporaryFile() as stderr:
        program = Child.start_program(["/nonexistent/program"], stderr=stderr)
        program.stdin.close()
        assert program.end(20.0)
        program.stdout.close()
        stderr.seek(0)
        assert (
            stderr.read() == b"/nonexistent/program cannot be started: No such file or directory\n"
        )
        assert program.poll() == 127


def test_a_program_that_writes_errors_without_end_does_not_fill_the_disk() -> None:
    shell = shutil.which("sh")
    assert shell
    with tempfile.TemporaryFile() as stderr:
        script = "i=0; while [ $i -lt 40 ]; do head -c 65536 /dev/zero >&2; i=$((i+1)); done"
        program = Child.start_program([shell, "-c", script], stderr=stderr)
        program.stdin.close()
        assert program.end(30.0)
        program.stdout.close()
        assert stderr.seek(0, os.SEEK_END) == 1024 * 1024


PARENT = """
import sys, tempfile, time
from relayd.process.child import Child
child = Child.start_program(["/bin/sleep", "60"], stderr=tempfile.TemporaryFile())
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_program_ends_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=python_environment()
    ) as parent:
        assert parent.stdout
        program = int(parent.stdout.readline())
        try:
            wait_for(lambda: psutil.Process(program).name() == "sleep")
            parent.kill()
            wait_for(lambda: is_gone(program))
        finally:
            with suppress(ProcessLookupError):
                os.kill(program, 9)
