"""A real emulator for all tests, and relays that each test starts and this file ends."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.clips import RGB
from tests.e2e.stage import (
    PERSON,
    RELAYD,
    START,
    Emulator,
    RunningRelay,
    free_port,
    relay_config,
    wait_for,
)
from tests.rtsp import RtspCamera


@pytest.fixture(scope="session")
def emulator_process() -> Iterator[Emulator]:
    process = subprocess.Popen(
        [RELAYD, "emulator", "--port", "0", "--queue-seconds", "0.3"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("relayd emulator ready at http://"), line
    yield Emulator(line.split()[-1], process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.fixture
def emulator(emulator_process: Emulator) -> Iterator[Emulator]:
    """The emulator, with no fault and no session, and none left after the test."""
    emulator_process.reset()
    yield emulator_process
    left = emulator_process.sessions()
    emulator_process.reset()
    assert not left, f"sessions left open: {left}"


@pytest.fixture
def start_relay(emulator: Emulator, tmp_path: Path) -> Iterator[Callable[..., RunningRelay]]:
    """Start `relayd run` against the emulator, with `--set` overrides."""
    running: list[RunningRelay] = []

    def start(*overrides: str, source: Path | str = PERSON) -> RunningRelay:
        number, port = len(running), free_port()
        config = tmp_path / "relay.toml"
        if not config.exists():
            config.write_text(relay_config(emulator, source, tmp_path))
        log = tmp_path / f"relay-{number}.log"
        sets = [part for text in overrides for part in ("--set", text)]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [RELAYD, "run", "-c", config, "--set", f"control.http=127.0.0.1:{port}", *sets],
                stderr=stderr,
                env=os.environ | {"RELAYD_VIDEO__BITRATE": "2000"},
            )
        relay = RunningRelay(process, config, log, port)
        running.append(relay)
        wait_for(
            f"control server ({log.read_text()})",
            lambda: relay.state() != "unreachable" or process.poll() is not None,
            START,
        )
        return relay

    yield start
    for relay in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            relay.stop()


@pytest.fixture
def rtsp_camera_of(tmp_path: Path) -> Iterator[Callable[[list[RGB]], RtspCamera]]:
    """Start an RTSP camera that shows these pictures again and again."""
    cameras: list[RtspCamera] = []

    def start(pictures: list[RGB]) -> RtspCamera:
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / f"{number:05}.jpg", quality=95)
        camera = RtspCamera(pictures=tmp_path)
        camera.start()
        cameras.append(camera)
        return camera

    yield start
    for camera in cameras:
        camera.kill()
