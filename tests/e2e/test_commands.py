"""What a person gets from each command."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import stage
from tests.support.stage import (
    LIVE,
    PERSON,
    PORTRAIT,
    RELAYD,
    START,
    Emulator,
    RunningRelay,
    relay_config,
    relayd,
    wait_for,
)


@pytest.fixture
def config(emulator: Emulator, tmp_path: Path) -> Path:
    file = tmp_path / "relay.toml"
    file.write_text(relay_config(emulator, PERSON, tmp_path))
    return file


def test_a_bad_configuration_ends_with_78_and_one_line_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[sorce]\n[video]\nfps = "many"\n')
    done = relayd("run", "-c", file)
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "relayd: video.fps = 'many': must be a number without a unit, like 2.5 (bad.toml, line 3)",
        "relayd: [sorce]: unknown table; did you mean source? (bad.toml, line 1)",
    ]


def test_a_wrong_call_ends_with_2() -> None:
    assert relayd("run").returncode == 2
    assert relayd("dance").returncode == 2
    assert relayd("run", "-c", "x", "--log-level", "loud").returncode == 2


NO_CAMERA = 'output=[{kind="camera",device="/dev/video9"}]'


def test_a_missing_camera_is_waited_for_and_told_with_the_command_that_makes_one(
    start_relay: Callable[..., RunningRelay], emulator: Emulator, tmp_path: Path
) -> None:
    before = emulator.created()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(START)
        relay = start_relay(NO_CAMERA, NOTIFY_SOCKET=str(tmp_path / "notify"))
        relay.wait_state("standby")
        assert b"READY=1" in systemd.recv(4096)
    camera = relay.status()["outputs"]["/dev/video9"]
    assert "no such file" in camera
    assert "modprobe v4l2loopback" in camera
    assert relay.picture().startswith(b"\xff\xd8")
    assert relay.process.poll() is None
    assert emulator.created() == before
    assert relay.stop() == 0


def test_a_file_in_a_folder_that_is_made_later_is_written_from_then_on(
    start_relay: Callable[..., RunningRelay], tmp_path: Path
) -> None:
    folder = tmp_path / "disk"
    relay = start_relay(f'output=[{{kind="stream",url="{folder}/out.mkv"}}]')
    output = f"{folder}/out.mkv"
    wait_for("word of it", lambda: "No such file" in relay.status()["outputs"][output], LIVE)
    folder.mkdir()
    wait_for("its return", lambda: relay.status()["outputs"][output] == "ok", LIVE)
    assert relay.stop() == 0
    assert (folder / "out.mkv").stat().st_size > 0


def test_where_outputs_are_required_a_missing_camera_ends_with_69_and_says_how_to_make_one(
    config: Path,
) -> None:
    done = relayd("run", "-c", config, "--require-outputs", "--set", NO_CAMERA)
    assert done.returncode == 69
    last = done.stderr.splitlines()[-1]
    assert last.startswith("relayd: ")
    assert "/dev/video9" in last
    assert "modprobe v4l2loopback" in last
    assert "Traceback" not in done.stderr


def test_check_of_a_missing_camera_ends_with_69(config: Path) -> None:
    done = relayd("check", "-c", config, "--set", NO_CAMERA)
    assert done.returncode == 69
    assert "failed   camera: /dev/video9: no such file" in done.stdout


def test_a_relay_that_fails_to_start_tells_systemd_why_and_never_that_it_is_ready(
    config: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        options = ["--require-outputs", "--set", NO_CAMERA]
        done = relayd("run", "-c", config, *options, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert done.returncode == 69
        assert systemd.recv(4096) == b"STATUS=Stopped"
        assert systemd.recv(4096).startswith(b"STATUS=/dev/video9: ")
        with pytest.raises(BlockingIOError):
            systemd.recv(4096)


def test_the_agora_link_says_that_it_is_not_there_yet(config: Path) -> None:
    done = relayd("run", "-c", config, "--set", "rtc.kind=agora")
    assert done.returncode == 69
    assert "rtc.kind" in done.stderr


def test_check_finds_all_well_where_run_would_work(config: Path) -> None:
    done = relayd("check", "-c", config)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = {line.split()[1].rstrip(":"): line.split()[0] for line in done.stdout.splitlines()}
    assert verdicts == dict.fromkeys(
        ("config", "journal", "control", "rtc", "service", "face", "source", "stream"), "ok"
    )


def test_check_tells_each_fault_and_its_hint(
    config: Path, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.fault("refuse", endpoint="detect_faces", code=1003)
    done = relayd(
        "check", "-c", config, "--json",
        "--set", "source.url=/nowhere.mp4",
        "--set", f'output=[{{kind="stream",url="{tmp_path}/none/x.mp4"}}]',
        "--set", "state.directory=/proc/none",
    )  # fmt: skip
    findings = {finding["part"]: finding for finding in json.loads(done.stdout)}
    failed = {part for part, finding in findings.items() if finding["verdict"] == "failed"}
    assert failed == {"journal", "face", "source", "stream"}
    assert "/nowhere.mp4" in findings["source"]["why"]
    assert done.returncode == findings["journal"]["exit_code"] == 69
    assert "a-test-key" not in done.stdout


def test_check_of_refused_credentials_ends_with_77(config: Path, emulator: Emulator) -> None:
    emulator.fault("refuse", code=1101)
    assert relayd("check", "-c", config).returncode == 77


def test_faces_detect_prints_landmarks_that_the_config_takes(
    config: Path, emulator: Emulator
) -> None:
    done = relayd("faces", "detect", emulator.upload(PORTRAIT), "-c", config)
    assert done.returncode == 0, done.stderr
    landmarks = done.stdout.strip()
    assert relayd("check", "-c", config, "--set", f"face.landmarks={landmarks}").returncode == 0


def test_devices_says_how_to_make_a_camera_where_there_is_none() -> None:
    done = relayd("devices")
    assert done.returncode == 0
    assert "v4l2loopback" in done.stdout or "/dev/video" in done.stdout


def test_an_emulator_on_a_taken_port_ends_with_69(emulator: Emulator) -> None:
    port = emulator.url.rsplit(":", 1)[1]
    done = relayd("emulator", "--port", port)
    assert done.returncode == 69
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_sessions_are_listed_and_left_alone_while_a_relay_has_them(
    config: Path, start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    assert "no open sessions" in relayd("sessions", "list", "-c", config).stdout
    relay = start_relay()
    relay.wait_state("live")
    session = emulator.sessions()[0]["_id"]
    listed = relayd("sessions", "list", "-c", config).stdout
    assert session in listed
    assert "in use" in listed
    refused = relayd("sessions", "close", session, "-c", config)
    assert refused.returncode == 1
    assert "in use by relay relay" in refused.stdout
    assert emulator.sessions()
    assert relay.stop(signal.SIGTERM) == 0
    assert "no open sessions" in relayd("sessions", "list", "-c", config).stdout


def test_sessions_close_closes_what_a_killed_relay_left(
    config: Path, start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    relay = start_relay()
    relay.wait_state("live")
    session = emulator.sessions()[0]["_id"]
    relay.stop(signal.SIGKILL)
    assert "orphaned" in relayd("sessions", "list", "-c", config).stdout
    done = relayd("sessions", "close", "-c", config)
    assert (done.returncode, done.stdout) == (0, f"{session}: closed\n")
    wait_for("no session is open", lambda: not emulator.sessions(), 2)


def test_the_demo_names_a_face_file_that_is_not_there() -> None:
    done = relayd("demo", "--no-camera", "--port", "0", "--seconds", "1", "--face", "/none.png")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["relayd: --face /none.png: No such file or directory"]


def test_ctrl_c_before_the_first_picture_of_the_demo_is_no_failure() -> None:
    command = [str(RELAYD), "demo", "--no-camera", "--no-microphone", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as demo:
        assert demo.stderr is not None
        assert re.search(rb"http://127\.0\.0\.1:\d+/\?token=\S{22,}\n", demo.stderr.readline())
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=20)
        assert demo.returncode == 0


def test_the_demo_on_a_taken_port_names_another(emulator: Emulator) -> None:
    port = emulator.url.rsplit(":", 1)[1]
    done = relayd("demo", "--no-camera", "--port", port, "--seconds", "1")
    assert done.returncode == 69
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_relay_without_a_camera_is_not_on_demand_and_its_sessions_are_summed_up(
    config: Path, start_relay: Callable[..., RunningRelay]
) -> None:
    relay = start_relay()
    relay.wait_state("live")
    status = relay.status()
    assert (status["on_demand"], status["readers"]) == ("off", {})
    assert relay.stop(signal.SIGTERM) == 0
    listed = relayd("sessions", "list", "-c", config).stdout
    assert "no open sessions" in listed
    assert re.search(r"^today: 0:00:\d\d in [01] closed sessions$", listed, re.MULTILINE)
    assert re.search(r"^last 30 days: 0:00:\d\d in 1 closed sessions$", listed, re.MULTILINE)


def test_on_demand_always_without_a_camera_ends_with_78_and_names_the_hint(config: Path) -> None:
    done = relayd("run", "-c", config, "--set", "on_demand.mode=always")
    assert done.returncode == 78
    assert done.stderr.startswith('relayd: on_demand.mode = "always": needs an [[output]] of kind')


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_relay_without_standard_streams_gets_live(
    start_relay: Callable[..., RunningRelay],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed: str,
) -> None:
    program = tmp_path / "relayd-without-streams"
    program.write_text(f'#!/bin/sh\nexec {stage.RELAYD} "$@" {closed}\n')
    program.chmod(0o755)
    monkeypatch.setattr(stage, "RELAYD", program)
    start_relay().wait_state("live")
