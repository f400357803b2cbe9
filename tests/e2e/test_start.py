"""How a relay starts, takes signals and owns its name, as its user or a container sees it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.interpreter import ROOT
from tests.support.pid1 import (
    AS_PID_1,
    first_child,
    needs_unshare,
    wait_until_handled,
)
from tests.support.stage import LIVE, PERSON, Emulator, relay_config, wait_for

pytestmark = pytest.mark.relay

COMMAND = [sys.executable, "-m", "relayd"]
ENOUGH = 30.0  # s that a command may take here to end


@pytest.fixture
def config(emulator: Emulator, tmp_path: Path) -> Path:
    file = tmp_path / "studio.toml"
    file.write_text(relay_config(emulator, PERSON, tmp_path))
    return file


class Process:
    """`relayd run` with nothing at its stdin, and what it logged."""

    def __init__(self, config: Path, log: Path, *before: str, **environment: str) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self.popen = subprocess.Popen(
                [*before, *COMMAND, "run", "-c", config],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | {"NOTIFY_SOCKET": ""} | environment,
            )

    def log(self) -> str:
        return self._log.read_text()

    def wait_logged(self, text: str, times: int = 1) -> None:
        wait_for(f"{text} x {times}", lambda: self.log().count(text) >= times, LIVE)

    def send(self, number: int) -> None:
        self.popen.send_signal(number)


Start = Callable[..., Process]


@pytest.fixture
def start(config: Path, tmp_path: Path) -> Iterator[Start]:
    running: list[Process] = []

    def started(*before: str, **environment: str) -> Process:
        log = tmp_path / f"log-{len(running)}"
        running.append(Process(config, log, *before, **environment))
        return running[-1]

    yield started
    for process in running:
        if process.popen.poll() is None:
            process.send(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(ENOUGH)
        process.popen.kill()
        process.popen.wait()


def run(command: str, config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, command, *words, "-c", config],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ENOUGH,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )


@needs_unshare
@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0])
def test_sigterm_at_any_moment_of_the_start_as_pid_1_is_a_clean_end_that_leaves_no_session(
    start: Start, emulator: Emulator, delay: float
) -> None:
    relay = start(*AS_PID_1)
    pid = first_child(relay.popen)
    wait_until_handled(pid)
    time.sleep(delay)
    os.kill(pid, signal.SIGTERM)
    assert relay.popen.wait(ENOUGH) == 0, relay.log()
    assert emulator.open() == []


def test_a_second_relay_of_a_name_ends_with_69_and_opens_no_session(
    start: Start, emulator: Emulator, config: Path
) -> None:
    first = start()
    first.wait_logged('"now": "live"')
    assert len(emulator.open()) == 1
    second = start()
    assert second.popen.wait(ENOUGH) == 69
    last = second.log().splitlines()[-1]
    assert last.startswith("relayd: relay 'studio' is already running (process ")
    assert f"process {first.popen.pid}" in last
    assert "another [state] directory" in last
    assert len(emulator.open()) == 1
    checked = run("check", config)
    assert checked.returncode == 0, checked.stdout
    assert "in use by a running relay 'studio'" in checked.stdout
    first.send(signal.SIGKILL)
    first.popen.wait(ENOUGH)
    assert "in use by" not in run("check", config).stdout
    third = start()
    third.wait_logged('"now": "live"')
    third.send(signal.SIGTERM)
    assert third.popen.wait(ENOUGH) == 0
    assert emulator.open() == []


def test_a_hangup_without_systemd_reloads_the_file_and_keeps_the_session(
    start: Start, emulator: Emulator, config: Path
) -> None:
    relay = start()
    relay.wait_logged('"now": "live"')
    (session,) = emulator.open()
    good = config.read_text()
    config.write_text(good.replace("[akool]", "[akool]\nsession_max = 600"))
    relay.send(signal.SIGHUP)
    relay.wait_logged("reload.done")
    assert "akool.session_max" in relay.log()
    config.write_text(f"{good}\n[video]\nfps = {'9' * 5000}\n")
    relay.send(signal.SIGHUP)
    relay.wait_logged("reload.refused")
    config.write_text(good)
    relay.send(signal.SIGHUP)
    relay.wait_logged("reload.done", times=2)
    assert emulator.open() == [session]
    relay.send(signal.SIGTERM)
    assert relay.popen.wait(ENOUGH) == 0


def test_a_third_ctrl_c_ends_at_once_and_leaves_the_session_to_the_journal(
    start: Start, emulator: Emulator, config: Path
) -> None:
    relay = start()
    relay.wait_logged('"now": "live"')
    (session,) = emulator.open()
    emulator.fault("slow", endpoint="close", delay=60.0)
    relay.send(signal.SIGINT)
    relay.wait_logged('"now": "closing"')
    time.sleep(0.6)  # a person's next press, not one that was forwarded
    relay.send(signal.SIGINT)
    relay.wait_logged("stop.pending")
    time.sleep(0.6)
    relay.send(signal.SIGINT)
    assert relay.popen.wait(5) == 128 + signal.SIGINT
    emulator.clear()
    closed = run("sessions", config, "close")
    if "nothing is left open" not in closed.stdout:  # the slow close may have got through
        assert closed.stdout == f"{session}: closed\n"
    wait_for("no session is open", lambda: not emulator.open(), 5)


def test_what_kubernetes_sets_is_warned_of_once_and_stops_nothing(start: Start) -> None:
    relay = start(RELAYD_PORT="tcp://10.0.0.1:8642", RELAYD_SERVICE_HOST="10.0.0.1")
    relay.wait_logged('"now": "live"')
    relay.send(signal.SIGHUP)
    relay.wait_logged("reload.done")
    warnings = [line for line in relay.log().splitlines() if "environment.ignored" in line]
    assert len(warnings) == 1
    assert '"RELAYD_PORT", "RELAYD_SERVICE_HOST"' in warnings[0]
