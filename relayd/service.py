"""The way from settings to the service and its journal; and the two commands on sessions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from relayd.akool.client import AkoolClient
from relayd.akool.credentials import ApiKey, ClientSecret, Credentials
from relayd.akool.journal import Journal
from relayd.akool.models import Face
from relayd.akool.records import JournalRecord
from relayd.akool.session import close_leftovers
from relayd.config import AkoolSettings, Settings, require_credentials, state_directory
from relayd.errors import ExitCode, Unavailable
from relayd.http import HttpClient


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[AkoolClient]:
    """Give a client of the service, as the settings say; its connections end with the block."""
    require_credentials(settings)
    async with HttpClient() as http:
        yield AkoolClient(settings.akool.base_url, _credentials(settings.akool), http)


def open_journal(settings: Settings) -> Journal:
    """Give the journal in the settings' state directory."""
    return Journal(state_directory(settings))


async def detect_faces(settings: Settings, url: str) -> list[Face]:
    """Ask the service for the faces in an image."""
    async with connect(settings) as client:
        return await client.detect_faces(url)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A line of `relayd sessions list`."""

    record: JournalRecord

    def as_row(self) -> tuple[str, str, str, str, str]:
        """Its id, when it was opened, by which relay, at which service, and how it is."""
        opened = datetime.fromtimestamp(self.record.opened_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        how = "in use" if self.record.held else "left over: relayd sessions close"
        return self.record.id, opened, self.record.relay, self.record.base_url, how


def spent_lately(settings: Settings) -> list[str]:
    """Say how long closed sessions were open today and in the last 30 days."""
    history, now = open_journal(settings).history, datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    spans = {"today": midnight, "last 30 days": now - timedelta(days=30)}
    try:
        spent = {
            name: history.spent(since.timestamp(), now.timestamp()) for name, since in spans.items()
        }
    except OSError as fault:
        raise Unavailable(f"{history.path}: {fault.strerror}") from fault
    return [
        f"{name}: {timedelta(seconds=round(one.seconds))} in {one.sessions} closed sessions"
        for name, one in spent.items()
    ]


def list_sessions(settings: Settings) -> list[OpenSession]:
    """Give what the journal holds as open."""
    return [OpenSession(record) for record in open_journal(settings).entries()]


async def close_sessions(
    settings: Settings, session_id: str | None, say: Callable[[str], None]
) -> int:
    """Close leftovers, or the one session named, and say what became of each.

    Gives the exit code: CLEAN when all that was asked for is closed.
    """
    journal = open_journal(settings)
    records = {record.id: record for record in journal.entries()}
    if session_id is not None and session_id not in records:
        say(f"{session_id}: not in the journal, so nothing is open")
        return ExitCode.FAILED
    if session_id is not None and records[session_id].held:
        say(f"{session_id}: in use by relay {records[session_id].relay}; stop that relay first")
        return ExitCode.FAILED
    if all(record.held for record in records.values()):
        say("nothing is left open")
        return ExitCode.CLEAN
    async with connect(settings) as client:
        results = await close_leftovers(client, journal, session_id=session_id)
    for result in results:
        say(f"{result.record.id}: {'closed' if result.closed else result.reason}")
    if not results:
        say("nothing is left open")
    return ExitCode.CLEAN if all(result.closed for result in results) else ExitCode.UNAVAILABLE


def _credentials(akool: AkoolSettings) -> Credentials:
    if key := akool.api_key.get_secret_value():
        return ApiKey(key)
    return ClientSecret(akool.client_id, akool.client_secret.get_secret_value())
