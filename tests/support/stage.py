"""What the end-to-end tests play with: the installed commands, each in a process of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.interpreter import ENVIRONMENT, ROOT, Interpreter

RELAYD = Path(sys.executable).parent / "relayd"
NO_TLS = False
"""What `verify` is for plain HTTP: else each httpx client reads all CA certificates, for 25 ms."""
MEDIA = ROOT / "relayd" / "emulator" / "media"
PERSON, PORTRAIT = MEDIA / "person.mp4", MEDIA / "portrait.png"
START = 30.0  # s that a process may take to start here
LONGEST_RUN = 50.0  # s that a command may take here that ends by itself
LIVE = 25.0  # s that a relay may take to be live here
GAP = 0.1
"""s that outputs may wait for a picture, whatever fails."""
BUSY_GAP = 0.4
"""s instead, where others keep this machine busy."""
TOKEN = "the-token-of-the-tests"
"""What the relays here take over TCP."""
BUSY = 50.0
"""Percent of the processors' time in use from which on it counts as busy; a test takes 30."""
_interpreter: Interpreter | None = None


def wait_for(what: str, done: Callable[[], object], within: float, every: float = 0.05) -> float:
    """Wait until `done()` holds; returns the seconds that it took."""
    start = time.monotonic()
    while not done():
        if time.monotonic() - start > within:
            pytest.fail(f"{what}: not within {within:g} s")
        time.sleep(every)
    return time.monotonic() - start


def longest_gap_allowed() -> float:
    """Return GAP, or what a busy machine gets: by its load, or because we give way to others."""
    is_loaded = os.getloadavg()[0] > (os.cpu_count() or 1) or psutil.cpu_percent() > BUSY
    return BUSY_GAP if is_loaded or os.nice(0) > 0 else GAP


@contextlib.contextmanager
def ready_interpreter() -> Iterator[None]:
    """Let `relayd` fork its runs, rather than start Python for each."""
    global _interpreter  # noqa: PLW0603 - one for all tests of a process
    _interpreter = Interpreter()
    try:
        yield
    finally:
        _interpreter.close()
        _interpreter = None


def running_interpreter() -> Interpreter:
    """Return the interpreter that `ready_interpreter` started."""
    assert _interpreter is not None
    return _interpreter


def relayd(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    words = [str(each) for each in arguments]
    if _interpreter is not None:
        return _interpreter.run(words, ENVIRONMENT | environment, LONGEST_RUN)
    return subprocess.run(
        [str(RELAYD), *words],
        capture_output=True,
        text=True,
        timeout=LONGEST_RUN,
        check=False,
        env=ENVIRONMENT | environment,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Emulator:
    """A running `relayd emulator`."""

    url: str
    process: subprocess.Popen[str]

    def state(self) -> dict[str, Any]:
        told: dict[str, Any] = httpx.get(f"{self.url}/emulator/state", verify=NO_TLS).json()
        return told

    def sessions(self) -> list[dict[str, Any]]:
        return list(self.state()["sessions"])

    def open(self) -> list[str]:
        """Ids of the sessions that are open, oldest first."""
        return [session["_id"] for session in self.sessions()]

    def created(self) -> set[str]:
        """Every session that there has been."""
        state = self.state()
        return {session["_id"] for session in [*state["sessions"], *state["ended"]]}

    def fault(self, name: str, **options: Any) -> None:
        httpx.post(
            f"{self.url}/emulator/faults", json={"fault": name, **options}, verify=NO_TLS
        ).raise_for_status()

    def clear(self) -> None:
        httpx.delete(f"{self.url}/emulator/faults", verify=NO_TLS).raise_for_status()

    def reset(self) -> None:
        httpx.post(f"{self.url}/emulator/reset", json={}, verify=NO_TLS).raise_for_status()

    def upload(self, image: Path) -> str:
        answer = httpx.post(
            f"{self.url}/emulator/images",
            headers={"content-type": "image/*"},
            content=image.read_bytes(),
            verify=NO_TLS,
        )
        return str(answer.raise_for_status().json()["url"])


@contextlib.contextmanager
def running_emulator(*command: str | Path) -> Iterator[Emulator]:
    """Run a command that serves as `relayd emulator` does, and end it."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("relayd emulator ready at http://"), line
        yield Emulator(line.split()[-1], process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()


@contextlib.contextmanager
def no_session_left(emulator: Emulator) -> Iterator[Emulator]:
    """Clear the emulator of faults and sessions; fail if any is open at the end."""
    emulator.reset()
    yield emulator
    left = emulator.sessions()
    emulator.reset()
    assert not left, f"sessions left open: {left}"


@dataclass
class RunningRelay:
    """A running `relayd run`, seen as its user sees it."""

    process: subprocess.Popen[bytes]
    config: Path
    log: Path
    port: int
    _client: httpx.Client = field(
        default_factory=lambda: httpx.Client(
            timeout=5, headers={"Authorization": f"Bearer {TOKEN}"}, verify=NO_TLS
        )
    )

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = self._client.get(f"http://127.0.0.1:{self.port}/api/status").json()
        return told

    def state(self) -> str:
        try:
            return str(self.status()["state"])
        except httpx.HTTPError:
            return "unreachable"

    def picture(self) -> bytes:
        return self._client.get(f"http://127.0.0.1:{self.port}/preview/output.jpg").content

    def get(self, path: str) -> httpx.Response:
        return self._client.get(f"http://127.0.0.1:{self.port}{path}")

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self._client.post(f"http://127.0.0.1:{self.port}{path}", json=body)

    def wait_state(self, *states: str, within: float = LIVE) -> float:
        try:
            return wait_for(f"state {states}", lambda: self.state() in states, within)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}; log:\n{self.log.read_text()[-4000:]}")

    def events(self) -> str:
        return self.log.read_text()

    def stop(self, number: int = signal.SIGTERM, within: float = 20.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(within)
        finally:
            self._client.close()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


def workers_of(relay: RunningRelay) -> list[psutil.Process]:
    """Return the worker processes that carry its links."""
    children = psutil.Process(relay.process.pid).children()
    return [child for child in children if "relayd.rtc.worker" in child.cmdline()]


StartRelay = Callable[..., RunningRelay]


@contextlib.contextmanager
def relays_of(emulator: Emulator, folder: Path, *settings: str) -> Iterator[StartRelay]:
    """Return what starts `relayd run` with settings and overrides; ends what was started."""
    running: list[RunningRelay] = []

    def start(*overrides: str, source: Path | str = PERSON, **environment: str) -> RunningRelay:
        number, port = len(running), free_port()
        config = folder / "relay.toml"
        if not config.exists():
            config.write_text(relay_config(emulator, source, folder))
        log = folder / f"relay-{number}.log"
        sets = [part for text in (*settings, *overrides) for part in ("--set", text)]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [RELAYD, "run", "-c", config, "--set", f"control.http=127.0.0.1:{port}", *sets],
                stderr=stderr,
                env=os.environ
                | {"RELAYD_VIDEO__BITRATE": "2000", "RELAYD_CONTROL__TOKEN": TOKEN}
                | environment,
            )
        relay = RunningRelay(process, config, log, port)
        running.append(relay)
        wait_for(
            f"control server ({log.read_text()})",
            lambda: relay.state() != "unreachable" or process.poll() is not None,
            START,
        )
        return relay

    try:
        yield start
    finally:
        for relay in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                relay.stop()


def rtc_keys(service: str, **limits: float) -> str:
    """Return the keys of `[rtc]` for a link to the emulator at this URL, with these limits."""
    return "\n".join(
        [
            'kind = "webrtc"',
            f'publish_url = "{service}/rtc/{{channel_id}}/{{front_user_id}}/whip"',
            f'play_url = "{service}/rtc/{{channel_id}}/{{algorithm_user_id}}/whep"',
            *(f"{name} = {limit}" for name, limit in limits.items()),
        ]
    )


def relay_config(emulator: Emulator, source: Path | str, folder: Path) -> str:
    return f"""
[source]
url = "{source}"
[face]
image = "{emulator.upload(PORTRAIT)}"
[akool]
base_url = "{emulator.url}"
api_key = "a-test-key"
[rtc]
{rtc_keys(emulator.url)}
[[output]]
kind = "stream"
url = "{folder}/out.mkv"
[control]
socket = "{folder}/control.sock"
[state]
directory = "{folder}/state"
"""
