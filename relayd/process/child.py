"""A child process: how it is started, and the one way in which it ends.

This module alone starts processes.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Final

from relayd import logs
from relayd.logs import LogEvent
from relayd.process.environment import program_environment, python_environment

KILL_TIMEOUT: Final = 0.5
"""s for a killed process to be gone; one that a driver holds in the kernel takes longer."""

_log = logs.get("process")


class Child:
    """One child, leader of a session of its own.

    So a terminal's Ctrl-C and hang-up are ours alone, and what the child starts ends with it. It
    inherits the descriptors that are passed and no other. Any thread may call any method.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._reap_lock = threading.Lock()
        self._is_reaped = False
        self.pid = process.pid
        """Its process id, and that of its group."""

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        with_stdin: bool = False,
        with_stdout: bool = False,
        stderr: "IO[bytes] | None" = None,
    ) -> "Child":
        """Start a process of ours; its environment is `environment` alone.

        Its stdin is a pipe with `with_stdin`, else empty; its stdout a pipe with `with_stdout`,
        else ours; its stderr ours, or the file `stderr`. Raises OSError, and ValueError for an
        argument with a NUL.
        """
        return cls(
            subprocess.Popen(  # noqa: S603 - our own modules, no shell
                list(command),
                bufsize=0,
                env=dict(environment),
                pass_fds=tuple(pass_fds),
                stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if with_stdout else None,
                stderr=stderr,
                start_new_session=True,
            )
        )

    @classmethod
    def start_program(
        cls, command: Sequence[str], *, stderr: "IO[bytes]", pass_fds: Sequence[int] = ()
    ) -> "Child":
        """Start a program of another maker, with pipes as its stdin and stdout.

        `command` begins with its full path. It is killed when the calling thread ends. Raises
        what `start` does.
        """
        # -P: the folder we happen to run in is no place to import from; -S: nor are packages.
        launcher = [sys.executable, "-P", "-S", "-m", "relayd.process.launcher", str(os.getpid())]
        return cls.start(
            [*launcher, *command],
            environment=python_environment(),
            pass_fds=pass_fds,
            with_stdin=True,
            with_stdout=True,
            stderr=stderr,
        )

    @property
    def stdin(self) -> "IO[bytes]":
        """Our end of its stdin: unbuffered; whoever started it closes this."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> "IO[bytes]":
        """Our end of its stdout: unbuffered; whoever started it closes this."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return self._process.returncode is None

    def poll(self) -> int | None:
        """Look for its end; returns its exit status, negative for a signal, None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for its end; returns what `poll` does."""
        try:
            return self._process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Send SIGKILL; what it started goes with `end` or `reap`."""
        self._process.kill()

    def end(self, within: float) -> bool:
        """Wait up to `within` seconds for its end, then kill it; end all that it started.

        Takes KILL_TIMEOUT longer at most. False where it had to be killed.
        """
        in_time = self.wait(within) is not None
        if not in_time:
            self.kill()
            if self.wait(KILL_TIMEOUT) is None:
                _log.error(LogEvent.PROCESS_UNKILLABLE, pid=self.pid)
        self.reap()
        return in_time

    def reap(self) -> None:
        """Kill what it started and left behind, which is in its process group; once only."""
        with self._reap_lock:
            if self._is_reaped:
                return
            self._is_reaped = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def describe_exit(status: int) -> str:
    """Say how a process ended, from what `Child.poll` gives, to follow its name."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has none
        return f"was ended by signal {-status}"


def run_to_end(
    command: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    umask: int = -1,
) -> tuple[int, str, str]:
    """Run a program of this machine to its end; returns its status, stdout and stderr.

    It gets `environment`, by default what every program gets. Raises OSError where it cannot be
    started, TimeoutError where it takes more than `timeout` seconds, and kills it then.
    """
    try:
        done = subprocess.run(  # noqa: S603 - no shell, fixed programs
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            umask=umask,
            env=program_environment() if environment is None else dict(environment),
        )
    except subprocess.TimeoutExpired as fault:
        raise TimeoutError(f"{command[0]} did not end within {timeout:g} s") from fault
    return done.returncode, done.stdout, done.stderr
