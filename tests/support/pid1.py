"""Commands as the first process of a container (PID 1), and when they handle signals."""

import contextlib
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

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


def first_child(process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + PATIENCE
    while not (children := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline, "nothing was started"
    return children[0].pid
