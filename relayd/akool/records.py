"""What a file of the journal says: a session, or why it cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from relayd.akool.boottime import Moment
from relayd.akool.files import VERSION, Unreadable, seconds, text


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
    boot_id: str = ""
    """The boot in which it was opened; empty where not known."""
    opened_boottime: float = 0.0
    """When, on that boot's own clock, s."""

    @classmethod
    def read(cls, fields: Mapping[str, Any], *, held: bool) -> Self:
        """Take the fields of an entry, those not known ignored; raises Unreadable."""
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
        """Return it as its file has it."""
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
    """Of the file; without its ending it is the session's id, where that has plain characters."""
    why: str
    """Why it cannot be read, in words."""
    held: bool = False
    """Whether a living process has it in its care."""


@dataclass(frozen=True, slots=True)
class JournalContents:
    """All that the journal has, at one look."""

    records: tuple[JournalRecord, ...]
    """Oldest first."""
    unreadable: tuple[UnreadableEntry, ...]
    """By name; never to be taken for nothing."""
