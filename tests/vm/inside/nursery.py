"""Runs in the guest: `relayd` commands, each a fork of one process that has imported them.

Emulation makes the imports of one start take 10 to 30 s. So they are done once; each run is
then the whole command in a process of its own, from reading its arguments to its exit code.
Orders come on stdin: `start USER [NAME=VALUE…] ARGUMENT…` or `signal PID NUMBER`. Told on stdout:
`nursery ready`, `nursery started PID`, `nursery ended PID STATUS`. Runs log to our stderr.
A user other than root is in the group video alone, as a unit's is.

What is slowed, and only what takes a link that the emulated machine needs so long for: an RTC
worker gets LINK_LIMIT seconds to start in, and the limits of inside/worker.py to connect.
"""

import contextlib
import ctypes
import faulthandler
import grp
import os
import pwd
import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn

import aiortc  # noqa: F401 - the worker shares its cached files

import relayd.commands.demo
import relayd.commands.run
import relayd.relay.relay  # noqa: F401
from relayd.commands import app
from relayd.relay import machine, session_link, session_set, sessions
from relayd.rtc.process import RtcWorker

LINK_LIMIT = 120.0
WORKER, MIRROR = (Path(__file__).with_name(name) for name in ("worker.py", "mirror.py"))
MIRROR_DELAY = Path("/run/relayd/mirror")
"""Where it is, a test wants the mirror."""
PR_SET_DUMPABLE = 4


def say(*words: object) -> None:
    """Tell the host."""
    sys.stdout.write(f"nursery {' '.join(map(str, words))}\n")
    sys.stdout.flush()


def start(user: str, arguments: list[str]) -> None:
    """Fork a run of the command; what stands before its name is added to its environment."""
    if pid := os.fork():
        say("started", pid)
        return
    if user != "root":
        become(user)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    while "=" in arguments[0]:
        name, _, value = arguments.pop(0).partition("=")
        os.environ[name] = value
    sys.argv = ["relayd", *arguments]
    run()


def become(user: str) -> None:
    """Be another user, who may use the cameras."""
    entry = pwd.getpwnam(user)
    os.setgroups([grp.getgrnam("video").gr_gid])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    # Else, unlike after an exec, not even its own files in /proc would be its own.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)


def run() -> NoReturn:
    """Be the command, to its exit."""
    status = 1
    try:
        app.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def reap(*_signal: object) -> None:
    """Tell which runs have ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        say("ended", pid, os.waitstatus_to_exitcode(status))


def give_workers_time() -> None:
    """Let each relay start our RTC worker, or the mirror, and wait for it long enough."""
    for module in (machine, session_link, session_set, sessions):
        for name in ("READY", "JOIN", "REJOIN", "RECOVERY"):
            if hasattr(module, f"{name}_TIMEOUT"):
                setattr(module, f"{name}_TIMEOUT", LINK_LIMIT)
    usual = RtcWorker._command

    def command(self: RtcWorker, fds: tuple[int, ...]) -> list[str]:
        words = usual(self, fds)
        at = words.index("-m")
        file = MIRROR if MIRROR_DELAY.exists() else WORKER
        return [*words[:at], str(file), *words[at + 2 :]]

    RtcWorker._command = command  # type: ignore[method-assign]  # a worker with more time


def main() -> None:
    """Follow orders until stdin ends."""
    faulthandler.enable()
    give_workers_time()
    signal.signal(signal.SIGCHLD, reap)
    say("ready")
    for line in sys.stdin:
        words = shlex.split(line)
        if words[0] == "start":
            start(words[1], words[2:])
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(words[1]), int(words[2]))


if __name__ == "__main__":
    main()
