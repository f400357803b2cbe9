"""Creates whose answer was lost, `<state>/doubts/`: each may have opened a session.

A file is written before a create is sent, and removed when the answer is known and the session is
in the journal. A file that stays is a doubt: it holds a reason, or no live process has it locked
because the process was killed in between. (A process killed between putting the session in the
journal and removing this file leaves a doubt about a session that is known: an extra entry is
harmless, a missing one is not.)
"""

import fcntl
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayd import logs
from relayd.akool.files import (
    VERSION,
    Unreadable,
    disk_access,
    is_held,
    make_folder,
    open_file,
    read_fields,
    seconds,
    text,
    try_lock,
    why,
    write_file,
)
from relayd.logs import LogEvent

KEPT_FOR = 7 * 24 * 3600.0
"""s that a doubt is reported: by then the service's own limits have ended the session."""
KILLED = "the relay was killed before the service answered"
LONGEST_REASON = 500
"""Characters of a reason that are kept."""
_NAMES = ("relay", "base_url", "account", "reason")
"""Fields of a file that are text."""

_log = logs.get("akool")


@dataclass(frozen=True, slots=True)
class Doubt:
    """A session that may be open at the service and whose id is unknown."""

    at: float
    """When it was asked for; wall time, s since 1970."""
    relay: str
    base_url: str
    """The service that was asked."""
    account: str
    """Fingerprint of the credentials; empty if unknown."""
    reason: str
    """Why it is unknown, as text; empty while the answer is awaited."""
    held: bool
    """Whether a live process still waits for the answer: then it is no doubt yet."""
    looked_at: bool = False
    """Whether the user acknowledged it, so that it no longer blocks new sessions."""


class CreateIntent:
    """A create about to be sent, on disk. Its owner must call one of its two methods at the end.

    Neither raises: a failure is logged, and the file is then reported as a doubt that may be none.
    """

    def __init__(self, path: Path, lock: int, fields: dict[str, Any]) -> None:
        self._path, self._lock, self._fields = path, lock, fields
        self._ended = False

    def mark_answered(self) -> None:
        """The answer is known, and the session it opened is in the journal or closed."""
        if self._ended:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as fault:
            _log.warning(LogEvent.JOURNAL_DOUBT_KEPT, path=str(self._path), reason=str(fault))
        self._release()

    def mark_doubtful(self, reason: str) -> None:
        """Whether it opened a session is unknown: keep that for `Journal.doubts`."""
        if self._ended:
            return
        reason = logs.excerpt(reason, LONGEST_REASON)
        try:
            os.close(write_file(self._path, self._fields | {"reason": reason}))
        except OSError as fault:
            _log.warning(
                LogEvent.JOURNAL_DOUBT_REASON_LOST, path=str(self._path), reason=str(fault)
            )
        self._release()

    def _release(self) -> None:
        self._ended = True
        os.close(self._lock)


class DoubtFolder:
    """The folder of these files in the state directory. All methods block on the disk."""

    def __init__(self, directory: Path, wall: Callable[[], float]) -> None:
        self._state, self._folder, self._wall = directory, directory / "doubts", wall

    def begin(self, base_url: str, relay: str, account: str) -> CreateIntent:
        """Record that a create is about to be sent; durably on disk when this returns.

        Forgets doubts older than KEPT_FOR. Raises Unavailable: then send nothing.
        """
        fields = {
            "version": VERSION,
            "at": float(self._wall()),
            "base_url": base_url,
            "relay": relay,
            "account": account,
            "pid": os.getpid(),
            "reason": "",
        }
        path = self._folder / f"{uuid.uuid4().hex}.json"
        with disk_access(self._state):
            make_folder(self._folder)
            self._forget_old()
            return CreateIntent(path, write_file(path, fields), fields)

    def doubts(self, since: float) -> list[Doubt]:
        """Return the doubts since a moment of wall time, oldest first, including creates in flight.

        Raises Unavailable when the folder cannot be read.
        """
        found = [
            doubt
            for path in self._paths(".json")
            if (doubt := _read(path)) is not None and doubt.at >= since
        ]
        return sorted(found, key=lambda doubt: doubt.at)

    def acknowledge_doubts(self, relay: str) -> None:
        """Record that the user knows a relay's doubts: still reported, they no longer block it.

        Raises Unavailable.
        """
        for path in self._paths(".json"):
            doubt = _read(path)
            if doubt is None or doubt.held or doubt.looked_at or doubt.relay != relay:
                continue
            fields = {name: getattr(doubt, name) for name in _NAMES} | {"looked_at": True}
            with disk_access(self._state):
                os.close(write_file(path, {"version": VERSION, "at": doubt.at} | fields))

    def _forget_old(self) -> None:
        """Remove old files, including those dated in the future by a clock that was changed."""
        now = self._wall()
        for path in self._paths(".json"):
            doubt = _read(path)
            if doubt is not None and not doubt.held and abs(now - doubt.at) > KEPT_FOR:
                path.unlink(missing_ok=True)
        for path in self._paths(".part"):  # of a process that was killed while writing it
            with suppress(OSError, Unreadable):
                descriptor = open_file(path)
                if try_lock(descriptor, fcntl.LOCK_EX):
                    path.unlink(missing_ok=True)
                os.close(descriptor)

    def _paths(self, ending: str) -> list[Path]:
        with disk_access(self._state):
            try:
                paths = sorted(self._folder.iterdir())
            except FileNotFoundError:
                return []
        return [path for path in paths if path.suffix == ending]


def _read(path: Path) -> Doubt | None:
    """Read a file of the folder; None when it is gone. An unreadable file is a doubt as well.

    It gets the file's modification time.
    """
    held = False
    try:
        changed_at = path.lstat().st_mtime
        descriptor = open_file(path)
        try:
            held = is_held(descriptor)
            return _parse(read_fields(descriptor), held=held)
        finally:
            os.close(descriptor)
    except FileNotFoundError:  # answered a moment ago
        return None
    except (Unreadable, OSError) as fault:
        return Doubt(changed_at, "", "", "", f"{path.name} cannot be read: {why(fault)}", held)


def _parse(fields: Mapping[str, Any], *, held: bool) -> Doubt:
    at = seconds(fields, "at")
    relay, base_url, account, reason = (text(fields, key) for key in _NAMES)
    reason = reason or ("" if held else KILLED)
    looked_at = fields.get("looked_at") is True
    return Doubt(at, relay, base_url, account, reason, held, looked_at)
