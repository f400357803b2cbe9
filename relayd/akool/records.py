"""The content of a journal file: a session, or why it cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from relayd.akool.boottime import Moment
from relayd.akool.files import VERSION, Unreadable, seconds, text


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """What the journal knows of a session whose close is not confirmed."""

    id: str
    channel: str
    base_url: str
    """The service at which it is open."""
    relay: str
    opened_at: float
    """Wall time, s since 1970."""
    pid: int
    """Of the process that opened it; for people only, no decision uses it."""
    held: bool
    """Whether a live process owns it."""
    account: str = ""
    """Fingerprint of the credentials that opened it; empty if unknown."""
    boot_id: str = ""
    """The boot in which it was opened; empty if unknown."""
    opened_boottime: float = 0.0
    """When, by that boot's clock, s."""

    @classmethod
    def read(cls, fields: Mapping[str, Any], *, held: bool) -> Self:
        """Read the fields of an entry, ignoring unknown ones; raises Unreadable."""
        if not (session_id := text(fields, "id")):
            raise Unreadable("it is broken: its id is empty")
        return cls(
            id=session_id,
            channel=text(fields, "channel"),
            base_url=text(fields, "base_url"),
            relay=text(fields, "relay"),
            opened_at=seconds(fields, "opened_at"),
            pid=int(seconds(fields, "pid")),
            held=held,
            account=text(fields, "account", ""),
            boot_id=text(fields, "boot_id", ""),
            opened_boottime=seconds(fields, "opened_boottime", 0.0),
        )

    def fields(self) -> dict[str, Any]:
        """Return the content of its file."""
        names = ("id", "channel", "base_url", "relay", "opened_at", "pid", "account")
        boot = ("boot_id", "opened_boottime")
        return {"version": VERSION} | {name: getattr(self, name) for name in (*names, *boot)}

    @property
    def opened(self) -> Moment:
        """When it was opened, by both clocks."""
        return Moment(self.opened_at, self.opened_boottime, self.boot_id)


@dataclass(frozen=True, slots=True)
class UnreadableEntry:
    """A file in the journal's folder that may stand for an open session."""

    name: str
    """File name; without its ending it is the session's id, if that has only plain characters."""
    why: str
    """Why it cannot be read, as text."""
    held: bool = False
    """Whether a live process owns it."""


@dataclass(frozen=True, slots=True)
class JournalContents:
    """All that the journal has, read at once."""

    records: tuple[JournalRecord, ...]
    """Oldest first."""
    unreadable: tuple[UnreadableEntry, ...]
    """By name; each may be an open session."""
