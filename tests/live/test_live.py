"""One short session with the real service: run by `make test-live`, costs some seconds of credit.

Needs in the environment the service's key (AKOOL_API_KEY, or RELAYD_AKOOL__CLIENT_ID and
RELAYD_AKOOL__CLIENT_SECRET) and a face it can fetch (RELAYD_FACE__IMAGE). Every other key of the
configuration can come from there too; the source is the demo's clip.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.media.frames import Geometry
from tests.support.stage import PERSON, RELAYD, START, TOKEN, RunningRelay, free_port, wait_for

KEYS = ("AKOOL_API_KEY", "RELAYD_AKOOL__API_KEY", "RELAYD_AKOOL__CLIENT_ID")
TO_LIVE = 180.0  # s: the service may queue for two minutes
WATCHED = 15.0  # s that the swapped picture is watched, and paid

pytestmark = pytest.mark.live


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """A relay's configuration; whatever happens, no session of its journal stays open."""
    if not any(os.environ.get(key) for key in KEYS) or not os.environ.get("RELAYD_FACE__IMAGE"):
        pytest.skip(f"no account: set {KEYS[0]} and RELAYD_FACE__IMAGE")
    file = tmp_path / "live.toml"
    file.write_text(
        f'[source]\nurl = "{PERSON}"\n'
        f'[[output]]\nkind = "stream"\nurl = "{tmp_path}/out.mkv"\n'
        f'[control]\nsocket = "{tmp_path}/control.sock"\n'
        f'[state]\ndirectory = "{tmp_path}/state"\n'
    )
    yield file
    closed = subprocess.run(
        [RELAYD, "sessions", "close", "-c", file], capture_output=True, text=True, check=False
    )
    print(f"sessions close: {closed.stdout.strip()}{closed.stderr.strip()}")  # noqa: T201 - report
    assert closed.returncode == 0


@pytest.fixture
def relay(config: Path, tmp_path: Path) -> Iterator[RunningRelay]:
    log, port = tmp_path / "relay.log", free_port()
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [RELAYD, "run", "-c", config, "--set", f"control.http=127.0.0.1:{port}"],
            stderr=stderr,
            env=os.environ | {"RELAYD_CONTROL__TOKEN": TOKEN},
        )
    relay = RunningRelay(process, config, log, port)
    yield relay
    assert relay.stop(signal.SIGTERM, within=40.0) == 0


def test_a_session_with_the_real_service_goes_live_and_is_closed(relay: RunningRelay) -> None:
    began = time.monotonic()
    wait_for(
        "control server",
        lambda: relay.state() != "unreachable" or relay.process.poll() is not None,
        START,
    )
    seen: dict[str, float] = {}

    def is_live() -> bool:
        state = relay.state()
        seen.setdefault(state, round(time.monotonic() - began, 2))
        if state in {"blocked", "backoff"}:
            pytest.fail(f"{relay.status()['reason']}\n{relay.events()[-3000:]}")
        return state == "live"

    wait_for("live", is_live, TO_LIVE)
    assert relay.picture().startswith(b"\xff\xd8")
    before = relay.status()
    time.sleep(WATCHED)
    after = relay.status()
    measured = {
        "seconds to each state": seen,
        "swapped frames a second": round(
            (after["frames"]["swapped"] - before["frames"]["swapped"]) / WATCHED, 1
        ),
        "delay": after["delay"],
        "longest gap": after["longest_gap"],
        "billed seconds": after["session_seconds"],
        "size": str(Geometry(640, 480)),
        "reconnects": after["reconnects"],
    }
    print(json.dumps(measured, indent=2))  # noqa: T201 - this is what it is for
    assert after["state"] == "live"
    assert measured["swapped frames a second"] > 10
