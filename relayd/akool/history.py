"""What sessions cost: one line per closed session, `<state>/history.jsonl`.

The file is bounded and may be deleted at any time: then the day's budget starts again from zero.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeGuard

LARGEST_HISTORY = 1024 * 1024
"""Bytes, about 6000 sessions; beyond it the older half is dropped."""

LARGEST_TIME = 250_000_000_000
"""s, about 8000 years: calendars end with the year 9999."""

_Version = tuple[int, int, int]
"""A file's inode, size and modification time, ns."""


@dataclass(frozen=True, slots=True)
class ClosedSession:
    """A session that the service confirmed closed."""

    id: str
    relay: str
    opened: float
    """Wall time, s since 1970; `closed` minus `seconds` if the clock was not changed meanwhile."""
    closed: float
    """Wall time, s since 1970."""
    seconds: float
    """How long it was open, whatever happened to the clock."""

    @classmethod
    def read(cls, line: bytes) -> Self | None:
        """Read a line of the file; None when it is not one of ours."""
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(entry, Mapping):
            return None
        session_id, relay, opened, closed = map(entry.get, ("id", "relay", "opened", "closed"))
        if not isinstance(session_id, str) or not isinstance(relay, str):
            return None
        if not _is_time(opened) or not _is_time(closed):
            return None
        seconds = entry.get("seconds")
        if not _is_time(seconds) or seconds < 0:
            seconds = max(0.0, closed - opened)
        return cls(session_id, relay, float(opened), float(closed), float(seconds))

    def seconds_between(self, since: float, until: float) -> float:
        """Seconds that it was open between two moments, counted back from its close."""
        return max(0.0, min(self.closed, until) - max(self.closed - self.seconds, since))


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent in a time span."""

    sessions: int
    """Number of sessions open in it."""
    seconds: float
    """Sum of the time they were open in it: what the service bills."""


class History:
    """The file at `path`. All methods block on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[_Version, list[ClosedSession]] = ((0, 0, 0), [])

    def note(
        self,
        session_id: str,
        relay: str,
        opened: float,
        closed: float,
        *,
        seconds: float | None = None,
    ) -> None:
        """Append a closed session; durably on disk when this returns. Raises OSError.

        `seconds` is how long it was open, if that is known better than by the wall clock.
        """
        if seconds is None:
            seconds = closed - opened
        line = {
            "id": session_id,
            "relay": relay,
            "opened": opened,
            "closed": closed,
            "seconds": round(max(0.0, seconds), 3),
        }
        _append_bounded(self.path, json.dumps(line).encode() + b"\n")

    def sessions(self) -> Sequence[ClosedSession]:
        """Return the sessions in it, in the order of their closing; raises OSError.

        Foreign lines are skipped, and all but the first line of a session: if a process is killed
        between writing the line and updating the journal, the session is closed and noted again.
        A file that has not changed is not read again.
        """
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                version = (status.st_ino, status.st_size, status.st_mtime_ns)
                known, sessions = self._read
                if version == known:
                    return sessions
                lines = file.read(2 * LARGEST_HISTORY).splitlines()
        except FileNotFoundError:
            return []
        by_id: dict[str, ClosedSession] = {}
        for line in lines:
            if (one := ClosedSession.read(line)) is not None:
                by_id.setdefault(one.id, one)
        sessions = list(by_id.values())
        self._read = (version, sessions)
        return sessions

    def spent(self, since: float, until: float) -> Spent:
        """Sum up the sessions of a span of wall time; raises OSError."""
        seconds = [session.seconds_between(since, until) for session in self.sessions()]
        return Spent(sum(one > 0 for one in seconds), sum(seconds))


def _is_time(value: object) -> TypeGuard[float]:
    """Whether it is a number of seconds that a date can represent."""
    return isinstance(value, int | float) and -LARGEST_TIME < value < LARGEST_TIME


def _append_bounded(path: Path, line: bytes) -> None:
    """Append a line; when the file has grown too large, keep its newer half."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        if size + len(line) > LARGEST_HISTORY:
            newer = os.pread(
                file.fileno(), LARGEST_HISTORY // 2, max(0, size - LARGEST_HISTORY // 2)
            )
            file.truncate(0)
            file.write(newer[newer.find(b"\n") + 1 :])
        elif size and os.pread(file.fileno(), 1, size - 1) != b"\n":  # cut short by a full disk
            file.write(b"\n")
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
