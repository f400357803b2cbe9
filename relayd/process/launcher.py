"""Runs in a new process, sets our limits and then executes a third-party program.

    python -P -S -m relayd.process.launcher PARENT PROGRAM ARGUMENT…

Only the child itself can request its parent-death signal, and Python's `preexec_fn` is not safe
in a process with threads. Only the standard library is imported.
"""

import os
import resource
import signal
import sys
from typing import Final, NoReturn

from relayd.process.hardening import die_with_parent, forbid_dumps

LARGEST_FILE: Final = 1024 * 1024
"""Bytes of a file that the program may write: its stderr goes to one, for hours."""
NOT_STARTED: Final = 127
"""Exit status if the program cannot be started, as in a shell."""


def main() -> NoReturn:
    """Set the limits and execute the program."""
    _, parent, *command = sys.argv
    forbid_dumps()
    die_with_parent(int(parent))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    # SIGXFSZ stays ignored, as Python sets it: a write beyond the limit only fails.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    try:
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is needed
    except OSError as fault:
        sys.stderr.write(f"{command[0]} cannot be started: {fault.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
