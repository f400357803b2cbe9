import asyncio
import socket
import time
from pathlib import Path
from threading import Event
from typing import cast

import pytest

from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.commands.demo import settings_for
from relayd.media.frames import OutputFrame
from relayd.output.base import OutputChange, OutputEvent
from relayd.relay.events import OutputsChanged
from relayd.relay.holdoff import DOUBT_TEXT, MAX_DOUBTS
from relayd.relay.kept_mute import KeptMute
from relayd.relay.relay import Relay
from relayd.relay.status import OUTPUT_PENDING, RelayState
from relayd.source.reader import SourceReader


class Camera:
    """An output whose name is known when it is open."""

    name = "auto"

    def open(self) -> None:
        self.name = "/dev/video3"

    def show(self, frame: OutputFrame) -> None:
        """Show it nowhere."""

    def close(self) -> None:
        """Close nothing."""


async def test_an_output_that_gets_its_name_when_opened_is_reported_by_that_name(
    tmp_path: Path,
) -> None:
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


async def test_a_lost_output_makes_a_live_relay_unhealthy_and_is_reported_with_its_state(
    tmp_path: Path,
) -> None:
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    seen: list[tuple[RelayState, str]] = []
    client, journal = cast("AkoolClient", None), Journal(tmp_path)
    relay = Relay(
        settings,
        "studio",
        client,
        journal,
        more_outputs=[Camera()],
        on_change=lambda state, reason: seen.append((state, reason)),
    )
    await asyncio.to_thread(relay.pipeline.start_outputs)
    try:
        relay._on_output(OutputEvent("/dev/video3", OutputChange.LOST, "early"))
        assert seen == [], "systemd takes the first state for the start's end"
        relay._enter(RelayState.LIVE)
        assert seen.pop() == (RelayState.LIVE, "output /dev/video3: early")
        relay._on_output(OutputEvent("/dev/video3", OutputChange.BACK))
        assert seen.pop() == (RelayState.LIVE, "")
        assert relay.status().healthy
        relay._on_output(OutputEvent("/dev/video3", OutputChange.LOST, "unplugged"))
        assert seen.pop() == (RelayState.LIVE, "output /dev/video3: unplugged")
        assert not relay.status().healthy
        assert relay.status().lost_outputs == {"/dev/video3": "unplugged"}
        relay._enter(RelayState.STANDBY, "unplugged")
        assert seen.pop() == (RelayState.STANDBY, "unplugged"), "it is reported once"
        relay._on_output(OutputEvent("/dev/video3", OutputChange.BACK))
    finally:
        await asyncio.to_thread(relay.pipeline.stop_outputs)


async def test_a_start_that_fails_ends_the_source_and_closes_what_it_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    relay = Relay(settings, "studio", cast("AkoolClient", None), Journal(tmp_path))

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(relay.pipeline.pacer, "start", fail)
    with pytest.raises(RuntimeError, match="thread"):
        await relay.run(asyncio.Event())
    assert relay._runner.machine.is_over


async def test_a_resume_after_lost_answers_also_counts_for_the_next_start(
    tmp_path: Path,
) -> None:
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    client, journal = cast("AkoolClient", None), Journal(tmp_path)
    for _ in range(MAX_DOUBTS):
        journal.begin_create("http://127.0.0.1:9", "studio").mark_doubtful("no answer")

    def reason(relay: Relay) -> str:
        machine = relay._runner.machine
        machine.handle(OutputsChanged(working=True), 0.0)
        return machine.view(time.monotonic()).reason

    relay = Relay(settings, "studio", client, journal)
    assert DOUBT_TEXT in reason(relay)
    await relay.resume()
    for one in (relay, Relay(settings, "studio", client, journal)):
        assert DOUBT_TEXT not in reason(one)


async def test_slow_decoding_is_the_reason_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    relay = Relay(settings, "studio", cast("AkoolClient", None), Journal(tmp_path))
    assert relay.status().source_slow == ""
    slow = "decoding is too slow: 31 s behind"
    monkeypatch.setattr(SourceReader, "slowness", slow)
    monkeypatch.setattr(SourceReader, "behind", 31.2)
    assert relay.status().reason == relay.status().source_slow == slow
    assert relay.status().source_behind == 31.2
    try:
        relay._enter(RelayState.DEGRADED, "no swapped picture arrives")
        assert relay.status().reason == "no swapped picture arrives"
    finally:
        await asyncio.to_thread(relay.pipeline.stop_outputs)


async def test_a_mute_during_the_end_of_another_counts_now_and_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, disk, clear = "http://127.0.0.1:9", Event(), KeptMute.clear

    def clear_late(kept: KeptMute) -> None:
        disk.wait(5)
        clear(kept)

    monkeypatch.setattr(KeptMute, "clear", clear_late)
    settings = settings_for(service, f"{service}/a.png", "", [], str(tmp_path), sound=True)
    relay = Relay(settings, "studio", cast("AkoolClient", None), Journal(tmp_path))
    await relay.mute()
    ending = asyncio.create_task(relay.unmute())
    await asyncio.sleep(0.05)
    muting = asyncio.create_task(relay.mute())
    await asyncio.sleep(0.05)
    disk.set()
    await asyncio.gather(ending, muting)
    sound = relay.status().sound
    assert sound
    assert sound.muted
    assert KeptMute(tmp_path, "studio").is_set()


async def test_the_day_is_read_again_after_a_sleep(tmp_path: Path) -> None:
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9/a.png", "", [], str(tmp_path))
    relay = Relay(settings, "studio", cast("AkoolClient", None), Journal(tmp_path))
    relay.wake()
    assert relay._budget._changed.is_set()


async def test_a_stream_that_has_not_connected_yet_is_neither_ok_nor_lost(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the connection, no more
        name = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/…"
        outputs = [{"kind": "stream", "url": name.replace("…", "key")}]
        service = "http://127.0.0.1:9"
        settings = settings_for(service, f"{service}/a.png", "", outputs, str(tmp_path))
        relay = Relay(settings, "studio", cast("AkoolClient", None), Journal(tmp_path))
        await asyncio.to_thread(relay.pipeline.start_outputs)
        try:
            relay._enter(RelayState.LIVE)
            status = relay.status()
            assert status.outputs == {name: OUTPUT_PENDING}
            assert not status.healthy
            assert status.lost_outputs
        finally:
            await asyncio.to_thread(relay.pipeline.stop_outputs)
