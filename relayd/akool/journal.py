"""The journal of open sessions: each is on disk from before its use until its close is confirmed.

One file per session, `<state>/sessions/<id>.json`. Its owner holds a lock on it while it runs, so
a file whose lock is free is a session whose owner died: no guessing by pid. An unreadable file is
reported as such: it may stand for a session. The journal also has the creates whose answer was
lost (`relayd.akool.doubts`) and what closed sessions cost (`relayd.akool.history`).
"""

import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from relayd import logs
from relayd.akool import boottime as boot_clock
from relayd.akool.boottime import Moment
from relayd.akool.budget import BudgetReading, OpenTime, local_day, read_budget
from relayd.akool.doubts import CreateIntent, Doubt, DoubtFolder
from relayd.akool.files import (
    Unreadable,
    disk_access,
    is_held,
    make_folder,
    open_file,
    read_fields,
    sync_folder,
    try_lock,
    why,
    write_file,
    write_through,
)
from relayd.akool.history import History
from relayd.akool.models import LiveSession
from relayd.akool.records import JournalContents, JournalRecord, UnreadableEntry
from relayd.logs import LogEvent

_LONGEST_NAME = 80
"""Characters of an id that are used in its file's name."""

_log = logs.get("akool")


class JournalEntry:
    """One session's file, locked by this process until `release` or `remove`."""

    def __init__(self, journal: "Journal", path: Path, lock: int, record: JournalRecord) -> None:
        self.record = record
        self._journal = journal
        self._path = path
        self._lock: int | None = lock
        self._releasing = threading.Lock()  # closed twice, it could be another file's descriptor
        self._inode = os.fstat(lock).st_ino

    def remove(self) -> None:
        """Remove the session, whose close is confirmed, from the journal; note it in the history.

        Does nothing when another process did so already. Raises Unavailable.
        """
        with self._journal.access():
            if self._is_ours():
                self._journal.note_closed(self.record)
                self._path.unlink(missing_ok=True)
                sync_folder(self._path.parent)
        self.release()

    def release(self) -> None:
        """Give up ownership; the session stays in the journal, orphaned."""
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
    """The journal in `directory` (`[state] directory`). All methods block on the disk."""

    def __init__(
        self,
        directory: Path,
        *,
        wall: Callable[[], float] = time.time,
        boottime: Callable[[], float] | None = None,
    ) -> None:
        """Use these clocks.

        `boottime` measures how long sessions are open; without it, and with a `wall` that is not
        the machine's, the wall clock does.
        """
        self.directory = directory
        self.history = History(directory / "history.jsonl")
        self._sessions = directory / "sessions"
        self._doubts = DoubtFolder(directory, wall)
        self._wall = wall
        if boottime is None and wall is time.time:
            boottime = boot_clock.boottime
        self._boottime = boottime or (lambda: 0.0)
        self._boot_id = boot_clock.read_boot_id() if boottime else ""
        self._warned: set[tuple[str, str]] = set()

    def now(self) -> Moment:
        """Return this moment by the journal's clocks."""
        return Moment(float(self._wall()), self._boottime(), self._boot_id)

    def probe(self) -> None:
        """Test that the journal can be written, before opening a session that must be recorded.

        Raises Unavailable naming `[state] directory`.
        """
        with self.access():
            make_folder(self._sessions)
            path = self._sessions / f".probe-{os.getpid()}"
            os.close(write_through(path, b"relayd\n", os.O_TRUNC))
            path.unlink(missing_ok=True)

    def begin_create(self, base_url: str, relay: str, account: str = "") -> CreateIntent:
        """Record that a create is about to be sent; durably on disk when this returns.

        Raises Unavailable: then send nothing.
        """
        return self._doubts.begin(base_url, relay, account)

    def doubts(self, since: float = 0.0) -> list[Doubt]:
        """Return the creates since a moment of wall time whose answer is unknown, oldest first.

        Those whose answer is still awaited are included, as held. Raises Unavailable.
        """
        return self._doubts.doubts(since)

    def acknowledge_doubts(self, relay: str) -> None:
        """Record that the user knows a relay's doubts: still reported, they no longer block it.

        Raises Unavailable.
        """
        self._doubts.acknowledge_doubts(relay)

    def record(
        self, session: LiveSession, *, base_url: str, relay: str, account: str = ""
    ) -> JournalEntry:
        """Put a session in the journal; durably on disk when this returns. Stores no secret.

        Raises Unavailable: then nothing is recorded, and the session must be closed at once.
        """
        now = self.now()
        record = JournalRecord(
            id=session.id,
            channel=session.channel_id,
            base_url=base_url,
            relay=relay,
            opened_at=now.wall,
            pid=os.getpid(),
            held=True,
            account=account,
            boot_id=now.boot_id,
            opened_boottime=now.boot,
        )
        path = self._sessions / _file_name(session.id)
        with self.access():
            make_folder(self._sessions)
            return JournalEntry(self, path, write_file(path, record.fields()), record)

    def contents(self) -> JournalContents:
        """Return the sessions in the journal, and each file that cannot be read.

        Raises Unavailable when the folder cannot be read.
        """
        records, unreadable = [], []
        for path, found in self._files():
            if isinstance(found, UnreadableEntry):
                unreadable.append(found)
                continue
            held = is_held(found)
            match _read(path, found):
                case JournalRecord() as record:
                    records.append(replace(record, held=held))
                case UnreadableEntry() as entry:
                    unreadable.append(replace(entry, held=held))
            os.close(found)
        records.sort(key=lambda record: record.opened_at)
        return JournalContents(tuple(records), tuple(unreadable))

    def entries(self) -> list[JournalRecord]:
        """Return the sessions that can be read, oldest first; `contents` has the others.

        Raises Unavailable when the folder cannot be read.
        """
        return list(self.contents().records)

    def orphans(self) -> list[JournalEntry]:
        """Take ownership of the sessions whose owner died; return them oldest first.

        Unreadable files are left in place, and logged once. Raises Unavailable when the folder
        cannot be read.
        """
        adopted = []
        for path, found in self._files():
            if isinstance(found, UnreadableEntry):
                self._warn(found)
                continue
            entry = None
            if try_lock(found, fcntl.LOCK_EX) and os.fstat(found).st_nlink:
                match _read(path, found):
                    case JournalRecord() as record:
                        entry = JournalEntry(self, path, found, record)
                    case UnreadableEntry() as unreadable:
                        self._warn(unreadable)
            if entry is None:
                os.close(found)
            else:
                adopted.append(entry)
        return sorted(adopted, key=lambda entry: entry.record.opened_at)

    def unreadable_file_of(self, session_id: str) -> UnreadableEntry | None:
        """Return this session's file if it cannot be read; it is found by its name."""
        names = {_file_name(session_id), Path(_file_name(session_id)).with_suffix(".part").name}
        return next((one for one in self.contents().unreadable if one.name in names), None)

    def discard(self, unreadable: UnreadableEntry) -> None:
        """Remove an unreadable file whose session's close is confirmed.

        Raises Unavailable.
        """
        with self.access():
            (self._sessions / unreadable.name).unlink(missing_ok=True)
            sync_folder(self._sessions)

    def note_closed(self, record: JournalRecord) -> None:
        """Append one line to the history; a failure is only a warning, as the session is closed."""
        now = self.now()
        try:
            self.history.note(
                record.id,
                record.relay,
                record.opened_at,
                now.wall,
                seconds=now.seconds_since(record.opened),
            )
        except OSError as fault:
            _log.warning(
                LogEvent.JOURNAL_HISTORY_UNWRITABLE, path=str(self.history.path), reason=str(fault)
            )

    def budget(self, limit_minutes: float) -> BudgetReading:
        """Read how much of the day's limit the sessions of this journal have used; 0 is no limit.

        Raises Unavailable when journal or history cannot be read.
        """
        now = self.now()
        records = self.entries()  # first, so that a session closed meanwhile is not missed
        with self.access():
            closed = self.history.sessions()
        ended = {session.id for session in closed}
        open_times = [
            OpenTime(now.seconds_since(record.opened), orphaned=not record.held)
            for record in records
            if record.id not in ended
        ]
        return read_budget(closed, open_times, limit_minutes, now.wall, local_day(now.wall))

    def access(self) -> AbstractContextManager[None]:
        """Turn disk errors into Unavailable."""
        return disk_access(self.directory)

    def _files(self) -> Iterator[tuple[Path, int | UnreadableEntry]]:
        """Open each file of the folder that may be an entry, including unfinished ones.

        The caller closes the descriptors.
        """
        with self.access():
            try:
                paths = sorted(self._sessions.iterdir())
            except FileNotFoundError:
                return
        for path in paths:
            if path.name.startswith(".") or path.suffix not in {".json", ".part"}:
                continue
            try:
                yield path, open_file(path)
            except FileNotFoundError:  # removed a moment ago
                continue
            except (OSError, Unreadable) as fault:
                yield path, _unreadable(path, fault)

    def _warn(self, entry: UnreadableEntry) -> None:
        if (entry.name, entry.why) not in self._warned:
            self._warned.add((entry.name, entry.why))
            _log.warning(LogEvent.JOURNAL_UNREADABLE, file=entry.name, reason=entry.why)


def _file_name(session_id: str) -> str:
    """Return the file name for an id from outside: plain characters only, unique."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", session_id)[:_LONGEST_NAME]
    if plain != session_id:
        plain += "-" + hashlib.sha256(session_id.encode()).hexdigest()[:16]
    return plain + ".json"


def _read(path: Path, descriptor: int) -> JournalRecord | UnreadableEntry:
    try:
        return JournalRecord.read(read_fields(descriptor), held=True)
    except (OSError, Unreadable) as fault:
        return _unreadable(path, fault)


def _unreadable(path: Path, fault: OSError | Unreadable) -> UnreadableEntry:
    return UnreadableEntry(path.name, why(fault))
