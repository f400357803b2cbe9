"""Runs in a new process and becomes a program of another maker, with our limits set first.

    python -P -S -m relayd.process.launcher PARENT PROGRAM ARGUMENT…

Only the child itself can ask for its death signal, and Python's `preexec_fn` is not safe in a
process with threads. Nothing but the standard library is imported.
"""

import os
import resource
import signal
import sys
from typing import Final, NoReturn

from relayd.process.hardening import die_with_parent, forbid_dumps

LARGEST_FILE: Final = 1024 * 1024
"""Bytes of a file that the program may write: its complaints go to one, for hours."""
NOT_STARTED: Final = 127
"""Exit status where the program cannot be started, as a shell has it."""


def main() -> NoReturn:
    """Set the limits and become the program."""
    _, parent, *command = sys.argv
    forbid_dumps()
    die_with_parent(int(parent))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    # SIGXFSZ stays ignored, as Python has it: a write beyond the limit fails, and that is all.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    try:
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
    except OSError as fault:
        sys.stderr.write(f"{command[0]} cannot be started: {fault.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
