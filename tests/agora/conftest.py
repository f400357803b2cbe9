"""The real wrapper over the stand-in of its native library, and the cloud behind that."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from relayd.rtc.link import LinkTarget
from tests.agora.cloud import ROOT, Cloud
from tests.agora.inverter import Inverter
from tests.agora.library import CompilerMissing, build_site
from tests.agora.side import APP, GEOMETRY, TOKEN, Side
from tests.support.stage import (
    Emulator,
    StartRelay,
    no_session_left,
    relays_of,
    running_emulator,
    wait_for,
)

MEDIA = Path(__file__).parents[1] / "media"


@pytest.fixture(scope="session")
def sdist() -> Path:
    """The wrapper's source distribution, as tests/setup.sh fetches it."""
    found = sorted(MEDIA.glob("agora_python_server_sdk-*.tar.gz"))
    if not found:
        pytest.skip("NO AGORA LINK TESTED: its wrapper could not be had (tests/setup.sh)")
    return found[-1]


@pytest.fixture(scope="session")
def agora_site(sdist: Path) -> Path:
    """A folder for PYTHONPATH in which the wrapper is installed, over the stand-in."""
    try:
        return build_site(sdist, MEDIA / "agora-site")
    except CompilerMissing as fault:
        pytest.skip(f"NO AGORA LINK TESTED: {fault}")


@pytest.fixture(scope="module")
def running_cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: Cloud) -> Cloud:
    """Agora's cloud, with no fault and nobody in it that was there before."""
    running_cloud.clear()
    return running_cloud


@pytest.fixture
def agora(cloud: Cloud, agora_site: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The cloud, for processes started in the test, which find the wrapper installed."""
    monkeypatch.syspath_prepend(agora_site)
    # This checkout, whichever one is installed.
    monkeypatch.setenv("PYTHONPATH", f"{agora_site}{os.pathsep}{ROOT}")
    monkeypatch.setenv("XDG_AGORA_HUB", cloud.path)
    return cloud


@pytest.fixture(scope="module")
def agora_emulator_process(running_cloud: Cloud) -> Iterator[Emulator]:
    command = [sys.executable, "-m", "tests.agora.emulator"]
    with running_emulator(*command, "--hub", running_cloud.path, "--app-id", "app") as emulator:
        yield emulator


@pytest.fixture
def agora_emulator(agora_emulator_process: Emulator, agora: Cloud) -> Iterator[Emulator]:
    """The emulator over the cloud, with no fault and no session, and none left after the test."""
    with no_session_left(agora_emulator_process) as emulator:
        yield emulator


@pytest.fixture
def start_agora_relay(
    agora_emulator: Emulator, agora: Cloud, tmp_path: Path
) -> Iterator[StartRelay]:
    """Start `relayd run` with the Agora link, with `--set` overrides; no worker outlives it."""
    with relays_of(agora_emulator, tmp_path, "rtc.kind=agora", "rtc.app_id=app") as start:
        yield start
    workers = [service.pid for service in agora.services()]
    wait_for("the workers are gone", lambda: not any(map(psutil.pid_exists, workers)), 2)


@pytest.fixture
def channel(agora: Cloud, request: pytest.FixtureRequest) -> Iterator[str]:
    """A channel of the test's own, open to the front user and the engine."""
    name = f"channel-{abs(hash(request.node.name))}"
    agora.open(name, app_id=APP, token=TOKEN, uids=["1", "3"], key_seconds=60.0)
    yield name
    agora.close(name)


@pytest.fixture
def engine(agora: Cloud, channel: str) -> Iterator[Inverter]:
    with Inverter(agora.path, app_id=APP, channel=channel, token=TOKEN) as engine:
        yield engine


@pytest.fixture
def target(channel: str, tmp_path: Path) -> LinkTarget:
    return LinkTarget(
        kind="agora",
        channel_id=channel,
        front_user_id="1",
        algorithm_user_id="3",
        token=TOKEN,
        geometry=GEOMETRY,
        fps=20.0,
        bitrate_kbit=2000,
        token_age=0.0,
        session_id="a-session",
        app_id=APP,
        state_directory=str(tmp_path / "state"),
        publish_url="",
        play_url="",
        first_frame_timeout=8.0,
        recovery_timeout=3.0,
    )


@pytest.fixture
def start(target: LinkTarget) -> Iterator[Callable[..., Side]]:
    """Start a worker; `changes` are the target's. None outlives the test."""
    sides: list[Side] = []

    def start(**changes: object) -> Side:
        side = Side(replace(target, **changes))  # type: ignore[arg-type]  # values of several types
        sides.append(side)
        side.worker.start()
        return side

    yield start
    for side in sides:
        side.worker.stop(2.0)
        assert not side.worker.alive


@pytest.fixture
def side(engine: Inverter, start: Callable[..., Side]) -> Side:
    return start()
