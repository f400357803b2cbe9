"""A crash and other programs reveal nothing of a process."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from relayd.process.hardening import is_dumpable

PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
NOBODY = 65534

HARDENED = """
import os, resource, signal
from pathlib import Path
from relayd.process.hardening import forbid_dumps, is_dumpable
forbid_dumps()
forbid_dumps()
assert not is_dumpable()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert int(Path("/proc/self/coredump_filter").read_text(), 16) == 0
os.kill(os.getpid(), signal.SIGABRT)
"""
BARE = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"


def abort(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that aborts, in `folder`, without a limit on core dumps."""
    return subprocess.run(
        ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_abort_leaves_no_core_whatever_the_limits_were(tmp_path: Path) -> None:
    done = abort(HARDENED, tmp_path)
    assert done.returncode == -signal.SIGABRT, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(PATTERN[0] in "|/", reason="cores do not go to the working directory")
def test_without_hardening_there_would_be_a_core(tmp_path: Path) -> None:
    done = abort(BARE, tmp_path)
    if "Operation not permitted" in done.stderr:
        pytest.skip("the hard limit allows no core")
    assert [path.name[:4] for path in tmp_path.iterdir()] == ["core"]


def test_this_process_is_not_changed() -> None:
    assert is_dumpable()


INSPECT = f"""
import os, sys
from pathlib import Path
from relayd.process.open_files import descriptors
from relayd.process import hardening
from relayd.process.child import run_to_end

os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
hardening._prctl(hardening._PR_SET_DUMPABLE, 1)  # as after an exec
hardening.forbid_dumps()
file = os.open(sys.argv[1], os.O_RDONLY)
found = os.fstat(file)
assert (found.st_dev, found.st_ino) in descriptors(Path("/proc/self"))
for command in (["cat", f"/proc/{{os.getpid()}}/environ"], ["ls", f"/proc/{{os.getpid()}}/fd"]):
    status, stdout, stderr = run_to_end(command, timeout=20)
    assert status, stdout
    assert "Permission denied" in stderr, stderr
"""


@needs_root
def test_other_programs_of_the_user_cannot_inspect_it_but_it_can_itself() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "file")
        file.touch()
        done = subprocess.run(
            [sys.executable, "-c", INSPECT, str(file)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
    assert done.returncode == 0, done.stderr
