"""Sessions on demand, all of it real but the driver: service, WebRTC, swap, source, clock."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from relayd.akool.connect import connect, open_journal
from relayd.config.loading import load
from relayd.config.settings import CameraSettings, Settings
from relayd.output.camera import CameraOutput
from relayd.output.readers import ReadersWatch, WatchedCamera
from relayd.relay import pipeline
from relayd.relay.relay import Relay
from relayd.relay.status import DemandState, RelayState, RelayStatus
from tests.output.conftest import FakeLoopback
from tests.support.stage import PERSON, Emulator, relay_config

pytestmark = pytest.mark.relay

GRACE = 3.0  # s; an opening counts only after one, so less would be over before a return counts
Done = Callable[[RelayStatus], object]


class Stage:
    """A relay whose only camera is a double that somebody may read."""

    def __init__(self, relay: Relay, double: FakeLoopback, node: Path) -> None:
        self.relay, self.double, self._node = relay, double, node
        self._fd = -1

    def read(self) -> None:
        """Begin to read the camera, as the driver's version shows it."""
        self._fd = os.open(self._node, os.O_RDONLY)
        self.double.stream_to(1)

    def leave(self) -> None:
        self.double.stream_to(0)
        os.close(self._fd)

    async def until(self, done: Done, within: float = 20.0) -> float:
        """Wait; returns the seconds that it took."""
        began = time.monotonic()
        while not done(self.relay.status()):
            assert time.monotonic() - began < within, self.relay.status()
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process().children()
        return [child for child in children if "relayd.rtc.worker" in child.cmdline()]

    def source_is_open(self) -> bool:
        fds = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return any(fd.readlink() == PERSON for fd in fds)


@pytest.fixture(params=["0.12.7", "0.15.0"])
async def stage(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    node = tmp_path / "video0"
    node.touch()
    double = FakeLoopback(version=request.param, path=str(node))

    def make_output(
        output: CameraSettings, settings: Settings, _number: int, _on_event: Any, on_readers: Any
    ) -> WatchedCamera:
        video = settings.video
        camera = CameraOutput(
            output.device, video.geometry, video.fps, system=double, sys_root=tmp_path
        )
        return WatchedCamera(camera, on_readers, partial(ReadersWatch, system=double))

    monkeypatch.setattr(pipeline, "_make_output", make_output)
    config = tmp_path / "relay.toml"
    config.write_text(relay_config(emulator, PERSON, tmp_path))
    sets = [f'output=[{{kind="camera", device="{node}"}}]', f"on_demand.grace={GRACE}"]
    async with _running(load(config, sets)) as relay:
        yield Stage(relay, double, node)
    assert not double.fds
    double.drop()


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Relay]:
    async with connect(settings) as client:
        begun, stop = asyncio.Event(), asyncio.Event()
        relay = Relay(
            settings,
            "studio",
            client,
            open_journal(settings),
            on_change=lambda _state, _reason: begun.set(),
        )
        running = asyncio.create_task(relay.run(stop))
        await begun.wait()
        try:
            yield relay
        finally:
            stop.set()
            await running


async def test_the_first_reader_opens_all_and_the_last_one_leaves_nothing_open(
    stage: Stage, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.sleep(0.5)
    idle = stage.relay.status()
    assert (idle.on_demand, idle.state, idle.healthy) == (
        DemandState.IDLE, RelayState.STANDBY, True,
    )  # fmt: skip
    assert "no program reads" in idle.reason
    assert not stage.workers()
    assert not stage.source_is_open()
    before = stage.double.written

    stage.read()
    asked = await stage.until(lambda status: status.state is RelayState.OPENING)
    swapped = asked + await stage.until(lambda status: status.frames["fresh"] > 0)
    assert stage.double.written > before
    assert stage.source_is_open()
    assert len(stage.workers()) == 1
    assert list(stage.relay.status().readers.values()) == [1]

    stage.leave()
    kept = await stage.until(lambda status: status.sessions_open == 0)
    assert GRACE < kept < GRACE + 2
    await stage.until(lambda status: status.on_demand is DemandState.IDLE, 3)
    assert emulator.sessions() == []
    assert not stage.workers()
    await stage.until(lambda _: not stage.source_is_open(), 1)
    with capsys.disabled():
        print(  # noqa: T201 - figures for people
            f"\n{stage.double.version}: asked for a session {asked:.2f} s after the reader came,"
            f" first swapped picture after {swapped:.2f} s, closed {kept:.2f} s after it left"
        )


async def test_a_probe_opens_no_session(stage: Stage, emulator: Emulator) -> None:
    before = emulator.created()
    for _ in range(4):
        os.close(os.open(stage._node, os.O_RDWR))
        await asyncio.sleep(0.4)
    assert emulator.created() == before
    assert stage.relay.status().on_demand is DemandState.IDLE


async def test_a_reader_who_comes_back_within_the_grace_time_finds_the_same_session(
    stage: Stage, emulator: Emulator
) -> None:
    stage.read()
    await stage.until(lambda status: status.frames["fresh"] > 0)
    session = stage.relay.status().session_id
    standby = stage.relay.status().frames["standby"]
    stage.leave()
    await stage.until(lambda status: status.on_demand is DemandState.GRACE, 2)
    stage.read()
    await stage.until(lambda status: status.on_demand is DemandState.LIVE, 2)
    assert stage.relay.status().session_id == session
    assert stage.relay.status().frames["standby"] == standby
    stage.leave()
    await stage.until(lambda status: status.on_demand is DemandState.IDLE)


async def test_a_camera_that_goes_away_in_a_call_ends_the_session_and_is_used_again_when_it_is_back(
    stage: Stage, emulator: Emulator
) -> None:
    stage.read()
    await stage.until(lambda status: status.frames["fresh"] > 0)
    stage.double.open_error = stage.double.write_error = errno.ENODEV
    await stage.until(lambda status: status.sessions_open == 0, GRACE + 5)
    gone = stage.relay.status()
    assert "no such device" in str(gone.outputs)
    assert set(gone.readers.values()) == {0}
    assert not stage.relay.pipeline.outputs_working()
    assert emulator.sessions() == []
    stage.leave()

    stage.double.open_error = stage.double.write_error = 0
    await stage.until(lambda status: set(status.outputs.values()) == {"ok"})
    assert stage.relay.pipeline.outputs_working()
    fresh = stage.relay.status().frames["fresh"]
    stage.read()
    await stage.until(lambda status: status.frames["fresh"] > fresh)
    stage.leave()
    await stage.until(lambda status: status.on_demand is DemandState.IDLE)
