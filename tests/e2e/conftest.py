"""A real emulator for all tests, and relays that each test starts and this file ends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.clips import RGB
from tests.support.rtsp import RtspCamera
from tests.support.stage import (
    RELAYD,
    Emulator,
    StartRelay,
    no_session_left,
    ready_interpreter,
    relays_of,
    running_emulator,
)


@pytest.fixture(scope="session", autouse=True)
def forked_commands() -> Iterator[None]:
    with ready_interpreter():
        yield


@pytest.fixture(scope="session")
def emulator_process() -> Iterator[Emulator]:
    command = [str(RELAYD), "emulator", "--port", "0", "--queue-seconds", "0.3"]
    with running_emulator(*command) as emulator:
        yield emulator


@pytest.fixture
def emulator(emulator_process: Emulator) -> Iterator[Emulator]:
    """The emulator, with no fault and no session, and none left after the test."""
    with no_session_left(emulator_process) as emulator:
        yield emulator


@pytest.fixture
def start_relay(emulator: Emulator, tmp_path: Path) -> Iterator[StartRelay]:
    """Start `relayd run` against the emulator, with `--set` overrides."""
    with relays_of(emulator, tmp_path) as start:
        yield start


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
