"""A process killed at any moment leaves no open session that is neither recorded nor in doubt."""

import asyncio
import os
import random
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relayd.akool.client import AkoolClient
from relayd.akool.closing import close_orphaned_sessions
from relayd.akool.doubts import KILLED
from relayd.akool.journal import Journal

if TYPE_CHECKING:
    from tests.akool.conftest import Service

KILLS = int(os.environ.get("RELAYD_TEST_KILLS", "6"))
LONGEST_LIFETIME = 0.25
"""s after its first session that a process may run: about 10 sessions."""

OPENER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from relayd import logs
    from relayd.akool.client import AkoolClient
    from relayd.akool.credentials import ApiKey
    from relayd.akool.journal import Journal
    from relayd.akool.session import FaceChoice, SessionKeeper
    from relayd.http.client import HttpClient

    logs.configure("error")

    async def main():
        async with HttpClient() as http:
            client = AkoolClient(sys.argv[1], ApiKey("the-key-of-the-tests"), http)
            keeper = SessionKeeper(client, Journal(Path(sys.argv[2])), relay="studio")
            while True:
                session = await keeper.open_session(FaceChoice("https://x.example/a", "1,2:3,4"))
                print("opened", flush=True)
                await session.close()

    asyncio.run(main())
    """
)


@pytest.mark.timeout(60 + 5 * KILLS)
async def test_a_process_killed_at_any_moment_leaves_no_unknown_session(
    service: "Service", client: AkoolClient, tmp_path: Path
) -> None:
    journal, known = Journal(tmp_path), 0
    for _ in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPENER, service.url, tmp_path, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"opened\n"
            await asyncio.sleep(random.uniform(0, LONGEST_LIFETIME))
        finally:
            process.send_signal(signal.SIGKILL)
            await process.communicate()
        await client.credit()  # answered after the killed process's requests were read
        await service.idle()

        results = await close_orphaned_sessions(client, journal)
        assert all(result.closed for result in results)
        doubts = journal.doubts()
        assert all(not doubt.held and doubt.reason == KILLED for doubt in doubts)
        assert len(service.open) <= len(doubts) - known, "an open session that is not reported"
        known = len(doubts)
        service.open.clear()
    assert known <= KILLS
