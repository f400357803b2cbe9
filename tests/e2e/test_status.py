"""Commands to a running relay, and its page's token, as a person meets them."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from relayd.logs import LogEvent
from tests.support.stage import (
    PERSON,
    PORTRAIT,
    RELAYD,
    TOKEN,
    Emulator,
    StartRelay,
    relay_config,
    relayd,
    wait_for,
)

FROZEN = 3.0
"""s within which a frozen relay is told, beyond what an answer takes."""


@pytest.mark.timeout(180)
def test_a_running_relay_is_asked_and_told_over_its_control_socket(
    start_relay: StartRelay, emulator: Emulator, tmp_path: Path
) -> None:
    runtime = tmp_path / "runtime"
    ask = partial(relayd, XDG_RUNTIME_DIR=str(runtime))
    relay = start_relay(f"control.socket={runtime}/relayd/studio.sock")
    relay.wait_state("live")
    told = ask("status", "studio")
    assert told.returncode == 0, told.stderr
    assert "Live" in told.stdout
    assert json.loads(ask("status", "studio", "--json").stdout)["state"] == "live"
    unknown = ask("status", "kitchen")
    assert unknown.returncode == 3
    assert "studio" in unknown.stderr

    changed = ask("face", "set", emulator.upload(PORTRAIT), "--relay", "studio")
    assert (changed.returncode, changed.stdout) == (0, "relay: face changed; now Live\n")
    refused = ask("face", "set", "http://127.0.0.1:9/none.png", "--relay", "studio")
    assert refused.returncode == 1
    assert refused.stderr.startswith("relayd: ")
    paused = ask("pause", "--relay", "studio")
    assert paused.returncode == 0
    assert paused.stdout.startswith("relay: paused; now ")
    wait_for("the session is closed", lambda: not emulator.sessions(), 5)
    resumed = ask("resume", "--relay", "studio")
    assert resumed.returncode == 0
    assert resumed.stdout.startswith("relay: resumed; now ")
    relay.wait_state("live")


def test_a_relay_with_a_socket_of_its_own_is_found_by_its_file_and_by_its_socket(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay()
    socket = tmp_path / "control.sock"
    for how in (("-c", relay.config), ("--socket", socket)):
        done = relayd("status", *how)
        assert done.returncode in {0, 1}, done.stderr
        assert re.search(r"^relay +relay$", done.stdout, re.MULTILINE)
        assert relayd("pause", *how).stdout.startswith("relay: paused; now ")
    assert relayd("status", "relay", "--socket", socket).returncode == 2
    assert relay.stop() == 0
    gone = relayd("status", "-c", relay.config)
    assert gone.returncode == 3
    assert gone.stderr == f"relayd: no relay runs on {socket}\n"


def test_without_a_runtime_directory_run_says_where_its_socket_is_and_status_looks_there(
    emulator: Emulator, tmp_path: Path
) -> None:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    config, log = tmp_path / f"{name}.toml", tmp_path / "log"
    text = relay_config(emulator, PERSON, tmp_path)
    config.write_text(text.replace(f'socket = "{tmp_path}/control.sock"', ""))
    environment = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
    with log.open("wb") as stderr:
        process = subprocess.Popen([RELAYD, "run", "-c", config], stderr=stderr, env=environment)
    try:
        wait_for("the server", lambda: LogEvent.CONTROL_LISTENING in log.read_text(), 30)
        (told,) = re.findall(r'"socket": "([^"]+)"', log.read_text())
        assert Path(told).parent.stat().st_mode & 0o777 == 0o700
        done = relayd("status", name)
        assert done.returncode in {0, 1}, done.stderr
        assert name in done.stdout
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert relayd("status", name).returncode == 3


def test_a_frozen_relay_is_told_within_3_s_with_its_pid(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay()
    relay.process.send_signal(signal.SIGSTOP)
    try:
        for command in (("status",), ("pause",), ("face", "set", "http://x/f.png")):
            start = time.monotonic()
            done = relayd(*command, "--socket", tmp_path / "control.sock")
            took = time.monotonic() - start
            assert done.returncode == 69
            assert done.stderr.startswith(
                "relayd: relay control does not answer (stopped or frozen), pid "
            )
            assert f"pid {relay.process.pid} " in done.stderr
            assert took < FROZEN * max(1, os.getloadavg()[0])
    finally:
        relay.process.send_signal(signal.SIGCONT)


def test_the_page_is_entered_by_the_url_that_status_prints(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = start_relay()
    base = f"http://127.0.0.1:{relay.port}"
    for path in ("/", "/api/status", "/preview/output.jpg", "/metrics", "/healthz"):
        refused = httpx.get(base + path)
        assert refused.status_code == 401
        assert "relayd status" in refused.json()["hint"]
    told = relayd("status", "--socket", tmp_path / "control.sock").stdout
    (url,) = re.findall(r"^page +(\S+)$", told, re.MULTILINE)
    assert url == f"{base}/?token={TOKEN}"
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(url)
        assert (page.status_code, str(page.url)) == (200, f"{base}/")
        assert browser.get(f"{base}/preview/output.jpg").content.startswith(b"\xff\xd8")
        own = {"Origin": base}
        assert browser.post(f"{base}/api/pause", headers=own).status_code == 200
    assert TOKEN not in relayd("status", "--socket", tmp_path / "control.sock", "--json").stdout
    assert TOKEN not in relay.get("/metrics").text
    relay.stop()
    assert TOKEN not in relay.events()
    assert "token=" not in relay.events()


def test_a_token_made_at_the_start_is_shown_on_a_terminal_and_by_status_and_in_no_log(
    emulator: Emulator, tmp_path: Path
) -> None:
    config, log = tmp_path / "relay.toml", tmp_path / "log"
    config.write_text(relay_config(emulator, PERSON, tmp_path))
    terminal, side = pty.openpty()
    command = [str(RELAYD), "run", "-c", str(config), "--set", "control.http=127.0.0.1:0"]
    with log.open("wb") as stderr:
        relay = subprocess.Popen(command, stdout=side, stderr=stderr)
    os.close(side)
    try:
        with os.fdopen(terminal, "rb", buffering=0) as shown:
            (url,) = re.findall(r"page: (\S+)", shown.read(4096).decode())
            told = relayd("status", "-c", config).stdout
            token = url.partition("token=")[2]
            assert len(token) >= 22
            assert re.findall(r"^page +(\S+)$", told, re.MULTILINE) == [url]
            bearer = {"Authorization": f"Bearer {token}"}
            api = url.partition("?")[0] + "api/status"
            assert httpx.get(api, headers=bearer).is_success
            assert not httpx.get(api).is_success
    finally:
        relay.terminate()
        assert relay.wait(20) == 0
    assert token not in log.read_text()
    assert "relayd status" in log.read_text()


def test_an_address_that_others_reach_is_refused_by_run_and_check_alike(
    emulator: Emulator, tmp_path: Path
) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(relay_config(emulator, PERSON, tmp_path))
    for command in ("run", "check"):
        done = relayd(command, "-c", config, "--set", "control.http=0.0.0.0:0")
        assert done.returncode == 78
        assert "control.http = '0.0.0.0:0': other machines reach this" in done.stdout + done.stderr


AS_NOBODY = """
import os, pathlib, socket, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
for path in sys.argv[1:]:
    try:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(path)
        print("connected")
    except OSError as fault:
        print(type(fault).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be tried by root alone")
def test_another_user_cannot_open_the_control_socket(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    start_relay()
    path = tmp_path / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(
        [sys.executable, "-I", "-c", AS_NOBODY, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["PermissionError"]
