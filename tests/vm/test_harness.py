"""The machine itself: what the other tests rely on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.guest import Guest

pytestmark = pytest.mark.vm


def test_the_machine_has_the_module_and_its_device_and_gives_output_and_status_back(
    guest: Guest,
) -> None:
    assert guest.run("stat -c '%F %G %a' /dev/video0") == "character special file video 660\n"
    assert "relayd" in guest.run("cat /sys/class/video4linux/video0/name")
    assert guest.run("head -c 300000 /dev/zero | tr '\\0' x; exit 7", status=7) == "x" * 300000
    assert guest.run(f"cat {__file__}") == Path(__file__).read_text()


def test_writes_in_the_machine_do_not_reach_the_host(guest: Guest) -> None:
    here = Path(__file__).with_name("written-in-the-guest")
    guest.run(f"touch {here} && test -e {here}")
    assert not here.exists()


def test_a_command_line_gets_its_output_and_status_through() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.vm.run", "echo here; exit 9"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 125:
        pytest.skip(f"NO VIRTUAL MACHINE: {ended.stderr}")
    assert (ended.returncode, ended.stdout) == (9, "here\n")
