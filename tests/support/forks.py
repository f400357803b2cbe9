"""A process with the relay's imports done, that forks a run of the command for each line it reads.

A start takes a tenth of what a fresh Python needs, so that hundreds of kills fit into minutes.
It answers each line with the run's process id, and each ended run with its id and status.
"""

import os
import shlex
import signal
import sys

import relayd.commands.run
import relayd.relay.relay  # noqa: F401 - shared with every run
from relayd.commands import app


def run(arguments: list[str]) -> None:
    """Be the command, to its exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.argv = ["relayd", *arguments]
    status = 1
    try:
        app.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Follow lines until stdin ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a killed run ended
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            run(shlex.split(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
