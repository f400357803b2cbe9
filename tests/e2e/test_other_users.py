"""What another user of this machine gets of a relay: nothing, unless its owner opens it.

The relay is started by root under `umask 000`; a child process that is user 65534 asks.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import stage
from tests.support.stage import LIVE, TOKEN, RunningRelay, wait_for

NOBODY = 65534
StartRelay = Callable[..., RunningRelay]

pytestmark = [
    pytest.mark.relay,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which root alone can"),
]

ASKS = f"""
import encodings.idna, json, os, socket, sys
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
port, paths, folders, written, socket_path, pids = json.loads(sys.argv[1])
told = {{}}

def tried(what, do):
    try:
        told[what] = str(do())[:200]
    except OSError as fault:
        told[what] = fault.strerror

def request(line, *headers):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as asked:
        lines = [line + " HTTP/1.1", f"Host: 127.0.0.1:{{port}}", "Connection: close", *headers]
        asked.sendall(("\\r\\n".join(lines) + "\\r\\n\\r\\n").encode())
        answer = b""
        while part := asked.recv(65536):
            answer += part
            if len(answer) > 100_000:
                break
    return answer.split()[1].decode()

for line in (
    "GET /", "GET /api/status", "GET /api/page", "GET /healthz", "GET /metrics",
    "GET /preview/output.jpg", "GET /preview/output.mjpeg", "GET /preview/source.jpg",
    "HEAD /preview/output.jpg", "OPTIONS /api/status", "POST /api/pause", "POST /api/face",
    "POST /api/source/retry", "GET /?token=wrong-wrong-wrong", "GET /nowhere",
):
    tried(line, lambda: request(line, "Content-Length: 0"))
bearer, cookie = "Authorization: Bearer " + "x" * 22, f"Cookie: relayd-{{port}}=" + "x" * 64
tried("bearer of another", lambda: request("GET /api/status", bearer))
tried("cookie of another", lambda: request("GET /api/status", cookie))

def connect():
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(socket_path)
    return "connected"

tried("control socket", connect)
for path in paths:
    tried(f"read {{path}}", lambda: open(path, "rb").read(50))
for path in folders:
    tried(f"list {{path}}", lambda: os.listdir(path))
for path in written:
    tried(f"write into {{path}}", lambda: os.mkdir(path + "/mine"))
for pid in pids:
    for name in ("environ", "maps", "mem"):
        tried(f"{{name}} of {{pid}}", lambda: open(f"/proc/{{pid}}/{{name}}", "rb").read(50))
    tried(f"fds of {{pid}}", lambda: os.listdir(f"/proc/{{pid}}/fd"))
    told[f"cmdline of {{pid}}"] = open(f"/proc/{{pid}}/cmdline").read().replace("\\0", " ")
print(json.dumps(told))
"""


@pytest.fixture
def start_open(
    start_relay: StartRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StartRelay:
    """Start relays under an umask that takes nothing away."""
    program = tmp_path / "relayd-open"
    program.write_text(f'#!/bin/sh\numask 000\nexec {stage.RELAYD} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(stage, "RELAYD", program)
    return start_relay


def asked_by_nobody(*told: object) -> dict[str, str]:
    # -I, in a folder that everybody may enter: the user sees nothing of ours but the interpreter.
    done = subprocess.run(
        [sys.executable, "-I", "-c", ASKS, json.dumps(told)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that everybody may pass, so that the relay's own modes decide."""
    with tempfile.TemporaryDirectory(prefix="relayd-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_another_user_gets_nothing(start_open: StartRelay, folder: Path) -> None:
    recordings = folder / "recordings"
    recordings.mkdir()
    recordings.chmod(0o755)
    socket_path = folder / "sockets" / "deep" / "studio.sock"
    relay = start_open(
        f"control.socket={socket_path}",
        f"state.directory={folder}/made/by/relayd",
        f'output=[{{kind="stream",url="{recordings}/out.mkv"}}]',
        AKOOL_API_KEY="SECRET-key-of-the-account",
    )
    relay.wait_state("live")
    state = folder / "made" / "by" / "relayd"
    wait_for("a recording", lambda: (recordings / "out.mkv").stat().st_size > 0, LIVE)
    recording = recordings / "out.mkv"
    recording.rename(recordings / "moved.mkv")  # goes on in a part of its own
    wait_for("a new part", lambda: recording.exists() and recording.stat().st_size > 0, LIVE)
    wait_for("the journal", lambda: list((state / "sessions").glob("*.json")), LIVE)
    assert relay.post("/api/pause").status_code == 200
    wait_for("the history", (state / "history.jsonl").exists, LIVE)
    assert relay.post("/api/resume").status_code == 200
    relay.wait_state("live")
    files = [path for path in (*state.rglob("*"), *recordings.iterdir()) if path.is_file()]
    folders = [state, *(path for path in state.rglob("*") if path.is_dir()), socket_path.parent]
    made = [state.parent.parent, state.parent, *folders, socket_path.parent.parent]
    process = psutil.Process(relay.process.pid)
    pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
    assert len(pids) >= 3
    names = [str(path) for path in files]
    assert {Path(name).suffix for name in names} >= {".json", ".jsonl", ".lock", ".mkv"}
    answers = asked_by_nobody(
        relay.port, names, list(map(str, folders)), list(map(str, made)), str(socket_path), pids
    )
    command_lines = {what: answers.pop(what) for what in list(answers) if "cmdline" in what}
    requests = {what: told for what, told in answers.items() if told.isdigit()}
    assert len(requests) == 17
    assert set(requests.values()) == {"401"}, requests
    refusals = {what: told for what, told in answers.items() if what not in requests}
    assert len(refusals) >= 20
    assert set(refusals.values()) == {"Permission denied"}, refusals
    assert not [line for line in command_lines.values() if "SECRET" in line or TOKEN in line]
    assert relay.status()["state"] == "live", "nothing that was asked had an effect"
    assert relay.stop() == 0
    for path in (*recordings.iterdir(), *(one for one in state.rglob("*") if one.is_file())):
        assert path.stat().st_mode & 0o077 == 0, path


def test_what_the_owner_made_public_is_all_that_others_get(
    start_open: StartRelay, folder: Path
) -> None:
    socket_path = folder / "control.sock"
    relay = start_open('control.public=["healthz","metrics"]', f"control.socket={socket_path}")
    relay.wait_state("live")
    answers = asked_by_nobody(relay.port, [], [], [], str(socket_path), [])
    opened = {what for what, told in answers.items() if told == "200"}
    assert opened == {"GET /healthz", "GET /metrics"}
    assert relay.stop() == 0
