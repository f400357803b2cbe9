"""An interpreter with the imports of all commands done: each run of the command is a fork of it.

A run is a process of its own as ever, with its own arguments, environment, folder, standard
streams and exit. It only saves the second that the imports take. What a fresh Python does with
the command is tried by the relays of these tests, and by tests/process/test_early_signals.py,
tests/process/test_descriptors.py and tests/akool/test_commands.py.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "COLUMNS": "120",
    "HOME": "/nonexistent",
    "PYTHONPATH": str(ROOT),
}
"""What each run has, beside what a test gives it."""
LARGEST = 100_000  # bytes of a message: arguments and environment


class Interpreter:
    """The running interpreter; `run` may be called by several threads at once."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=ENVIRONMENT,
                cwd=ROOT,
            )

    def run(
        self, arguments: Sequence[str], environment: dict[str, str], within: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; kill it after `within` seconds, and raise TimeoutExpired."""
        asked = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    streams = [stdout.fileno(), stderr.fileno(), theirs.fileno()]
                    socket.send_fds(self._socket, [json.dumps(asked).encode()], streams)
                status = _status(ours, arguments, within)
            texts = []
            for stream in (stdout, stderr):
                stream.seek(0)
                texts.append(stream.read().decode())
        return subprocess.CompletedProcess(["relayd", *arguments], status, *texts)

    def close(self) -> None:
        """End the interpreter."""
        self._socket.close()
        assert self._process.wait(10) == 0


def _status(answers: socket.socket, arguments: Sequence[str], within: float) -> int:
    """Return the exit code of a run, or the signal that ended it, as a negative number."""
    with answers.makefile() as lines:
        pid = int(lines.readline())
        answers.settimeout(within)
        try:
            return int(lines.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(["relayd", *arguments], within) from None


def main() -> None:
    """Fork for each message; return in the processes that are to be the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for a run end by themselves
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while True:
            message, streams, _, _ = socket.recv_fds(requests, LARGEST, 3)
            if not message:
                os._exit(0)
            if not os.fork():
                break
            for stream in streams:
                os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stdout, stderr, answers = streams
    if not (pid := os.fork()):
        os.close(answers)
        _become(json.loads(message), stdout, stderr)
        return
    os.write(answers, b"%d\n" % pid)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(answers, b"%d\n" % status)
    os._exit(0)


def _become(asked: dict[str, Any], stdout: int, stderr: int) -> None:
    """Take over the streams, the environment, the folder and the arguments of a run."""
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["relayd", *asked["arguments"]]


if __name__ == "__main__":
    main()
    from relayd.__main__ import main as run_command

    run_command()
