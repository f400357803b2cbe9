"""Only one relay per name runs on a state directory."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from relayd.errors import ExitCode, Unavailable
from relayd.process.name_lock import Holder, NameLock

HOLD = """
import sys
from pathlib import Path
from relayd.process.name_lock import NameLock
NameLock(Path(sys.argv[1]), "studio").take()
print("taken", flush=True)
sys.stdin.read()
"""


def lock(directory: Path, name: str = "studio") -> NameLock:
    return NameLock(directory, name, sleep=lambda _seconds: None)


def test_a_second_relay_of_a_name_is_refused_with_holder_directory_and_hint(tmp_path: Path) -> None:
    with lock(tmp_path).take(), pytest.raises(Unavailable) as caught:
        lock(tmp_path).take()
    assert caught.value.exit_code is ExitCode.UNAVAILABLE
    message = str(caught.value)
    assert "relay 'studio' is already running" in message
    assert f"process {os.getpid()}" in message
    assert repr(str(tmp_path)) in message
    assert "another name" in message
    assert "[state] directory" in message
    lock(tmp_path).take().release()


def test_another_name_or_another_directory_is_free(tmp_path: Path) -> None:
    with lock(tmp_path).take(), lock(tmp_path, "kitchen").take(), lock(tmp_path / "b").take():
        assert lock(tmp_path).holder() == Holder(os.getpid(), os.uname().nodename)
        assert lock(tmp_path, "hall").holder() is None
    assert lock(tmp_path).holder() is None


def test_neither_a_killed_process_nor_a_child_keeps_the_name(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"taken\n"
        assert lock(tmp_path).holder() == Holder(process.pid, os.uname().nodename)
        with pytest.raises(Unavailable, match=f"process {process.pid}"):
            lock(tmp_path).take()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    with lock(tmp_path).take():
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        assert lock(tmp_path).holder() is None, "a child keeps the lock of its parent"
    finally:
        child.kill()
        child.wait()


def test_a_check_at_the_moment_of_a_start_does_not_refuse_it(tmp_path: Path) -> None:
    lock(tmp_path).take().release()
    checking = os.open(tmp_path / "relays" / "studio.lock", os.O_RDWR)
    fcntl.flock(checking, fcntl.LOCK_SH)
    waits: list[float] = []

    def check_is_over(seconds: float) -> None:
        if not waits:
            os.close(checking)
        waits.append(seconds)

    with NameLock(tmp_path, "studio", sleep=check_is_over).take():
        assert len(waits) == 1


def test_a_file_system_without_locks_causes_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with capture_logs() as logs, lock(tmp_path).take():
        assert lock(tmp_path).holder() is None
    assert [entry["event"] for entry in logs] == ["name.not_locked"]
    assert logs[0]["reason"] == "No locks available"


def test_an_unusable_directory_causes_only_a_warning_since_the_journal_refuses_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    with capture_logs() as logs, lock(tmp_path / "file").take():
        pass
    assert [entry["event"] for entry in logs] == ["name.not_locked"]


@pytest.mark.parametrize("text", ["", "x", "-1 a", "1 a b", "9" * 11 + " a", "\0" * 600])
def test_a_lock_with_unreadable_text_is_held_by_another_process(tmp_path: Path, text: str) -> None:
    with lock(tmp_path).take():
        (tmp_path / "relays" / "studio.lock").write_text(text)
        assert str(lock(tmp_path).holder()) == "another process"


def test_a_holder_on_another_machine_is_shown_with_its_host() -> None:
    assert str(Holder(1, "studio-7f9c")) == "process 1 on studio-7f9c"
