"""The .deb's life on a machine with a real v4l2loopback and a real systemd, in one go.

The tests go on where the one before ended: install, run, kill, upgrade, remove, purge. Its
dependency v4l2loopback-dkms is really installed, with dkms and udev. dkms finds no kernel headers
in this machine and so compiles nothing; the module that modprobe loads is the machine's own, made
from the same source.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from relayd.frames import Geometry
from relayd.output.standby import StandbyArtist
from tests.e2e.stage import Emulator, wait_for
from tests.vm import cache
from tests.vm.container import KEY
from tests.vm.guest import HOST, Failed, Guest, Machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

NEXT = "0.1.0+1"
DEPENDENCIES = ("dkms", "v4l2loopback-dkms", "udev", "libudev1")
OF_DKMS = ("dpkg-dev", "gcc", "make", "patch", "kmod")  # its dependencies: the host has them
INSTALL = "DEBIAN_FRONTEND=noninteractive dpkg --no-triggers --force-unsafe-io -i"
SLOW = 120.0  # s; emulation, on a busy machine
SIZE = Geometry(640, 480)

Note = Callable[[str, object], None]


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What apt would fetch beside the package."""
    folder = tmp_path_factory.mktemp("dependencies")
    cache.install(OF_DKMS)
    fetch = ["apt-get", "-qq", "download", *DEPENDENCIES]
    if subprocess.run(fetch, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        done = subprocess.run(fetch, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NO PACKAGES, SO THE .deb IS NOT TESTED: {done.stderr}")
    return sorted(folder.glob("*.deb"))


@pytest.fixture(scope="module")
def upgrade(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version of the package: the same, but for its number."""
    root = tmp_path_factory.mktemp("next") / "root"
    subprocess.run(["dpkg-deb", "-R", package, root], check=True)
    control = root / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {NEXT}", control.read_text()))
    (init,) = root.glob("usr/lib/relayd/lib/python3*/site-packages/relayd/__init__.py")
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{NEXT}"', init.read_text()))
    compile_it = ["/usr/bin/python3", "-m", "compileall", "-q", "-f", "-s", root, "-p", "/"]
    subprocess.run([*compile_it, "--invalidation-mode", "unchecked-hash", init], check=True)
    file = root.with_name(f"relayd_{NEXT}.deb")
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, file], check=True)
    return file


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the machine may put files for us."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machine(
    boot_machine: Callable[[Machine], AbstractContextManager[Guest]], shared: Path
) -> Iterator[Guest]:
    """A machine with systemd, and no camera yet."""
    with boot_machine(Machine(systemd=True, options=None, memory=3072, shared=shared)) as guest:
        yield guest


@pytest.fixture(scope="module")
def config(service: Emulator, face: str) -> str:
    """A relay that stays in standby: its source is missing."""
    there = service.url.replace("127.0.0.1", HOST)
    return f"""
[source]
url = "/nonexistent.mp4"
[face]
image = "{face}"
[akool]
base_url = "{there}"
[rtc]
kind = "webrtc"
publish_url = "{there}/rtc/{{channel_id}}/{{front_user_id}}/whip"
play_url = "{there}/rtc/{{channel_id}}/{{algorithm_user_id}}/whep"
[on_demand]
mode = "never"
[[output]]
kind = "camera"
device = "/dev/relayd/0"
"""


def show(machine: Guest, name: str) -> str:
    return machine.run(f"systemctl show -p {name} --value relayd@studio").strip()


def shown(machine: Guest, shared: Path) -> np.ndarray:
    """Give a frame that a reader of the camera gets, as I420."""
    file = shared / "frame"
    machine.run(
        f"v4l2-ctl -d /dev/video40 --stream-mmap --stream-skip 2 --stream-count 1"
        f" --stream-to {file}"
    )
    return np.frombuffer(file.read_bytes(), np.uint8).reshape(SIZE.shape)


def standby(machine: Guest) -> np.ndarray:
    """Give the picture that the relay ought to show, drawn here from what it says of itself."""
    told = json.loads(machine.run("relayd status studio --json", status=1))
    return StandbyArtist(SIZE).draw(told["state_words"], told["reason"]).i420


def assert_alike(seen: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(seen.astype(int) - expected.astype(int)).mean()
    assert difference < 0.5, f"{difference:.2f} of 255 off, on average"


def test_it_installs_beside_its_real_dependencies(
    machine: Guest, package: Path, dependencies: list[Path], note: Note
):
    files = " ".join(map(str, [*dependencies, package]))
    said = machine.run(f"{INSTALL} {files}", within=300)
    assert "compil" not in said, "dkms has nothing to compile for here"
    assert machine.run("relayd --version").strip() == "relayd 0.1.0"
    assert "(video)" in machine.run("id relayd")
    assert machine.run("stat -c '%a %U:%G' /etc/relayd").strip() == "750 root:relayd"
    assert machine.run("systemctl list-units --plain --no-legend 'relayd@*'") == ""
    machine.run("systemctl start systemd-udevd && udevadm control --ping")


def test_two_cameras_with_names_that_stay_are_there_as_at_boot(machine: Guest):
    machine.run("systemctl restart systemd-modules-load && udevadm settle")
    assert machine.run("cat /sys/class/video4linux/video4[01]/name") == "relayd\nrelayd 2\n"
    assert machine.run("readlink -f /dev/relayd/0 /dev/relayd/1") == "/dev/video40\n/dev/video41\n"
    assert machine.run("stat -Lc '%a %U:%G' /dev/relayd/0").strip() == "660 root:video"
    assert machine.run("cat /sys/module/v4l2loopback/parameters/exclusive_caps")[:3] == "Y,Y"


def test_start_returns_with_the_standby_picture_on_the_camera(
    machine: Guest, shared: Path, config: str, note: Note
):
    machine.write("/etc/credstore/akool-api-key", KEY)
    machine.write("/etc/relayd/studio.toml", config)
    machine.run("systemctl start relayd@studio", within=SLOW)
    assert show(machine, "ActiveState") == "active"
    assert show(machine, "StatusText").startswith("Standing by: there is no file")
    assert_alike(shown(machine, shared), standby(machine))
    peak = int(machine.run("cat /sys/fs/cgroup/system.slice/system-relayd.slice/*/memory.current"))
    note("memory of a relay in standby, its unit's cgroup", f"{peak / 2**20:.0f} MiB")


def test_after_sigkill_the_next_start_finds_the_camera(machine: Guest, shared: Path, note: Note):
    machine.run(f"kill -KILL {show(machine, 'MainPID')}")
    took = wait_for("restart", lambda: show(machine, "NRestarts") == "1", SLOW, 0.5)
    took += wait_for("READY", lambda: show(machine, "ActiveState") == "active", SLOW, 0.5)
    note("SIGKILL to READY again, emulated", f"{took:.0f} s")
    assert_alike(shown(machine, shared), standby(machine))


def test_after_sigkill_its_session_is_closed(machine: Guest, config: str, service: Emulator):
    live = config.replace("/nonexistent.mp4", 'testsrc2=size=640x480:rate=10"\nformat = "lavfi')
    machine.write("/etc/relayd/studio.toml", live)
    machine.run("systemctl restart relayd@studio", within=SLOW)
    wait_for("a session", service.sessions, SLOW, 0.2)
    killed = {session["_id"] for session in service.sessions()}
    machine.run(f"kill -KILL {show(machine, 'MainPID')}")
    wait_for("its close", lambda: not killed & ids(service), SLOW, 0.2)


def test_an_upgrade_restarts_the_relay_and_keeps_what_was_edited(
    machine: Guest, upgrade: Path, service: Emulator
):
    wait_for("READY", lambda: show(machine, "ActiveState") == "active", SLOW, 0.5)
    wait_for("a session", service.sessions, SLOW, 0.2)
    before, old = show(machine, "MainPID"), ids(service)
    machine.run("echo '# mine' >>/etc/modprobe.d/relayd.conf")
    machine.run(f"{INSTALL} {upgrade}", within=300)
    assert machine.run("relayd --version").strip() == f"relayd {NEXT}"
    assert show(machine, "ActiveState") == "active"
    assert show(machine, "MainPID") not in (before, "0")
    assert machine.run("tail -1 /etc/modprobe.d/relayd.conf").strip() == "# mine"
    assert not old & ids(service), "the old relay's session was closed"


def test_remove_stops_the_relay_and_leaves_configuration_and_journal(
    machine: Guest, service: Emulator
):
    wait_for("a session", service.sessions, SLOW, 0.2)
    machine.run("dpkg --no-triggers -r relayd", within=SLOW)
    assert service.sessions() == []
    machine.run("! pgrep -u relayd")
    assert (
        machine.run("ls -d /usr/lib/relayd /usr/bin/relayd /run/relayd 2>/dev/null", status=2) == ""
    )
    machine.run("ls /etc/relayd/studio.toml /etc/modprobe.d/relayd.conf")
    history = machine.run("cat /var/lib/relayd/studio/*.jsonl").splitlines()
    assert len(history) >= 3


def test_purge_leaves_nothing_but_the_state(machine: Guest):
    machine.run("dpkg --no-triggers -P relayd", within=SLOW)
    places = "/etc /run /usr/bin /usr/lib/systemd /usr/lib/udev /usr/lib/tmpfiles.d"
    places += (
        " /usr/lib/sysusers.d /usr/lib/modprobe.d /usr/share/doc /usr/share/lintian /var/cache"
    )
    found = machine.run(
        f"find {places} -path /run/vm -prune -o -path /run/udev -prune -o"
        " \\( -name '*relayd*' -o -name 'akool*' \\) -print"
    )
    assert found == "", found
    assert machine.run("ls -d /usr/lib/relayd 2>/dev/null", status=2) == ""
    assert machine.run("stat -c %U /var/lib/relayd/studio").strip() == "relayd"
    assert "relayd" not in machine.run("dpkg-query -l 'relayd*' 2>&1", status=None).split("\n")[-2]


def ids(service: Emulator) -> set[str]:
    return {session["_id"] for session in service.sessions()}


def test_nothing_went_wrong_in_the_kernel(machine: Guest):
    said = machine.run("dmesg --level=emerg,alert,crit,err || true")
    if "BUG" in said or "Oops" in said:
        raise Failed(said)
