"""Background work beside the sessions of a relay that runs for weeks."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relayd.akool import upkeep
from relayd.akool.client import AkoolClient
from relayd.akool.closing import close_orphaned_sessions
from relayd.akool.credentials import ApiKey
from relayd.akool.journal import Journal, JournalEntry
from relayd.akool.models import LiveSession
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.akool.upkeep import keep_closing_orphaned_sessions
from relayd.http.client import HttpClient
from tests.akool.conftest import http_answer

if TYPE_CHECKING:
    from tests.akool.conftest import Service


async def test_a_close_that_failed_without_network_is_repeated_without_a_restart(
    service: "Service", client: AkoolClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ORPHANS_INTERVAL", 0.02)
    journal = Journal(tmp_path)
    keeper = SessionKeeper(client, journal, relay="studio")
    closing = asyncio.create_task(keep_closing_orphaned_sessions(client, journal))
    session = await keeper.open_session(FaceChoice("https://example.org/face.png", "1,2:3,4"))
    await asyncio.sleep(0.1)
    assert service.open == {session.live.id}  # one in use is left alone

    service.on("close", *[http_answer(b"", 502)] * 3, {"code": 1000})
    assert not await session.close(within=1.0)
    async with asyncio.timeout(5):
        while journal.entries():  # noqa: ASYNC110 - a folder announces nothing
            await asyncio.sleep(0.02)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)


async def test_a_failure_with_one_orphan_does_not_prevent_closing_the_others(
    service: "Service", client: AkoolClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    keeper = SessionKeeper(client, journal, relay="studio")
    face = FaceChoice("https://example.org/face.png", "1,2:3,4")
    first, second = [await keeper.open_session(face) for _ in range(2)]
    for session in (first, second):
        session._entry.release()
    real = client.close

    async def close(session_id: str, **how: float) -> bool:
        if session_id == first.live.id:
            raise RuntimeError("out of httpx")
        return await real(session_id, **how)

    monkeypatch.setattr(client, "close", close)
    results = {one.record.id: one for one in await close_orphaned_sessions(client, journal)}
    assert results[second.live.id].closed
    assert "RuntimeError: out of httpx" in results[first.live.id].reason
    assert [record.id for record in journal.entries()] == [first.live.id]
    assert not await first.close(), "the session's own close fails cleanly as well"


async def test_the_closing_of_orphans_goes_on_after_an_unexpected_error(
    service: "Service", client: AkoolClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ORPHANS_BACKOFF", (0.01, 0.01))
    journal, broken = Journal(tmp_path), True

    def orphans() -> list[JournalEntry]:
        nonlocal broken
        if broken:
            broken = False
            raise RuntimeError("a fault of relayd")
        return Journal(tmp_path).orphans()

    session = await SessionKeeper(client, journal, relay="studio").open_session(
        FaceChoice("https://example.org/face.png", "1,2:3,4")
    )
    session._entry.release()
    monkeypatch.setattr(journal, "orphans", orphans)
    closing = asyncio.create_task(keep_closing_orphaned_sessions(client, journal))
    async with asyncio.timeout(5):
        while service.open:  # noqa: ASYNC110 - the service announces nothing
            await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)


async def test_an_orphan_that_this_account_can_never_close_is_reported_and_tried_once(
    service: "Service",
    http: HttpClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(upkeep, "ORPHANS_INTERVAL", 0.01)
    journal, calls = Journal(tmp_path), 0
    client = AkoolClient(service.url, ApiKey("the-key"), http)
    keeper = SessionKeeper(client, journal, relay="studio")
    of_another_key = await keeper.open_session(FaceChoice("https://x.example/a.png", "1,2:3,4"))
    of_another_key._entry.release()
    service.open.clear()  # as another account sees it
    live = LiveSession.read({"_id": "elsewhere", "channel_id": "c"})
    assert live is not None
    journal.record(live, base_url="https://elsewhere.example", relay="r").release()
    real = journal.orphans

    def orphans() -> list[JournalEntry]:
        nonlocal calls
        calls += 1
        return real()

    monkeypatch.setattr(journal, "orphans", orphans)
    other = AkoolClient(service.url, ApiKey("another-key"), http)
    closing = asyncio.create_task(keep_closing_orphaned_sessions(other, journal))
    async with asyncio.timeout(5):
        while calls < 4:  # noqa: ASYNC110 - a folder announces nothing
            await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    output = capsys.readouterr().out
    assert (output.count("session.elsewhere"), output.count("session.of_another_key")) == (1, 1)
    assert service.count("close") == 1
    assert len(journal.entries()) == 2
