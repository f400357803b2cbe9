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
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.process.early_signals import command_of
from tests.support.pid1 import (
    AS_PID_1,
    PATIENCE,
    first_child,
    is_caught,
    needs_unshare,
    wait_until_handled,
)

ROOT = Path(__file__).parents[2]


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
