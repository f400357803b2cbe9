"""The book of open sessions: each is on disk before it is used, until its close is confirmed.

One file a session, `<state>/sessions/<id>.json`. Its owner holds a lock (flock) on it for as long
as it lives, so a file whose lock can be taken is a session whose owner died: no guessing by pid.
The lock goes with the process, however it ends; it is not inherited by spawned processes, since
Python's descriptors close on exec.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from relayd import logs
from relayd.akool.history import History
from relayd.akool.models import LiveSession
from relayd.errors import Unavailable

LARGEST_ENTRY = 64 * 1024
"""Bytes; an honest entry has some 200."""
_LONGEST_NAME = 80
"""Characters of an id that its file's name repeats."""

_log = logs.get("akool")


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """What the journal knows of a session that is not confirmed closed."""

    id: str
    channel: str
    base_url: str
    """The service it is open at."""
    relay: str
    opened_at: float
    """Wall time, s since 1970."""
    pid: int
    """Of the process that opened it; for people, nothing decides by it."""
    held: bool
    """Whether a living process has it in its care."""
    account: str = ""
    """Fingerprint of the credentials that opened it; empty where not known."""

    @classmethod
    def read(cls, content: bytes, *, held: bool) -> Self | None:
        """Read an entry's bytes; None when they are no entry."""
        try:
            entry = json.loads(content)
        except (ValueError, RecursionError):
            return None
        if not isinstance(entry, Mapping):
            return None
        texts: dict[str, Any] = {
            key: entry.get(key) for key in ("id", "channel", "base_url", "relay")
        }
        texts["account"] = entry.get("account", "")
        opened_at, pid = entry.get("opened_at"), entry.get("pid")
        if (
            not all(isinstance(text, str) for text in texts.values())
            or not texts["id"]
            or not isinstance(opened_at, float)
            or not math.isfinite(opened_at)
            or not isinstance(pid, int)
        ):
            return None
        return cls(**texts, opened_at=opened_at, pid=pid, held=held)


class JournalEntry:
    """One session's file, locked by this process until `release` or `remove`."""

    def __init__(self, journal: "Journal", path: Path, lock: int, record: JournalRecord) -> None:
        self.record = record
        self._journal = journal
        self._path = path
        self._lock: int | None = lock
        self._releasing = threading.Lock()  # a descriptor closed twice could be somebody else's
        self._inode = os.fstat(lock).st_ino

    def remove(self) -> None:
        """Take the session off the book, its close being confirmed; note it in the history.

        Without effect when another process did so already. Raises Unavailable.
        """
        with self._journal.access():
            if self._is_ours():
                self._journal.note_closed(self.record)
                self._path.unlink(missing_ok=True)
                _sync_directory(self._path.parent)
        self.release()

    def release(self) -> None:
        """Give the session out of this process's care; it stays on the book, as a leftover."""
        with self._releasing:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _is_ours(self) -> bool:
        try:
            return self._path.lstat().st_ino == self._inode
        except FileNotFoundError:
            return False


class Journal:
    """The book in `directory` (`[state] directory`). All methods block on the disk."""

    def __init__(self, directory: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._sessions = directory / "sessions"
        self.history = History(directory / "history.jsonl")
        self._wall = wall

    def probe(self) -> None:
        """Try to write, so that no session is opened that could not be recorded.

        Raises Unavailable naming `[state] directory`.
        """
        with self.access():
            self._sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._sessions / f".probe-{os.getpid()}"
            _write_synced(path, b"relayd\n", os.O_TRUNC)
            path.unlink(missing_ok=True)

    def record(
        self, session: LiveSession, *, base_url: str, relay: str, account: str = ""
    ) -> JournalEntry:
        """Put a session on the book; on disk for good when this returns. Holds no secret.

        Raises Unavailable: then nothing is recorded, and the session must be closed at once.
        """
        record = JournalRecord(
            id=session.id,
            channel=session.channel_id,
            base_url=base_url,
            relay=relay,
            opened_at=float(self._wall()),
            pid=os.getpid(),
            held=True,
            account=account,
        )
        keys = ("id", "channel", "base_url", "relay", "opened_at", "pid", "account")
        content = json.dumps({key: getattr(record, key) for key in keys}).encode() + b"\n"
        path = self._sessions / _file_name(session.id)
        draft = path.with_suffix(".part")
        with self.access():
            self._sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            lock = _write_synced(draft, content, os.O_EXCL, keep_locked=True)
            try:
                draft.rename(path)
                _sync_directory(self._sessions)
            except OSError:
                os.close(lock)
                raise
            return JournalEntry(self, path, lock, record)

    def entries(self) -> list[JournalRecord]:
        """Give what is on the book, oldest first; broken and foreign files are left out.

        Raises Unavailable when the folder cannot be read.
        """
        records = []
        for path, descriptor in self._files():
            try:
                held = not _try_lock(descriptor, fcntl.LOCK_SH)
                if (record := _read(path, descriptor, held=held)) is not None:
                    records.append(record)
            finally:
                os.close(descriptor)
        return sorted(records, key=lambda record: record.opened_at)

    def leftovers(self) -> list[JournalEntry]:
        """Take the sessions whose owner died into our care, oldest first.

        Raises Unavailable when the folder cannot be read.
        """
        adopted = []
        for path, descriptor in self._files():
            record = None
            if _try_lock(descriptor, fcntl.LOCK_EX) and os.fstat(descriptor).st_nlink:
                record = _read(path, descriptor, held=True)
            if record is None:
                os.close(descriptor)
            else:
                adopted.append(JournalEntry(self, path, descriptor, record))
        return sorted(adopted, key=lambda entry: entry.record.opened_at)

    def note_closed(self, record: JournalRecord) -> None:
        """Append one line to the history; failing to is a warning, nothing depends on it."""
        try:
            self.history.note(record.id, record.relay, record.opened_at, self._wall())
        except OSError as fault:
            _log.warning("history.unwritable", path=str(self.history.path), reason=str(fault))

    @contextmanager
    def access(self) -> Iterator[None]:
        """Turn the disk's failures into Unavailable."""
        try:
            yield
        except OSError as fault:
            raise Unavailable(
                f"[state] directory {str(self._sessions.parent)!r} cannot be used:"
                f" {fault.strerror or fault}",
                mend="set [state] directory to a folder that relayd may write, with space left",
            ) from fault

    def _files(self) -> Iterator[tuple[Path, int]]:
        """Open each regular file of the folder that may be an entry, a draft included."""
        with self.access():
            try:
                paths = sorted(self._sessions.iterdir())
            except FileNotFoundError:
                return
        for path in paths:
            if path.name.startswith(".") or path.suffix not in {".json", ".part"}:
                continue
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                descriptor = os.open(path, flags)
            except FileNotFoundError:  # removed a moment ago
                continue
            except OSError as fault:
                _log.warning("journal.skipped", path=str(path), reason=str(fault))
                continue
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                yield path, descriptor
            else:
                os.close(descriptor)
                _log.warning("journal.skipped", path=str(path), reason="not a regular file")


def _file_name(session_id: str) -> str:
    """Name the file of an id, which comes from outside: plain characters only, no two alike."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", session_id)[:_LONGEST_NAME]
    if plain != session_id:
        plain += "-" + hashlib.sha256(session_id.encode()).hexdigest()[:16]
    return plain + ".json"


def _write_synced(path: Path, content: bytes, how: int, *, keep_locked: bool = False) -> int:
    """Write a file through to the disk; its descriptor, locked, is the caller's if asked for."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _write_all(descriptor, content)
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        raise
    if not keep_locked:
        os.close(descriptor)
    return descriptor


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks: not ours either way
        return False
    return True


def _read(path: Path, descriptor: int, *, held: bool) -> JournalRecord | None:
    try:
        content = os.pread(descriptor, LARGEST_ENTRY, 0)
    except OSError as fault:
        _log.warning("journal.skipped", path=str(path), reason=str(fault))
        return None
    record = JournalRecord.read(content, held=held)
    if record is None:
        _log.warning("journal.skipped", path=str(path), reason="not an entry of the journal")
    return record
