"""What goes on beside the sessions of a relay that runs for weeks."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relayd.akool import chores
from relayd.akool.chores import keep_closing_leftovers
from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.akool.session import FaceChoice, SessionKeeper
from tests.akool.conftest import http_answer

if TYPE_CHECKING:
    from tests.akool.conftest import Service


async def test_a_close_that_failed_while_the_network_was_away_is_made_up_for_without_a_restart(
    service: "Service", client: AkoolClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(chores, "LEFTOVERS_INTERVAL", 0.02)
    journal = Journal(tmp_path)
    keeper = SessionKeeper(client, journal, relay="studio")
    closing = asyncio.create_task(keep_closing_leftovers(client, journal))
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
