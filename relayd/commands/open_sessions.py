"""`relayd sessions`: lists and closes sessions that may be open according to the journal.

A file that cannot be read and a create whose answer was lost are reported as well: "nothing is
open" is printed only if the journal is sure of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from relayd.akool.boottime import Moment
from relayd.akool.budget import local_day
from relayd.akool.closing import close_orphaned_sessions
from relayd.akool.connect import connect, open_journal
from relayd.akool.doubts import KEPT_FOR, Doubt
from relayd.akool.journal import Journal
from relayd.akool.models import LONGEST_ID
from relayd.akool.records import JournalContents, JournalRecord, UnreadableEntry
from relayd.config.settings import Settings
from relayd.errors import ExitCode, UsageError
from relayd.urls.safe import service_url

RECENT_SPAN = 30 * 24 * 3600.0
"""s: the longer of the two spans that are summed up."""


@dataclass(frozen=True, slots=True)
class TimeSpent:
    """The time that sessions were open within a span."""

    closed: int
    """Number of sessions that were open in it and are closed."""
    closed_seconds: float
    """Their total seconds in it."""
    open: int
    """Number of sessions that are open."""
    open_seconds: float
    """Their total seconds in it so far."""

    @property
    def seconds(self) -> float:
        """Total seconds, which the service bills."""
        return self.closed_seconds + self.open_seconds

    @property
    def text(self) -> str:
        """The time as text."""
        text = f"{_span(self.closed_seconds)} in {self.closed} closed sessions"
        return text + (f", {_span(self.open_seconds)} in {self.open} open" if self.open else "")


@dataclass(frozen=True, slots=True)
class SessionsReport:
    """The output of `relayd sessions list`."""

    directory: Path
    """Directory of the journal."""
    now: Moment
    contents: JournalContents
    doubts: tuple[Doubt, ...]
    """Doubtful creates of the last days, including those in flight."""
    today: TimeSpent
    recent: TimeSpent
    """In the last 30 days."""
    daily_limit: float
    """s a day that sessions may be open; 0: no limit."""

    def as_lines(self) -> Iterator[str]:
        """Return it as text; ids are never shortened, even in a narrow terminal."""
        if self.contents.records:
            heads = ("session", "opened", "relay", "service", "state")
            yield from _columns([heads, *(self._row(one) for one in self.contents.records)])
        elif not self.contents.unreadable:
            unknown = any(not doubt.held for doubt in self.doubts)
            yield "no session is known to be open" if unknown else "no open sessions"
        for entry in self.contents.unreadable:
            yield f"{_visible(entry.name)} in {self.directory / 'sessions'}: {_unreadable(entry)}"
        for doubt in self.doubts:
            yield _doubtful(doubt)
        limit = f"; limit {_span(self.daily_limit)}" if self.daily_limit else ""
        yield f"today: {self.today.text}{limit}"
        yield f"last 30 days: {self.recent.text}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON data: times in ISO 8601 and UTC, spans in seconds."""
        return {
            "journal": str(self.directory),
            "sessions": [
                {
                    "id": record.id,
                    "opened": _iso(record.opened_at),
                    "relay": record.relay,
                    "service": record.base_url,
                    "state": "in use" if record.held else "left over",
                    "held": record.held,
                    "seconds": round(self.now.seconds_since(record.opened), 3),
                }
                for record in self.contents.records
            ],
            "unreadable": [
                {"file": _visible(entry.name), "why": entry.why, "held": entry.held}
                for entry in self.contents.unreadable
            ],
            "doubts": [
                {
                    "at": _iso(doubt.at),
                    "relay": doubt.relay,
                    "service": doubt.base_url,
                    "reason": doubt.reason,
                    "held": doubt.held,
                }
                for doubt in self.doubts
            ],
            "spent_today": round(self.today.seconds, 3),
            "spent_30_days": round(self.recent.seconds, 3),
            "daily_limit": self.daily_limit,
        }

    def _row(self, record: JournalRecord) -> tuple[str, ...]:
        how = "in use" if record.held else "orphaned: relayd sessions close"
        return record.id, _when(record.opened_at), record.relay, record.base_url, how


def read_report(settings: Settings) -> SessionsReport:
    """Read the journal; raises Unavailable."""
    journal = open_journal(settings)
    now, contents = journal.now(), journal.contents()
    doubts = journal.doubts(now.wall - KEPT_FOR)
    day = local_day(now.wall)
    spans = ((day.start, day.end), (now.wall - RECENT_SPAN, day.end))
    today, recent = (_spent(journal, contents, now, *span) for span in spans)
    limit = settings.akool.daily_limit * 60.0
    return SessionsReport(journal.directory, now, contents, tuple(doubts), today, recent, limit)


async def close_sessions(
    settings: Settings,
    session_id: str | None,
    emit: Callable[[str], None],
    confirm: Callable[[str], bool],
) -> ExitCode:
    """Close orphaned sessions, or the one session named, and report the result of each.

    `confirm` is called before a session is closed that is not in the journal. Returns the exit
    code: CLEAN if all requested sessions are closed and no other may be open. Raises UsageError,
    Unavailable, ServiceError.
    """
    journal = open_journal(settings)
    contents = journal.contents()
    if session_id is None:
        return await _close_all(settings, journal, contents, emit)
    if not session_id.strip() or len(session_id) > LONGEST_ID or not session_id.isprintable():
        raise UsageError("that is not a session id", hint="relayd sessions list shows those known")
    record = next((one for one in contents.records if one.id == session_id), None)
    broken = None if record is not None else journal.unreadable_file_of(session_id)
    if record is not None and record.held:
        emit(f"{session_id}: in use by relay {record.relay}; stop that relay first")
        return ExitCode.FAILED
    if broken is not None and broken.held:
        emit(f"{session_id}: in use by a running relay ({broken.why}); stop that relay first")
        return ExitCode.FAILED
    if record is None:
        return await _close_unlisted(
            settings, journal, session_id, broken, emit=emit, confirm=confirm
        )
    return await _close_orphaned_sessions(settings, journal, session_id, emit)


async def _close_all(
    settings: Settings, journal: Journal, contents: JournalContents, emit: Callable[[str], None]
) -> ExitCode:
    code = ExitCode.CLEAN
    if not all(record.held for record in contents.records):
        code = await _close_orphaned_sessions(settings, journal, None, emit)
    elif not contents.unreadable:
        doubts = journal.doubts(journal.now().wall - KEPT_FOR)
        unknown = [_doubtful(doubt) for doubt in doubts if not doubt.held]
        emit("nothing is known to be left open" if unknown else "nothing is left open")
        for text in unknown:
            emit(text)
    for entry in contents.unreadable:
        emit(f"{_visible(entry.name)} in {journal.directory / 'sessions'}: {_unreadable(entry)}")
    return code or (ExitCode.FAILED if contents.unreadable else ExitCode.CLEAN)


async def _close_orphaned_sessions(
    settings: Settings, journal: Journal, session_id: str | None, emit: Callable[[str], None]
) -> ExitCode:
    async with connect(settings) as client:
        results = await close_orphaned_sessions(client, journal, session_id=session_id)
    for result in results:
        emit(f"{result.record.id}: {'closed' if result.closed else result.reason}")
    if not results:  # closed by another process meanwhile
        emit("nothing is left open")
    return ExitCode.CLEAN if all(result.closed for result in results) else ExitCode.UNAVAILABLE


async def _close_unlisted(
    settings: Settings,
    journal: Journal,
    session_id: str,
    broken: UnreadableEntry | None,
    *,
    emit: Callable[[str], None],
    confirm: Callable[[str], bool],
) -> ExitCode:
    """Close a session that is not in the journal, or whose file cannot be read."""
    url = service_url(settings.akool.base_url.reveal())
    known = "not on the journal of this machine"
    if broken is not None:
        known = f"its file on the journal cannot be read ({broken.why})"
    async with connect(settings) as client:
        if not confirm(f"{session_id}: {known}; close it at {url} anyway?"):
            return ExitCode.FAILED
        if not await client.close(session_id):
            emit(f"{session_id}: the service knows no such session")
            return ExitCode.FAILED
    if broken is not None:
        journal.discard(broken)
    emit(f"{session_id}: closed")
    return ExitCode.CLEAN


def describe_unreadable(entries: Sequence[UnreadableEntry]) -> str:
    """Describe files that cannot be read and may stand for open sessions."""
    listed = "; ".join(f"{_visible(entry.name)}: {entry.why}" for entry in entries)
    return f"{len(entries)} file(s) that cannot be read, each maybe an open session: {listed}"


def describe_doubtful(doubts: Sequence[Doubt]) -> str:
    """Describe creates without a known answer, oldest first, which may have opened sessions."""
    newest = _doubtful(doubts[-1])
    return newest if len(doubts) == 1 else f"{len(doubts)} creates are in doubt; newest: {newest}"


def _doubtful(doubt: Doubt) -> str:
    if doubt.held:
        return f"being opened since {_when(doubt.at)} by relay {_visible(doubt.relay)}"
    at, by = f" at {doubt.base_url}" if doubt.base_url else "", f" by relay {doubt.relay}"
    asked = by if doubt.relay else ""
    return _visible(
        f"a session may be open{at} since {_when(doubt.at)}, asked for{asked}: look at your"
        f" account ({doubt.reason})"
    )


def _unreadable(entry: UnreadableEntry) -> str:
    why = f"a session may be open, {entry.why}"
    if entry.held:
        return f"{why}; in use by a running relay"
    session_id = Path(entry.name).stem
    if "-" in session_id:
        return f"{why}; look at your account, then delete the file"
    return f"{why}; relayd sessions close {_visible(session_id)}, or delete the file"


def _spent(
    journal: Journal, contents: JournalContents, now: Moment, since: float, until: float
) -> TimeSpent:
    with journal.access():
        closed = journal.history.spent(since, until)
    still = [
        min(now.seconds_since(record.opened), max(0.0, now.wall - since))
        for record in contents.records
    ]
    return TimeSpent(closed.sessions, closed.seconds, len(still), sum(still))


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align texts in columns without shortening any."""
    shown = [[_visible(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _visible(text: str) -> str:
    """Return text without terminal control characters, as some of it comes from outside."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _span(seconds: float) -> str:
    try:
        return str(timedelta(seconds=round(seconds)))
    except OverflowError:  # a journal with invalid numbers
        return "an unknown time"


def _when(moment: float) -> str:
    return _instant(moment).strftime("%Y-%m-%d %H:%M:%SZ")


def _iso(moment: float) -> str:
    return _instant(moment).isoformat()


def _instant(moment: float) -> datetime:
    """Return a wall time (s since 1970) as datetime; an invalid one becomes 1970-01-01."""
    try:
        return datetime.fromtimestamp(moment, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
