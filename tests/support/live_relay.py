"""A relay in the test's own process, with outputs of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relayd.akool.connect import connect, open_journal
from relayd.config.settings import Settings
from relayd.output.base import Output
from relayd.relay.relay import Relay

LIVE_WITHIN = 40.0
"""s."""


@asynccontextmanager
async def live_relay(settings: Settings, *outputs: Output) -> AsyncIterator[Relay]:
    """Run a relay that shows on `outputs` too, from when it is live until the block ends."""
    stop, is_live = asyncio.Event(), asyncio.Event()
    async with connect(settings) as client:
        relay = Relay(
            settings,
            "test",
            client,
            open_journal(settings),
            more_outputs=outputs,
            on_change=lambda state, _reason: is_live.set() if state.value == "live" else None,
        )
        task = asyncio.create_task(relay.run(stop))
        try:
            async with asyncio.timeout(LIVE_WITHIN):
                await is_live.wait()
            yield relay
        finally:
            stop.set()
            await task
