"""Child processes: how they are started, and the one way in which they are ended.

Only this module starts processes.
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
"""s for a killed process to exit; one that is blocked in a driver takes longer."""

_log = logs.get("process")


class Child:
    """One child process, leader of its own session.

    So a terminal's Ctrl-C and hang-up reach only us, and what the child starts ends with it. It
    inherits only the descriptors that are passed. Any thread may call any method.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._reap_lock = threading.Lock()
        self._is_reaped = False
        self.pid = process.pid
        """Its process id and process group id."""

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
        """Start a process of relayd; its environment is exactly `environment`.

        Its stdin is a pipe with `with_stdin`, else empty; its stdout a pipe with `with_stdout`,
        else ours; its stderr ours, or the file `stderr`. Raises OSError, and ValueError for an
        argument with a NUL byte.
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
        cls,
        command: Sequence[str],
        *,
        stderr: "IO[bytes]",
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> "Child":
        """Start a third-party program, with pipes as its stdin and stdout.

        `command` starts with its full path; `environment` adds or replaces variables. It is killed
        when the calling thread ends. Raises what `start` does.
        """
        # -P: never import from the current directory; -S: nor from site-packages.
        launcher = [sys.executable, "-P", "-S", "-m", "relayd.process.launcher", str(os.getpid())]
        return cls.start(
            [*launcher, *command],
            environment={**python_environment(), **(environment or {})},
            pass_fds=pass_fds,
            with_stdin=True,
            with_stdout=True,
            stderr=stderr,
        )

    @property
    def stdin(self) -> "IO[bytes]":
        """Our end of its stdin, unbuffered; the caller closes it."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> "IO[bytes]":
        """Our end of its stdout, unbuffered; the caller closes it."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return self._process.returncode is None

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal, None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for its end; returns what `poll` does."""
        try:
            return self._process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Send SIGKILL; `end` or `reap` ends what it started."""
        self._process.kill()

    def end(self, within: float) -> bool:
        """Wait up to `within` seconds for its end, then kill it; end everything that it started.

        Takes at most KILL_TIMEOUT longer. False if it had to be killed.
        """
        in_time = self.wait(within) is not None
        if not in_time:
            self.kill()
            if self.wait(KILL_TIMEOUT) is None:
                _log.error(LogEvent.PROCESS_UNKILLABLE, pid=self.pid)
        self.reap()
        return in_time

    def reap(self) -> None:
        """Kill the processes that it left behind in its process group; only once."""
        with self._reap_lock:
            if self._is_reaped:
                return
            self._is_reaped = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def describe_exit(status: int) -> str:
    """Describe how a process ended, from the status of `Child.poll`, to follow its name."""
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

    It gets `environment`, by default `program_environment()`. Raises OSError if it cannot be
    started, and TimeoutError if it takes more than `timeout` seconds, after killing it.
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
