"""Signals that come before the event loop runs: in the first second of a command's life.

Each command reads its configuration from a pipe without a writer. So it is importing modules or
reading, and has opened nothing, whenever a signal arrives.
"""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from relayd.process.early_signals import command_of

ROOT = Path(__file__).parents[1]
PATIENCE = 20.0  # s that a process may take for what usually takes 0.1 s
AS_PID_1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def may_unshare() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*AS_PID_1, "true"], capture_output=True, check=False).returncode == 0
    return False


needs_unshare = pytest.mark.skipif(
    not may_unshare(), reason="no process can be PID 1 here: unshare is missing or not permitted"
)


def is_caught(pid: int, number: int) -> bool:
    """Whether a process has set a handler for a signal."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def wait_until_handled(pid: int) -> None:
    """Wait until a command has set its handlers, the one for SIGTERM last."""
    deadline = time.monotonic() + PATIENCE
    while not is_caught(pid, signal.SIGTERM):
        assert time.monotonic() < deadline, "no handler was set"


@pytest.fixture
def silent_file(tmp_path: Path) -> Path:
    file = tmp_path / "relay.toml"
    os.mkfifo(file)
    return file


@contextlib.contextmanager
def started(
    *command: str | Path, stdin: int = subprocess.DEVNULL, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=stdin, stderr=subprocess.PIPE, env=os.environ | environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def relayd(command: str, file: Path) -> list[str | Path]:
    return [sys.executable, "-m", "relayd", command, "-c", file]


def first_child(process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + PATIENCE
    while not (children := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline, "nothing was started"
    return children[0].pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_anything_is_open_exits_with_0(
    silent_file: Path, number: signal.Signals
) -> None:
    with started(*relayd("run", silent_file)) as process:
        wait_until_handled(process.pid)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b"", "it prints nothing, and no traceback"


@needs_unshare
@pytest.mark.parametrize(
    ("command", "code"), [("run", 0), ("check", 128 + signal.SIGTERM)], ids=["run", "check"]
)
def test_sigterm_is_not_lost_in_a_containers_first_process(
    silent_file: Path, command: str, code: int
) -> None:
    with started(*AS_PID_1, *relayd(command, silent_file)) as process:
        pid = first_child(process)
        wait_until_handled(pid)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == code


def test_sigterm_kills_a_command_that_ends_by_itself_as_usual(silent_file: Path) -> None:
    with started(*relayd("check", silent_file)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM


def test_a_hangup_does_not_end_a_relay_without_a_terminal(silent_file: Path) -> None:
    with started(*relayd("run", silent_file)) as process:
        wait_until_handled(process.pid)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_hangup_ends_a_relay_in_a_terminal_but_not_under_systemd(
    silent_file: Path,
) -> None:
    master, slave = pty.openpty()
    try:
        with started(*relayd("run", silent_file), stdin=slave, NOTIFY_SOCKET="") as process:
            wait_until_handled(process.pid)
            process.send_signal(signal.SIGHUP)
            assert process.wait(PATIENCE) == 0
        with started(*relayd("run", silent_file), stdin=slave, NOTIFY_SOCKET="@none") as process:
            wait_until_handled(process.pid)
            process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
    finally:
        os.close(master)
        os.close(slave)


def test_a_hangup_that_nohup_ignores_stays_ignored_from_the_start(silent_file: Path) -> None:
    with started("nohup", *relayd("run", silent_file)) as process:
        wait_until_handled(process.pid)
        assert not is_caught(process.pid, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["relayd"], ""),
        (["relayd", "--version"], ""),
        (["relayd", "run", "-c", "check.toml"], "run"),
        (["relayd", "check", "-c", "run"], "check"),
    ],
)
def test_the_command_is_the_first_argument_that_is_not_an_option(
    argv: list[str], command: str
) -> None:
    assert command_of(argv) == command
