import asyncio
from pathlib import Path
from typing import cast

from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.demo import settings_for
from relayd.frames import OutputFrame
from relayd.output.base import OutputChange, OutputEvent
from relayd.relay.relay import Relay
from relayd.relay.status import RelayState


class Camera:
    """An output whose name is known when it is open."""

    name = "auto"

    def open(self) -> None:
        self.name = "/dev/video3"

    def show(self, frame: OutputFrame) -> None:
        """Show it nowhere."""

    def close(self) -> None:
        """Close nothing."""


async def test_an_output_that_got_its_name_at_its_opening_is_told_of_by_that_name(tmp_path: Path):
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    client, journal = cast("AkoolClient", None), Journal(tmp_path)
    relay = Relay(settings, "studio", client, journal, more_outputs=[Camera()])
    await asyncio.to_thread(relay.pipeline.start_outputs)
    try:
        assert relay.status().outputs == {"/dev/video3": "ok"}
        relay._on_output(OutputEvent("/dev/video3", OutputChange.LOST, "it was unplugged"))
        assert relay.status().outputs == {"/dev/video3": "it was unplugged"}
        relay._on_output(OutputEvent("/dev/video3", OutputChange.BACK))
        assert relay.status().outputs == {"/dev/video3": "ok"}
        assert relay.status().reconnects["output"] == 1
    finally:
        await asyncio.to_thread(relay.pipeline.stop_outputs)


async def test_a_lost_output_makes_a_live_relay_unhealthy_and_is_told_with_its_state(
    tmp_path: Path,
):
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    told: list[tuple[RelayState, str]] = []
    client, journal = cast("AkoolClient", None), Journal(tmp_path)
    relay = Relay(
        settings,
        "studio",
        client,
        journal,
        more_outputs=[Camera()],
        on_change=lambda state, reason: told.append((state, reason)),
    )
    await asyncio.to_thread(relay.pipeline.start_outputs)
    try:
        relay._on_output(OutputEvent("/dev/video3", OutputChange.LOST, "early"))
        assert told == [], "systemd takes the first state for the start's end"
        relay._enter(RelayState.LIVE)
        assert told.pop() == (RelayState.LIVE, "output /dev/video3: early")
        relay._on_output(OutputEvent("/dev/video3", OutputChange.BACK))
        assert told.pop() == (RelayState.LIVE, "")
        assert relay.status().healthy
        relay._on_output(OutputEvent("/dev/video3", OutputChange.LOST, "unplugged"))
        assert told.pop() == (RelayState.LIVE, "output /dev/video3: unplugged")
        assert not relay.status().healthy
        assert relay.status().lost_outputs == {"/dev/video3": "unplugged"}
        relay._enter(RelayState.STANDBY, "unplugged")
        assert told.pop() == (RelayState.STANDBY, "unplugged"), "it is said once"
        relay._on_output(OutputEvent("/dev/video3", OutputChange.BACK))
    finally:
        await asyncio.to_thread(relay.pipeline.stop_outputs)
