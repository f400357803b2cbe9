"""The lock on a relay's name: only one process per name runs on a state directory.

Two of them would each open a session and be billed twice. The lock is a flock on
`<state>/relays/NAME.lock`: it is released when the process ends for whatever reason, and child
processes do not inherit it, since Python's descriptors close on exec. The file stays; its text
names the last holder and has no effect.
"""

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from relayd.errors import Unavailable
from relayd.logs import LogEvent, get
from relayd.process.folders import make_private

TRIES = 5
"""Attempts to take the lock."""
PAUSE = 0.1
"""s between two attempts: `relayd check` holds the lock briefly while it checks."""
_LARGEST_TEXT = 512
"""Bytes read of the file: a process id and a host name of at most 64 bytes."""
_HOLDER = re.compile(r"(?P<pid>\d{1,10}) (?P<host>[\w.-]{1,255})\n?", re.ASCII)

_log = get("namelock")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that runs under a name."""

    pid: int | None
    """As that process sees it; None if it has not written it yet."""
    host: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        where = f" on {self.host}" if self.host not in {"", socket.gethostname()} else ""
        return f"process {self.pid}{where}"


class NameLock:
    """The lock on `name` in the state directory `directory`. All methods block on the disk."""

    def __init__(
        self, directory: Path, name: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Prepare the lock without taking it."""
        self._directory, self._name = directory, name
        self._path = directory / "relays" / f"{name}.lock"
        self._sleep = sleep
        self._descriptor: int | None = None

    def take(self) -> Self:
        """Take the lock until `release` or the end of the process.

        Raises Unavailable when another process holds it. If the directory is not writable, or its
        file system has no locks, a warning is logged and nothing is locked.
        """
        try:
            make_private(self._path.parent)
            descriptor = os.open(self._path, _flags(os.O_RDWR | os.O_CREAT), 0o600)
        except OSError as fault:
            self._warn(fault)
            return self
        try:
            self._lock(descriptor)
        except BlockingIOError:
            holder = _read_holder(descriptor)
            os.close(descriptor)
            raise Unavailable(
                f"relay {self._name!r} is already running ({holder}) on state directory"
                f" {str(self._directory)!r}",
                hint="give this one's configuration file another name, or set another"
                " [state] directory",
            ) from None
        except OSError as fault:
            os.close(descriptor)
            self._warn(fault)
            return self
        self._descriptor = descriptor
        with suppress(OSError):  # a full disk: the lock is held anyway
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        return self

    def release(self) -> None:
        """Release the name; does nothing if it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def holder(self) -> Holder | None:
        """Return who runs under this name; None if nobody does or it cannot be determined."""
        try:
            descriptor = os.open(self._path, _flags(os.O_RDWR))
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _lock(self, descriptor: int) -> None:
        for _ in range(TRIES - 1):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._sleep(PAUSE)
            else:
                return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _warn(self, fault: OSError) -> None:
        _log.warning(
            LogEvent.NAME_NOT_LOCKED,
            path=str(self._path),
            reason=fault.strerror or str(fault),
            hint="make sure that no other relay of this name runs: both would open sessions",
        )


def _flags(how: int) -> int:
    return how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _read_holder(descriptor: int) -> Holder:
    try:
        text = os.pread(descriptor, _LARGEST_TEXT, 0).decode("utf-8", "replace")
    except OSError:
        return Holder(None)
    if (match := _HOLDER.fullmatch(text)) is None:
        return Holder(None)
    return Holder(int(match["pid"]), match["host"])
