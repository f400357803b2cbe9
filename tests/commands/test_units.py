"""The result of systemd's own checker for the units, without starting anything."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from relayd.commands.installer import Installer, InstallOptions
from relayd.commands.system_files import Layout, shipped
from relayd.errors import ExitCode

MOST_EXPOSURE = 2.0
"""0 is a unit that can do nothing, 9.2 a bare one."""
EXPOSED = {
    "RootDirectory=/RootImage=": "it runs on the system's own Python and files",
    "SupplementaryGroups=": "group video opens the camera",
    "PrivateDevices=": "the camera is a device",
    "DeviceAllow=": "video4linux, and the clock that ProtectClock= allows",
    "PrivateNetwork=": "the service, RTSP sources and WebRTC are on the network",
    "RestrictAddressFamilies=~AF_(INET|INET6)": "as above",
    "IPAddressDeny=": "WebRTC's peers have addresses that nobody knows beforehand",
    "RestrictAddressFamilies=~AF_UNIX": "the control socket, systemd's, the journal's and D-Bus",
    "RestrictAddressFamilies=~AF_NETLINK": "WebRTC asks the kernel for this machine's addresses",
    "RestrictRealtime=": "Agora's library sets real-time priorities",
    "SystemCallFilter=~@resources": "as above: sched_setscheduler",
    "MemoryDenyWriteExecute=": "pyOpenSSL, below WebRTC, makes its callbacks at run time",
    "ProcSubset=": "native libraries read /proc/cpuinfo, /proc/stat and /proc/meminfo",
}
"""What systemd-analyze still objects to, and why it is needed."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="NO SYSTEMD, SO THE UNITS ARE NOT CHECKED"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as `relayd install` puts them in place, with an instance of each."""
    command = tmp_path / "relayd"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    options = InstallOptions(
        Layout.SYSTEM, tmp_path, str(command), yes=True, changed_too=False, dry_run=False
    )
    Installer(options, lambda line: None, lambda question: False).install()
    for folder in ("system", "user"):
        unit = tmp_path / "etc/systemd" / folder / "relayd@.service"
        unit.with_name("relayd@studio.service").write_text(unit.read_text())
    return tmp_path / "etc/systemd"


def analyze(*arguments: object) -> str:
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": "/run"},  # --user wants one
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
@pytest.mark.parametrize("manager", ["system", "user"])
def test_systemd_finds_no_fault_with_a_unit(units: Path, manager: str) -> None:
    output = analyze(
        "verify", "--man=no", f"--{manager}", units / manager / "relayd@studio.service"
    )
    assert "relayd" not in output


@needs_systemd
def test_the_service_is_exposed_to_what_it_needs_and_to_nothing_else(units: Path) -> None:
    table = analyze(
        "security", "--offline=true", "--no-pager", units / "system" / "relayd@studio.service"
    )
    found = {line.split()[1] for line in table.splitlines() if line.startswith("✗")}
    assert found == set(EXPOSED)
    overall = re.search(r"Overall exposure level for \S+: ([0-9.]+)", table)
    assert overall
    assert float(overall[1]) <= MOST_EXPOSURE


def test_the_video_driver_is_there_when_the_device_policy_is_made() -> None:
    unit = (shipped() / "systemd/relayd@.service").read_text()
    for key in ("Wants", "After"):
        named = " ".join(re.findall(rf"^{key}=(.*)", unit, re.MULTILINE)).split()
        assert "modprobe@videodev.service" in named
    assert "DeviceAllow=char-video4linux rw" in unit.splitlines()


def test_no_restart_follows_an_exit_that_a_person_must_fix() -> None:
    for unit in ("systemd/relayd@.service", "systemd/user/relayd@.service"):
        (line,) = re.findall(
            r"^RestartPreventExitStatus=(.*)", (shipped() / unit).read_text(), re.MULTILINE
        )
        assert {int(code) for code in line.split()} == {
            ExitCode.USAGE,
            ExitCode.REFUSED,
            ExitCode.CONFIG,
        }
